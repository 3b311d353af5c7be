"""Data loaders measured: the parent, each worker and ``/dev/shm`` while a loop reads, in a file system of shared memory of their own.

Own pages are counted once however many processes share them after a fork: the sum of ``Pss_Anon`` over parent and workers. A worker's part
of them is what it shares with nobody (``Private_Dirty`` of its memory that is not shared).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from validation.cluster.ranks import REGIMES, RESULTS

LOADER = Path(__file__).with_name("loader.py")
EVERY = 0.06
ALONE = 'mount -t tmpfs tmpfs /dev/shm && exec "$@"'
ROLLED = ("Rss", "Pss_Anon", "Pss_File", "Pss_Shmem", "Private_Dirty", "Anonymous")


def _case(workers: int, prefetch: int = 2, kind: str = "tensor", batch: int = 16, size: int = 256, **more: Any) -> dict[str, Any]:
    return {
        "kind": kind, "shape": [4, size, size], "batch": batch, "batches": 12, "epochs": 2, "workers": workers, "prefetch": prefetch,
        "start": "fork", "persistent": False, "pin": False, "model": "", "malloc": "fixed", **more,
    }  # fmt: skip


RESNET: dict[str, Any] = {"model": "torchvision.models:resnet18", "shape": [3, 112, 112], "batch": 8, "batches": 6}
CASES = (
    _case(0),
    _case(0, size=512),
    _case(1),
    _case(2),
    _case(4),
    _case(2, 4),
    _case(3, 3),
    _case(2, size=512),
    _case(2, size=512, batch=4),
    *(_case(2, kind=kind) for kind in ("numpy", "list", "stored", "collected")),
    _case(0, kind="numpy"),
    _case(2, pin=True),
    _case(2, persistent=True),
    _case(2, start="spawn"),
    _case(4, start="spawn"),
    _case(2, malloc="glibc"),
    _case(0, malloc="glibc"),
    _case(2, size=512, malloc="glibc"),
    _case(0, **RESNET),
    _case(2, **RESNET),
    _case(4, **RESNET),
    _case(2, kind="collected", **RESNET),
    _case(2, persistent=True, **RESNET),
    _case(2, start="spawn", **RESNET),
    _case(2, malloc="glibc", **RESNET),
)


def key_of(case: dict[str, Any]) -> str:
    """The name of a measured loop."""
    model = case["model"].rpartition(":")[2] or "nothing"
    flags = "".join(f" {name}" for name in ("persistent", "pin") if case[name])
    size = "x".join(map(str, [case["batch"], *case["shape"]]))
    fed = f"workers={case['workers']} prefetch={case['prefetch']} {case['start']}{flags}"
    return f"{model} {case['kind']} {size} {fed} malloc={case['malloc']}"


def measure(case: dict[str, Any]) -> dict[str, Any]:
    """One loop; RuntimeError when it fails."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(LOADER.parents[2]), **REGIMES[case["malloc"]]}
    command = ["unshare", "-m", "sh", "-c", ALONE, "sh", sys.executable, "-W", "ignore", str(LOADER), json.dumps(case)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=environment, **pipes)
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    lines: list[str] = []
    most = {"shm": 0, "own": 0, "parent": 0}
    workers: dict[int, dict[str, int]] = {}
    try:
        while len(lines) < 2 and process.poll() is None:
            lines += [line for line in [process.stdout.readline()] if line.endswith("\n")]
            if lines:
                _look(process.pid, most, workers)
            time.sleep(EVERY)
        process.communicate("\n", timeout=600)
    finally:
        process.kill()
    if len(lines) < 2:
        raise RuntimeError(f"{key_of(case)} failed")
    return {"case": case, "ready": json.loads(lines[0]), "epochs": json.loads(lines[1]), "most": most, "workers": list(workers.values())}


def _look(parent: int, most: dict[str, int], workers: dict[int, dict[str, int]]) -> None:
    """What there is now, where it is more than before."""
    try:
        of_parent = _rolled(parent)
        children = [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="ascii").split()]
        used = os.statvfs(f"/proc/{parent}/root/dev/shm")
    except OSError:
        return
    found = {pid: rolled for pid in children if (rolled := _perhaps(pid))}
    most["shm"] = max(most["shm"], (used.f_blocks - used.f_bfree) * used.f_frsize)
    most["own"] = max(most["own"], of_parent["Pss_Anon"] + sum(f["Pss_Anon"] for f in found.values()))
    most["parent"] = max(most["parent"], of_parent["Anonymous"])
    for pid, rolled in found.items():
        known = workers.setdefault(pid, {})
        known.update({name: max(known.get(name, 0), value) for name, value in rolled.items()})


def _perhaps(pid: int) -> dict[str, int]:
    try:
        return _rolled(pid)
    except OSError:
        return {}


def _rolled(pid: int) -> dict[str, int]:
    """``smaps_rollup`` in bytes."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    found = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
    return {name: found[name] for name in ROLLED}


def measured(only: str = "") -> Iterator[tuple[str, Any]]:
    """The loops that have no result yet, each stored as it is done."""
    path = RESULTS / "loaders.json"
    known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    RESULTS.mkdir(parents=True, exist_ok=True)
    for case in CASES:
        key = key_of(case)
        if key not in known and only in key:
            known[key] = measure(case)
            path.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            yield key, known[key]
