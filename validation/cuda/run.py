"""A command of an interpreter, run on the stand-in for a card."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from validation.cuda.build import build

ROOT = Path(__file__).parent.parent.parent
PYTHON = "MEMEST_CUDA_PYTHON"  # names an interpreter whose torch is built for CUDA


def properties(card: str) -> dict[str, Any]:
    """cuDNN's device properties of a card: of the catalogue by name, or of a JSON file such as a card itself gave."""
    if card.endswith(".json"):
        return json.loads(Path(card).read_text(encoding="utf-8"))
    from memest.machines.devices import device_named

    device = device_named(card)
    if device is None:
        raise SystemExit(f"card {card} has no description of its device")
    return device.properties()


def environment(python: str, card: str, *, devices: int = 1, usable_bytes: int | None = None) -> dict[str, str]:
    """The environment in which ``python`` meets so many of that card, whose processes may take ``usable_bytes`` of each (default: all)."""
    built = build(python)
    path = Path(tempfile.gettempdir()) / f"{built.name}-{Path(card).stem}.json"
    path.write_text(json.dumps(properties(card)), encoding="utf-8")
    libraries = os.pathsep.join(p for p in (str(built), os.environ.get("LD_LIBRARY_PATH", "")) if p)
    given = {
        "LD_PRELOAD": str(built / "libstandin.so"),
        "LD_LIBRARY_PATH": libraries,
        "CUDA_MODULE_LOADING": "LAZY",
        "MEMEST_STANDIN_CARD": str(path),
        "MEMEST_STANDIN_DEVICES": str(devices),
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
    }
    return {**os.environ, **given} | ({} if usable_bytes is None else {"MEMEST_STANDIN_BYTES": str(usable_bytes)})


def on_stand_in(python: str, card: str, arguments: Sequence[str], **settings: Any) -> subprocess.CompletedProcess[str]:
    """``python arguments...`` on the stand-in; what it prints is captured, what it says goes to stderr."""
    return subprocess.run(
        [python, *arguments],
        env=environment(python, card, **settings),
        cwd=ROOT,
        check=False,
        stdout=subprocess.PIPE,
        stderr=None,
        text=True,
    )


def interpreter(given: str | None = None, environ: Mapping[str, str] = os.environ) -> str:
    """The interpreter with torch's CUDA build: the one given, or the environment's, or this one."""
    return given or environ.get(PYTHON) or sys.executable
