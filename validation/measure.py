"""Measuring cases: each in a process of its own, with the case's threads and instruction set; results are stored as data."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memest.machines.versions import BEST_MEASURED, installed, nearest
from validation.cases import BY_NAME, Case

if TYPE_CHECKING:
    from validation.distributed import Rank
    from validation.protocol import Measurement

RESULTS = Path(__file__).parent / "results"
SCHEMA = 1


def results_for(machine: str | None = None, torch: str | None = None) -> Path:
    """The folder of a machine's results (this one's) for a release of torch (the one installed): versions stand beside one another, and
    the one with a result for every case has the machine's own name."""
    version = nearest(torch or installed() or "")
    suffix = "" if version == BEST_MEASURED else f"-torch-{version[0]}.{version[1]}"
    return RESULTS / f"{machine or machine_name()}{suffix}"


def machine_name() -> str:
    """The processor's model, as a folder name."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        model = next(line.partition(":")[2] for line in text.splitlines() if line.startswith("model name"))
        family = next(line.partition(":")[2] for line in text.splitlines() if line.startswith("cpu family"))
    except (OSError, StopIteration):
        model, family = platform.machine(), ""
    return re.sub(r"[^a-z0-9]+", "-", f"{model} family {family}".lower()).strip("-")


def measure(cases: Iterable[Case], *, again: bool = False) -> int:
    """Measure cases that have no current result; the number that failed. Cases of one network and runtime share a process."""
    folder = results_for()
    folder.mkdir(parents=True, exist_ok=True)
    todo = [c for c in cases if again or not (folder / f"{c.name}.json").exists()]
    groups: dict[tuple[str, int, str], list[Case]] = {}
    for case in todo:
        groups.setdefault((case.model, case.threads, case.isa), []).append(case)
    failed = 0
    for (model, threads, isa), members in groups.items():
        command = [sys.executable, "-m", "validation", "measure-one", *(c.name for c in members)]
        done = subprocess.run(command, env=_environment(threads, isa), capture_output=True, text=True, check=False)
        missing = [c.name for c in members if not (folder / f"{c.name}.json").exists()]
        failed += len(missing)
        print(f"{model}, {threads} threads, {isa}: {len(members) - len(missing)} of {len(members)} measured", file=sys.stderr, flush=True)
        if missing:
            print(f"  {missing[0]}: {done.stderr.strip()[-400:]}", file=sys.stderr, flush=True)
    return failed


def measure_those(names: Sequence[str]) -> None:
    """Measure cases of one runtime, in this process or, where they are parallel, in processes of their own; store each result."""
    import torch

    from validation.distributed import measure_ranks, world_of

    cases = [BY_NAME[name] for name in names]
    for case, ranks in measure_ranks([c for c in cases if world_of(c)]):
        _store(case, ranks[0], ranks)
    for case in cases:
        if not world_of(case):
            torch.set_num_threads(case.threads)
            _store(case, measured_here(case))


def measured_apart(cases: Iterable[Case]) -> list[dict[str, Any]]:
    """What is measured of each case (``name``, ``cpu``, bytes), a process for each number of threads and instruction set; nothing is
    stored."""
    groups: dict[tuple[int, str], list[Case]] = {}
    for case in cases:
        groups.setdefault((case.threads, case.isa), []).append(case)
    found: list[dict[str, Any]] = []
    for runtime, members in groups.items():
        command = [sys.executable, "-m", "validation", "measure-print", *(c.name for c in members)]
        done = subprocess.run(command, env=_environment(*runtime), capture_output=True, text=True, check=True)
        found += [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"name"')]
    return found


def print_those(names: Sequence[str]) -> None:
    """Measure cases of one runtime in this process; one line of JSON each."""
    import torch

    for name in names:
        case = BY_NAME[name]
        torch.set_num_threads(case.threads)
        print(json.dumps({"name": name, **_measured(case, measured_here(case))}), flush=True)


def _environment(threads: int, isa: str) -> dict[str, str]:
    """The environment of a process with so many threads and an instruction set."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    return {**environment, "ONEDNN_MAX_CPU_ISA": "AVX2"} if isa == "avx2" else environment


def _measured(case: Case, measured: Measurement | Rank) -> dict[str, Any]:
    from memest.machines.cpu import Cpu

    cpu = Cpu.detect()
    return {
        "cpu": {"isa": case.isa, "threads": case.threads, "l1_bytes": cpu.l1_bytes, "l2_bytes": cpu.l2_bytes, "l3_bytes": cpu.l3_bytes},
        "resident_bytes": measured.standing_bytes,
        "peak_bytes": measured.peak_bytes,
        "events": len(measured.events),
    }


def _store(case: Case, measured: Measurement | Rank, ranks: Sequence[Rank] = ()) -> None:
    """Write one result (whole file or none)."""
    import torch

    result: dict[str, Any] = {
        "schema": SCHEMA,
        "case": asdict(case),
        "digest": case.digest,
        "machine": machine_name(),
        "torch": torch.__version__,
        **_measured(case, measured),
    }
    if ranks:
        result["ranks"] = [{"resident_bytes": r.standing_bytes, "peak_bytes": r.peak_bytes, "peaks": r.peaks} for r in ranks]
    if case.stream:
        result["stream"] = [e.delta for e in measured.events]
    path = results_for() / f"{case.name}.json"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(result) + "\n", encoding="utf-8")
    temporary.replace(path)


def measured_here(case: Case) -> Measurement:
    """The case measured in this process, as its threads and instruction set are."""
    from validation.modules import build_module
    from validation.protocol import inputs_for, measure_inference, measure_training

    module, inputs = build_module(case), inputs_for([case.shape], case.channels_last, case.dtype)
    if case.mode == "infer":
        return measure_inference(module, inputs, levers=case.levers)
    return measure_training(
        module.train(),
        inputs,
        case.optimizer,
        case.loss,
        hold_output=case.hold_output,
        first_step=case.first_step,
        levers=case.levers,
    )
