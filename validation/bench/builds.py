"""Builds to measure: a folder with the package in it, used by child processes alone."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import memest

BASE = "c1c954c"
THIS = "this build"
PROBES = Path(__file__).with_name("probes.py")
_ONE_CORE = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}


class BuildError(Exception):
    """A child process of a build failed."""


@dataclass(frozen=True)
class Build:
    """A build by its ``name`` in the table: ``folder`` holds the package ``memest``."""

    name: str
    folder: Path

    def cpu_seconds(self, *arguments: str) -> float:
        """CPU seconds of a whole ``python`` with these arguments, from its start to its end; BuildError when it fails."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        self._run(arguments, {})
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def answer(self, probe: str, *arguments: str) -> dict[str, float]:
        """What a function of :mod:`validation.bench.probes` finds in a process of its own, on one core; BuildError when it fails."""
        told = self._run((str(PROBES), str(self.folder), probe, *arguments), _ONE_CORE)
        return dict(json.loads(told.splitlines()[-1]))

    def _run(self, arguments: tuple[str, ...], extra: Mapping[str, str]) -> str:
        kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PYTHONSAFEPATH")}
        environment = {**kept, **extra, "PYTHONPATH": str(self.folder), "PYTHONHASHSEED": "0"}
        done: Any = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, cwd=self.folder)
        if done.returncode != 0:
            last = (done.stderr or done.stdout).strip().splitlines()[-1:]
            raise BuildError(f"{self.name}: python {' '.join(arguments)} exits with {done.returncode}: {''.join(last)}")
        return str(done.stdout)


def this_build() -> Build:
    """The memest that is imported here."""
    return Build(THIS, Path(memest.__file__).parents[1])


@contextmanager
def of_commit(commit: str, repository: Path) -> Iterator[Build | None]:
    """The package as it was at ``commit``, in a temporary folder; None where the folder has no git history with it."""
    archive = _archive(commit, repository)
    if archive is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="memest-bench-") as folder:
        with tarfile.open(fileobj=BytesIO(archive)) as packed:
            packed.extractall(folder, filter="data")
        yield Build(commit, Path(folder))


def _archive(commit: str, repository: Path) -> bytes | None:
    try:
        done = subprocess.run(["git", "-C", str(repository), "archive", commit, "memest"], capture_output=True)
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None
