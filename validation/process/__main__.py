"""``python -m validation.process``: measure processes (each alone, in its turn); their results are one line of JSON each."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from dataclasses import fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from memest.machines.process import Malloc, malloc_named
from validation.process.cases import CASES, Case

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "validation" / "results" / "process"
VARIABLES = {f.name: f"MALLOC_{f.name.upper()}" + "_" * (f.name != "arena_max") for f in fields(Malloc) if f.name not in ("name", "thread")}


def environment(malloc: Malloc, jemalloc: str) -> dict[str, str]:
    """The variables that tell a process of its allocator."""
    told = {variable: str(getattr(malloc, name)) for name, variable in VARIABLES.items() if getattr(malloc, name) is not None}
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")}
    return {**kept, **told, **({"LD_PRELOAD": jemalloc} if malloc.name == "jemalloc" else {}), "PYTHONPATH": str(ROOT)}


def measured(case: Case, jemalloc: str, before: list[str]) -> dict[str, object]:
    """What one fresh process shows. RuntimeError with its last words where it fails."""
    malloc = malloc_named(case.malloc)
    command = [*before, sys.executable, str(Path(__file__).with_name("measuring.py")), json.dumps(case.told(malloc.thread))]
    done = subprocess.run(command, env=environment(malloc, jemalloc), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-300:])
    return {**case._asdict(), **json.loads(done.stdout.splitlines()[-1]), "machine": of_machine()}


def of_machine() -> dict[str, str]:
    """The versions that a result belongs to."""
    found = {"python": platform.python_version(), "libc": " ".join(platform.libc_ver())}
    for package in ("torch", "torchvision"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = ""
    return found


def main() -> int:
    """Measure the cases that have no line yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", choices=("seen", "held-out"))
    parser.add_argument("--malloc", default="", help="instead of glibc as it comes and with a fixed threshold, such as jemalloc")
    parser.add_argument("--only", default="", help="part of a case's name")
    parser.add_argument("--jemalloc", default="libjemalloc.so.2", help="where the library lies")
    parser.add_argument("--before", default="", help="words put before each command, such as nice")
    given = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{given.which}.jsonl"
    known = {Case.of(row).name for row in _rows(path)}
    cases = [c for c in CASES if c.held_out == (given.which == "held-out") and given.only in c.name]
    if given.malloc:
        cases = [c._replace(malloc=given.malloc) for c in cases if c.malloc == "glibc"]
    failed = 0
    for case in cases:
        if case.name in known:
            continue
        try:
            row = measured(case, given.jemalloc, given.before.split())
        except RuntimeError as e:
            failed += 1
            print(f"{case.name}: {e}", file=sys.stderr, flush=True)
            continue
        with path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(row) + "\n")
        print(case.name, file=sys.stderr, flush=True)
    return 1 if failed else 0


def _rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


if __name__ == "__main__":
    sys.exit(main())
