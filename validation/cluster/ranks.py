"""Data-parallel runs measured: as many gloo processes on 127.0.0.1 as there are ranks, their resident memory and that of the node.

A node holds the ranks' own pages (anonymous and shared memory) and once the pages of the files that they map alike (libraries). The node's
peak is sampled every few milliseconds as the sum of the ranks' own pages, and the files are added once; beside it stands the sum of the
ranks' own peaks, which is what a limit must hold where nothing keeps the ranks in step.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

RANK = Path(__file__).with_name("rank.py")
RESULTS = Path(__file__).resolve().parents[1] / "results" / "cluster"
SECONDS, EVERY = 900.0, 0.02
FIXED = {"MALLOC_MMAP_THRESHOLD_": "131072"}
VISION, VIDEO, TWINS = "torchvision.models:{}", "torchvision.models.video:{}", "validation.networks:{}"


def _case(model: str, shape: Sequence[int], optimizer: str, loss: str = "cross_entropy", **arguments: Any) -> dict[str, Any]:
    return {
        "model": model, "arguments": arguments, "shape": list(shape), "optimizer": optimizer, "loss": loss, "threads": 1,
    }  # fmt: skip


CASES = (
    _case(VISION.format("resnet18"), (4, 3, 224, 224), "sgd"),
    _case(VISION.format("resnet50"), (4, 3, 224, 224), "adam"),
    _case(VISION.format("mobilenet_v2"), (8, 3, 224, 224), "adam"),
    _case(VISION.format("densenet121"), (4, 3, 224, 224), "sgd"),
    _case(VISION.format("vgg11"), (2, 3, 224, 224), "sgd"),
    _case(VISION.format("resnext50_32x4d"), (4, 3, 192, 192), "sgd"),
    _case(VIDEO.format("r3d_18"), (1, 3, 8, 112, 112), "adam"),
    _case(TWINS.format("UNet3d"), (1, 1, 48, 48, 48), "adam", "binary_cross_entropy"),
    _case(TWINS.format("UNet3d"), (1, 1, 96, 96, 64), "adam", "binary_cross_entropy"),
    _case(TWINS.format("UNet3d"), (1, 1, 112, 112, 112), "sgd", "binary_cross_entropy", base_filters=8),
)
REGIMES: dict[str, dict[str, str]] = {"fixed": FIXED, "glibc": {}}


def key_of(case: dict[str, Any], world: int, regime: str) -> str:
    """The name of a measured run."""
    name = case["model"].rpartition(":")[2] + "".join(f"-{k}={v}" for k, v in case["arguments"].items())
    return f"{name} {'x'.join(map(str, case['shape']))} {case['optimizer']} world={world} malloc={regime}"


def measure(case: dict[str, Any], world: int, regime: str) -> dict[str, Any]:
    """One run; RuntimeError when a rank fails."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    root = RANK.parents[2]
    common = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world), "PYTHONPATH": str(root)}
    common |= {"OMP_NUM_THREADS": str(case["threads"]), **REGIMES[regime]}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    command = [sys.executable, str(RANK), json.dumps(case)]
    ranks = [subprocess.Popen(command, env={**common, "RANK": str(n)}, **pipes) for n in range(world)]
    sampled = _Sampled([p.pid for p in ranks])
    try:
        with sampled:
            said = [p.stdout.readline() for p in ranks if p.stdout is not None]
        for p in ranks:
            p.communicate("\n", timeout=SECONDS)
    finally:
        for p in ranks:
            p.kill()
    if not all(said):
        raise RuntimeError(f"a rank of {key_of(case, world, regime)} failed")
    found = [json.loads(line) for line in said]
    files = [rank.pop("files") for rank in found]
    once = {path: max(f.get(path, 0) for f in files) for path in set().union(*files)}
    return {"case": case, "world": world, "malloc": regime, "ranks": found, "files_once": sum(once.values()), "own_peak": sampled.most}


class _Sampled:
    """The most that the processes own together (anonymous and shared memory), looked at every few milliseconds."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids, self.most = pids, 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._done.is_set():
            self.most = max(self.most, sum(_own(pid) for pid in self._pids))
            time.sleep(EVERY)


def _own(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith(("RssAnon:", "RssShmem:")))


def measured(worlds: Sequence[int] = (1, 2, 4), regimes: Sequence[str] = ("fixed", "glibc"), only: str = "") -> Iterator[tuple[str, Any]]:
    """The runs that have no result yet, each stored as it is done."""
    path = RESULTS / "ranks.json"
    known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    RESULTS.mkdir(parents=True, exist_ok=True)
    for regime in regimes:
        for case in CASES:
            for world in worlds:
                key = key_of(case, world, regime)
                if key in known or only not in key:
                    continue
                known[key] = measure(case, world, regime)
                path.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")
                yield key, known[key]
