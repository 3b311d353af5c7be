"""Each modelled version of torch in an environment of its own: operator laws, random networks and a sample of the cases, stored as data.

An environment takes torch's CPU build where the package index has one, else the default build, which runs on the CPU all the same; it is
made for the time of its measurement and deleted. What is stored is small, one file a version, and compared without that torch.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import requires
from pathlib import Path
from typing import Any

from memest.machines.cpu import Cpu
from memest.machines.versions import MODELLED, Version, version_of
from memest.machines.versions import SAMPLED as HOW
from validation.cases import BY_NAME, CASES, Case
from validation.compare import name_of, predict, stored
from validation.measure import RESULTS, machine_name, measured_apart

ROOT = Path(__file__).parent.parent
STORED = RESULTS / "versions"
SCHEMA = 1
VISION = {  # the torchvision that was built against each torch
    "2.9.1": "0.24.1",
    "2.11.0": "0.26.0",
    "2.12.1": "0.27.1",
    "2.13.0": "0.28.0",
    "2.14.1": "0.29.1",
}
SAMPLED = 60
NETWORKS = 60
LAWS = {"operator laws": "tests/test_laws.py", "laws in other dtypes (a sample)": "tests/test_laws_dtypes.py"}
UNSAMPLED = frozenset({"parallel"})  # gloo's threads release in their own time


def sample() -> tuple[Case, ...]:
    """The cases that every version is measured on: as many of each group, evenly spaced over the third of it that needs least memory."""
    peaks = {name_of(r): r["peak_bytes"] for _, r in stored()}
    groups: dict[str, list[Case]] = {}
    for case in CASES:
        if case.group not in UNSAMPLED:
            groups.setdefault(case.group, []).append(case)
    each = SAMPLED // len(groups)
    rest = SAMPLED - each * len(groups)
    taken: list[Case] = []
    for n, members in enumerate(groups.values()):
        count = each + (n < rest)
        light = sorted(members, key=lambda c: (peaks[c.name], c.name))[: max(count, len(members) // 3)]
        taken += [light[i * len(light) // count] for i in range(count)]
    return tuple(taken)


# measuring ---------------------------------------------------------------------------------------------------------------


def measure_versions(asked: Sequence[str], python: str | None = None) -> int:
    """Measure each version (all that are modelled, if none is ``asked``), one at a time: in an environment made for it, or with the
    interpreter ``python``, whose torch it has to be. The number of versions that could not be measured."""
    failed = 0
    for release in _releases(asked):
        try:
            if python is not None:
                _measure_with(python, release)
                continue
            with tempfile.TemporaryDirectory(prefix="memest-torch-") as folder:
                _measure_with(_environment(Path(folder), release), release)
        except subprocess.CalledProcessError as error:
            failed += 1
            print(f"torch {release}: {error}\n{(error.stderr or '')[-2000:]}", file=sys.stderr, flush=True)
    return failed


def _releases(asked: Sequence[str]) -> list[str]:
    known = {m.release: v for v, m in MODELLED.items()}
    found = [r for r, v in known.items() if not asked or any(version_of(a) == v for a in asked)]
    unknown = [a for a in asked if version_of(a) not in MODELLED]
    if unknown:
        raise SystemExit(f"not modelled: {', '.join(unknown)}; there are {', '.join(known)}")
    return found


def _environment(folder: Path, release: str) -> str:
    """A fresh environment with that torch and what memest and its laws need; its interpreter."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, capture_output=True, text=True)
    python = str(folder / "bin" / "python")
    needed = [r for r in requires("memest-cnn") or () if "extra ==" not in r]
    command = [python, "-m", "pip", "install", "--quiet", "--no-cache-dir", "pytest", *needed]
    for build in ("+cpu", ""):
        wanted = [f"torch=={release}{build}", f"torchvision=={VISION[release]}{build}"]
        print(f"torch {release}: installing {' '.join(wanted)}", file=sys.stderr, flush=True)
        done = subprocess.run([*command, *wanted], check=not build, capture_output=True, text=True)
        if done.returncode == 0:
            break
    return python


def _measure_with(python: str, release: str) -> None:
    start = time.time()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "OMP_WAIT_POLICY": "passive"}
    command = [python, "-m", "validation", "version-here", release]
    subprocess.run(command, check=True, cwd=ROOT, env=environment, stderr=None, stdout=sys.stderr)
    print(f"torch {release}: {time.time() - start:.0f} s", file=sys.stderr, flush=True)


def measure_here(release: str) -> None:
    """Measure the torch of this process and store the result (whole file or none)."""
    import torch

    from validation.fuzz import fuzz

    if torch.__version__.partition("+")[0] != release:
        raise SystemExit(f"this is torch {torch.__version__}, not {release}")
    result: dict[str, Any] = {"schema": SCHEMA, "torch": torch.__version__, "onednn": _onednn(), "python": platform.python_version()}
    with ThreadPoolExecutor(1) as beside:  # cases are measured in processes of their own
        cases = beside.submit(measured_apart, sample())
        result |= {"machine": machine_name(), "checked": {name: _laws(path) for name, path in LAWS.items()}}
        result["checked"]["random networks"] = {"run": NETWORKS, "equal": NETWORKS - fuzz(NETWORKS)}
        result["cases"] = [_small(r) for r in cases.result()]
    path = _file(version_of(release))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(_written(result), encoding="utf-8")
    temporary.replace(path)


def _file(version: Version | None) -> Path:
    assert version is not None
    return STORED / machine_name() / f"torch-{version[0]}.{version[1]}.json"


def _onednn() -> str:
    import torch

    text: str = torch.__config__.show()
    return text.partition("MKL-DNN v")[2].partition(" ")[0]


def _laws(path: str) -> dict[str, int]:
    """How many laws that ask torch ran, and how many held."""
    import pytest

    class Counter:
        run = equal = 0

        def pytest_runtest_logreport(self, report: Any) -> None:
            """Counts calls; a test that was left out is none."""
            if report.when == "call" and not report.skipped:
                self.run += 1
                self.equal += report.passed

    counter = Counter()
    given = ["-q", "-p", "no:cacheprovider", "-o", "addopts=", "--no-header", "--tb=line", "-k", "of_torch", "-m", "not slow"]
    pytest.main([*given, str(ROOT / path)], plugins=[counter])
    return {"run": counter.run, "equal": counter.equal}


def _small(result: dict[str, Any]) -> dict[str, Any]:
    case = BY_NAME[result["name"]]
    return {"name": case.name, "digest": case.digest, **{k: result[k] for k in ("cpu", "resident_bytes", "peak_bytes", "events")}}


def _written(result: dict[str, Any]) -> str:
    """JSON with a line for each case."""
    head = json.dumps({k: v for k, v in result.items() if k != "cases"}, indent=1)[:-2]
    return f'{head},\n "cases": [\n  ' + ",\n  ".join(json.dumps(c) for c in result["cases"]) + "\n ]\n}\n"


# comparing ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Checked:
    """One line of a version's column: how many were run, and how many are equal."""

    release: str
    what: str
    run: int
    equal: int
    worst: str = ""


def stored_versions() -> list[dict[str, Any]]:
    """Every stored result, by machine and version."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in STORED.glob("*/torch-*.json")]
    return sorted((r for r in found if r["schema"] == SCHEMA), key=lambda r: (r["machine"], version_of(r["torch"]) or (0, 0)))


def compare_versions(results: Iterable[dict[str, Any]] | None = None) -> list[Checked]:
    """What each version's stored result says, its cases predicted anew as that version; a case that has changed since is left out."""
    results = stored_versions() if results is None else list(results)
    cases: dict[str, dict[str, tuple[Case, dict[str, Any]]]] = {}
    for result in results:
        for measured in result["cases"]:
            case = BY_NAME.get(measured["name"])
            if case is not None and case.digest == measured["digest"]:
                cases.setdefault(case.name, {})[result["torch"]] = (case, measured)
    differing: dict[str, list[str]] = {r["torch"]: [] for r in results}
    for members in cases.values():  # a network is recorded once for all versions
        for release, (case, measured) in members.items():
            predicted = predict(case, Cpu(**measured["cpu"]), release)
            if (predicted.peak_bytes, len(predicted.events)) != (measured["peak_bytes"], measured["events"]):
                differing[release].append(case.name)
    return [line for result in results for line in _column(result, cases, differing[result["torch"]])]


def _column(result: dict[str, Any], cases: dict[str, Any], differing: list[str]) -> Iterator[Checked]:
    release = result["torch"].partition("+")[0]
    for what, count in result["checked"].items():
        yield Checked(release, what, count["run"], count["equal"])
    run = sum(result["torch"] in members for members in cases.values())
    yield Checked(release, "cases", run, run - len(differing), ", ".join(differing[:3]))


def versions_table(found: Sequence[Checked]) -> str:
    """The README's table of versions: a column a release; equal of run."""
    releases = list(dict.fromkeys(c.release for c in found))
    rows = list(dict.fromkeys(c.what for c in found))
    at = {(c.what, c.release): f"{c.equal} of {c.run}" for c in found}
    lines = [f"| torch | {' | '.join(releases)} |", f"|---|{'---:|' * len(releases)}"]
    lines += [f"| {what} | {' | '.join(at.get((what, r), '') for r in releases)} |" for what in rows]
    return "\n".join(lines)


def version_failures(found: Sequence[Checked]) -> list[str]:
    """Claims that do not hold, one line each: every version that is said to be measured so has a result, and in it everything is equal."""
    have = {version_of(c.release) for c in found}
    lacking = [m.release for v, m in MODELLED.items() if m.how == HOW and v not in have]
    missing = [f"torch {release} has no stored result; run: python -m validation versions {release}" for release in lacking]
    unequal = [f"torch {c.release}: {c.what}: {c.run - c.equal} of {c.run} differ {c.worst}".rstrip() for c in found if c.equal != c.run]
    return missing + unequal
