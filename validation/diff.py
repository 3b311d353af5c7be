"""One case measured now, its stream beside the predicted one: the first event that differs, and the operator it belongs to."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from memest.machines.cpu import Cpu
from validation.cases import CASES, Case


def diff(name: str) -> int:
    """Print the comparison of the case called ``name`` (or the first whose name contains it); 0 when the streams are equal."""
    case = next((c for c in CASES if c.name == name), None) or next((c for c in CASES if name in c.name), None)
    if case is None:
        print(f"no case is called {name!r}; see: python -m validation list", file=sys.stderr)
        return 2
    if not _runtime_is(case):
        return _in_its_runtime(case)
    return _diff_here(case)


def _runtime_is(case: Case) -> bool:
    cpu = Cpu.detect()
    return cpu.threads == case.threads and cpu.isa == case.isa


def _in_its_runtime(case: Case) -> int:
    """The same command in a process with the case's threads and instruction set."""
    if os.environ.get("MEMEST_DIFF"):
        print(f"this machine cannot run {case.isa} with {case.threads} threads", file=sys.stderr)
        return 2
    environment = {**os.environ, "OMP_NUM_THREADS": str(case.threads), "MEMEST_DIFF": "1"}
    if case.isa == "avx2":
        environment["ONEDNN_MAX_CPU_ISA"] = "AVX2"
    return subprocess.run([sys.executable, "-m", "validation", "diff", case.name], env=environment, check=False).returncode


def _diff_here(case: Case) -> int:
    import torch

    from validation.compare import predict
    from validation.distributed import measure_ranks, world_of
    from validation.measure import measured_here
    from validation.streams import differing, first_difference

    measured: Any = next(measure_ranks([case]))[1][0] if world_of(case) else measured_here(case)
    predicted = predict(case, Cpu.detect(), torch.__version__)
    difference = predicted.peak_bytes - measured.peak_bytes
    print(case.name)
    print(f"peak: predicted {predicted.peak_bytes:,}, measured {measured.peak_bytes:,} ({difference:+,})")
    print(f"resident: predicted {predicted.standing_bytes:,}, measured {measured.standing_bytes:,}")
    found = first_difference(predicted.events, measured.events)
    if found is None:
        print(f"streams equal: {len(measured.events)} events")
        return 0
    unmatched = differing([s.delta for s in predicted.events], [m.delta for m in measured.events])
    print(f"streams differ; {unmatched} allocations without partner; first difference:\n{found}")
    return 1
