"""Measuring cells: each in a fresh process, the smallest first, stored one by one as data."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from validation.measure import RESULTS, machine_name
from validation.origin.cells import CELLS, Cell
from validation.origin.predicting import tensors_bytes

STORED = RESULTS / "origin" / "measured.json"
MODULES = {"torch": "torch_step", "tensorflow": "keras_step", "tensorflow without oneDNN": "keras_step"}
TIMES_AS_LARGE = {"torch": 1.3, "tensorflow": 1.5, "tensorflow without oneDNN": 4.5}
"""What a process holds at most, in units of the tensors that torch's step holds: only to leave out what this machine cannot hold."""


def stored() -> dict[str, Any]:
    """What was measured, by the names of cells, and under ``machine`` on what."""
    found: dict[str, Any] = json.loads(STORED.read_text(encoding="utf-8")) if STORED.exists() else {}
    return found


def measure(framework: str, python: str, most_bytes: float, only: str = "") -> None:
    """Measure the cells of a framework that hold ``most_bytes`` at most and have no result, by an interpreter that has the framework."""
    sizes = {cell: tensors_bytes(cell) for cell in CELLS if cell.framework == framework and only in cell.name}
    known = {cell: n * TIMES_AS_LARGE[framework] for cell, n in sizes.items() if n is not None}
    for cell, size in sorted(known.items(), key=lambda item: item[1]):
        if size <= most_bytes and cell.name not in stored():
            try:
                found = _measured(cell, python)
            except (OSError, ValueError) as e:
                print(f"{cell.name}: {e}", file=sys.stderr, flush=True)
                continue
            print(cell.name, found, file=sys.stderr, flush=True)
            _store(cell.name, found)


def _measured(cell: Cell, python: str) -> dict[str, Any]:
    onednn = {
        "TF_ENABLE_ONEDNN_OPTS": "0" if cell.framework.endswith("without oneDNN") else "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    command = [python, "-m", f"validation.origin.{MODULES[cell.framework]}", cell.mode, str(cell.side), str(cell.batch)]
    environment = {**os.environ, **onednn, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(done.stderr.strip()[-300:] or f"ended with {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _store(name: str, found: dict[str, Any]) -> None:
    """Write the whole file or none."""
    STORED.parent.mkdir(parents=True, exist_ok=True)
    lines = {"machine": machine_name(), **stored(), name: found}
    temporary = STORED.with_suffix(f".{os.getpid()}")
    temporary.write_text("{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in lines.items()) + "\n}\n", encoding="utf-8")
    temporary.replace(STORED)
