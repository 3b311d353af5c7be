"""Measuring on CUDA: group by group, in one process of an interpreter that has torch's CUDA build; results are stored as data."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from memest.machines.devices import devices
from memest.machines.versions import NEWEST, Version, version_of
from validation.cuda.labels import labels
from validation.cuda.run import ROOT, environment
from validation.cuda.storing import folder_of, load, store

Measuring = Callable[[Callable[[str], bool]], Iterator[dict[str, Any]]]


def groups(version: Version | None) -> dict[str, Measuring]:
    """What is measured of a version of torch, by group: a function of which names are wanted, that gives a record for each case."""
    from validation.cuda import parallel
    from validation.cuda.calling import measure_calls
    from validation.cuda.networks import cases, sample
    from validation.cuda.operators import calls
    from validation.cuda.optimizers import measure_optimizers
    from validation.cuda.rows import measure_rows
    from validation.cuda.stepping import measure_networks

    return {
        "rows": measure_rows,
        "operators": partial(measure_calls, calls()),
        "optimizers": measure_optimizers,
        "networks": partial(measure_networks, cases() if version == NEWEST else sample()),
        "parallel": partial(measure_networks, parallel.cases()),
    }


def card_named(text: str) -> str:
    """The catalogue's name of a described card; a beginning will do where one name has it, or the others are longer forms of one."""
    found = sorted((name for name in devices() if name.startswith(text)), key=len)
    if not found:
        raise SystemExit(f"card {text}: not described; there are {', '.join(devices())}")
    if not all(name.startswith(found[0]) for name in found):
        raise SystemExit(f"card {text}: one of {', '.join(found)}")
    return found[0]


def measure(card: str, python: str, only: str = "", *, on_card: bool = False, again: bool = False) -> int:
    """Measure in a process of ``python``: on the stand-in for that card, or (``on_card``) on the card of this machine, which it must be."""
    command = [
        python,
        "-m",
        "validation",
        "measure-cuda-here",
        card_named(card),
        *([only] if only else []),
        *(["--again"] if again else []),
    ]
    return subprocess.run(command, env=None if on_card else environment(python, card_named(card)), cwd=ROOT, check=False).returncode


def measure_here(card: str, only: str = "", *, again: bool = False) -> int:
    """Measure in this process, group by group, what has no result yet (or all that is wanted); the number of cases that torch refused."""
    head, refused = labels(card), 0
    for group, measuring in groups(version_of(head["torch"])).items():
        path = folder_of(head) / f"{group}.jsonl.xz"
        kept = {r["case"]: r for r in load(path)[1]} if path.exists() else {}
        fine = frozenset(name for name, r in kept.items() if "error" not in r)

        def wanted(name: str, group: str = group, have: frozenset[str] = fine) -> bool:
            return (only == group or only in name) and (again or name not in have)

        found: dict[str, dict[str, Any]] = {}
        try:
            for record in measuring(wanted):
                found[record["case"]] = record
        finally:  # what was measured until an interruption is kept
            if found:
                store(group, head, {**kept, **found}.values())
        failed = [r for r in found.values() if "error" in r]
        refused += len(failed)
        print(f"{group}: {len(found) - len(failed)} measured, {len(failed)} refused", file=sys.stderr, flush=True)
        for r in failed[:3]:
            print(f"  {r['case']}: {r['error']}", file=sys.stderr, flush=True)
    return refused
