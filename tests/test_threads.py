"""Threads: what one computes is no other's business, and the host program's garbage collection and BLAS are its own."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import memest
from memest.ops.reading import forward
from memest.sizes.dims import symbol
from memest.sizes.interpreter import Lock

ROOT = Path(__file__).parents[1]
THREADS = 8
Question = Callable[[], Any]


@pytest.fixture(autouse=True)
def _eager_switching() -> Iterator[None]:
    """Threads take turns ten times as often as usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    yield
    sys.setswitchinterval(before)


def net(width: int) -> memest.Graph:
    """A new graph: downsampling, a branch, an odd number of channels."""
    b = memest.Builder(f"net{width}")
    x = b.input("input", ("N", 3, "H", "W"))
    x = b.layer("conv2d", x, out_channels=width, kernel_size=3, padding=1, bias=False)
    x = b.layer("relu", b.layer("batch_norm", x))
    y = b.layer("conv2d", x, out_channels=2 * width, kernel_size=3, stride=2, padding=1)
    z = b.layer("conv2d", b.layer("max_pool2d", x, kernel_size=2, ceil_mode=True), out_channels=2 * width, kernel_size=1)
    x = b.layer("relu", b.layer("add", y, z), inplace=True)
    x = b.layer("flatten", b.layer("adaptive_avg_pool2d", x, output_size=1), start_dim=1)
    return b.build(b.layer("linear", x, out_features=10))


def at_sizes(graph: memest.Graph, optimizer: str) -> list[int]:
    shapes = [(n, 3, h, w) for n, h, w in ((2, 32, 32), (3, 32, 48), (5, 33, 31), (8, 96, 64), (1, 17, 128))]
    return [memest.estimate(graph, input_shape=s, optimizer=optimizer).peak_bytes for s in shapes]


def swept(graph: memest.Graph) -> list[int]:
    peaks: list[int] = memest.sweep(graph, batch=range(1, 7), H=[31, 32, 64], W=[32, 96], optimizer=["sgd", "adam"])["peak_bytes"].tolist()
    return peaks


def fitted(graph: memest.Graph) -> tuple[Any, ...]:
    found = memest.fit(graph, "48MiB", "batch", H=64, W=96, optimizer="adam")
    return found.value, found.peak_bytes, found.next_bytes


def formula(graph: memest.Graph) -> tuple[Any, ...]:
    found = memest.estimate(graph, input_shape=(4, 3, 64, 64)).formula()
    return str(found.peak), found.conditions, found(N=6), found(N=6, H=33, W=50)


def planned(graph: memest.Graph) -> tuple[Any, ...]:
    plan = memest.plan_checkpoints(graph, input_shape=(8, 3, 64, 64))
    return plan.peak_bytes, plan.segments


def advised(graph: memest.Graph) -> tuple[Any, ...]:
    found = memest.advise(graph, "8MiB", input_shape=(16, 3, 64, 64))
    return found.fits, [(o.changes, o.peak_bytes) for o in found.combined]


def imported(width: int) -> tuple[Any, ...]:
    torch = pytest.importorskip("torch")
    from torch import nn

    class Net(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
            self.head = nn.Linear(width, 10)

        def forward(self, x: Any) -> Any:
            x = self.first(x)
            if x.shape[-1] > 20:
                x = nn.functional.max_pool2d(x, 2)
            return self.head(torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1))

    graph = memest.from_torch(Net(), (2, 3, 32, 32))
    return [(layer.name, layer.op) for layer in graph.layers], list(map(str, graph.guards)), at_sizes(graph, "adam")[:1]


def questions(seed: int, heavy: bool = True) -> list[Question]:
    """Of every kind, about new graphs: same seed, same questions."""
    found: list[Question] = []
    for k in range(2):
        width = 5 + 3 * k + seed
        shared = net(width)
        found += [partial(at_sizes, shared, o) for o in ("sgd", "adam")]  # several threads ask one new graph
        found += [partial(swept, shared), partial(fitted, shared), partial(imported, width)]
        if heavy or k == 0:
            found += [partial(formula, shared), partial(planned, net(width)), partial(advised, net(width))]
    random.Random(seed).shuffle(found)
    return found


def rounds(seeds: range, heavy: bool) -> None:
    for seed in seeds:
        memest.clear_caches()
        with ThreadPoolExecutor(THREADS) as pool:
            together = [job.result() for job in [pool.submit(q) for q in questions(seed, heavy)]]
        afterwards = [q() for q in questions(seed, heavy)]
        memest.clear_caches()
        alone = [q() for q in questions(seed, heavy)]
        assert together == alone, f"round {seed}"
        assert afterwards == alone, f"round {seed}: what was remembered"


def test_eight_threads_answer_as_one() -> None:
    rounds(range(1), heavy=False)


@pytest.mark.slow
def test_eight_threads_answer_as_one_twenty_times() -> None:
    rounds(range(20), heavy=True)


def test_asyncio_threads_answer_as_one() -> None:
    async def together() -> list[Any]:
        return await asyncio.gather(*(asyncio.to_thread(swept, net(7 + k % 2)) for k in range(6)))

    memest.clear_caches()
    found = asyncio.run(together())
    memest.clear_caches()
    assert found == [swept(net(7 + k % 2)) for k in range(6)]


def test_equal_expressions_are_one_object_whoever_makes_them() -> None:
    def made(k: int) -> list[int]:
        return [id(symbol(f"s{k}_{i}")) for i in range(2000) if kept.append(symbol(f"s{k}_{i}")) is None]

    for k in range(5):
        kept: list[Any] = []
        with ThreadPoolExecutor(THREADS) as pool:
            first, *others = pool.map(made, [k] * THREADS)
        assert all(other == first for other in others)


def test_what_other_threads_run_is_not_recorded() -> None:
    """A host serves one network while it imports another."""
    torch = pytest.importorskip("torch")
    from torch import nn

    served = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    expected = served(torch.ones(1, 4))
    alone = imported(6)
    done = False

    def serve() -> int:
        count = 0
        while not done or count == 0:
            assert torch.equal(served(torch.ones(1, 4)), expected)
            count += 1
        return count

    with ThreadPoolExecutor(4) as pool:
        serving = [pool.submit(serve) for _ in range(2)]
        try:
            assert all(imported(6) == alone for _ in range(10))
        finally:
            done = True
        assert all(s.result() for s in serving)
    assert not torch.nn.modules.module._global_forward_hooks and not torch.overrides.has_torch_function.__module__.startswith("memest.")


def test_garbage_collection_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def touched(*_: Any) -> None:
        raise AssertionError("the host program's garbage collection is its own")

    for name in ("disable", "enable", "set_threshold", "freeze", "unfreeze", "collect"):
        monkeypatch.setattr(gc, name, touched)
    for question in (partial(swept, net(11)), partial(fitted, net(11)), partial(formula, net(11)), partial(planned, net(11))):
        question()


BLAS = """
import threading, time
import numpy
from threadpoolctl import threadpool_info, threadpool_limits
import memest

def limits(): return [(i["internal_api"], i["num_threads"]) for i in threadpool_info() if i["user_api"] == "blas"]

graph = memest.model("resnet50")
memest.sweep(graph, batch=2, H=[64], W=[64])
seen, done = set(), False
def watch():
    while not done:
        seen.update(limits())
        time.sleep(0.02)
watcher = threading.Thread(target=watch)
with threadpool_limits(2, "blas"):
    before = limits()
    watcher.start()
    for _ in range(3):
        memest.sweep(graph, batch=range(1, 33), H=range(64, 513, 32), W=range(64, 513, 32))
    done = True
    watcher.join()
    assert seen == set(before) and limits() == before, (seen, before)
    process, thread = time.process_time(), time.thread_time()
    memest.sweep(graph, batch=range(1, 33), H=range(64, 513, 32), W=range(64, 513, 32))
    others = (time.process_time() - process) - (time.thread_time() - thread)
    print(others / (time.thread_time() - thread))
"""


def test_blas_keeps_its_threads_and_none_of_them_wakes() -> None:
    """Products are too small for them: nothing is limited, and the processor's time is that of the calling thread."""
    pytest.importorskip("threadpoolctl")
    done = subprocess.run([sys.executable, "-c", BLAS], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 0.01


def test_a_forked_process_finds_every_lock_free() -> None:
    lock, holding, over = Lock(), [], False

    def hold() -> None:
        with lock:
            holding.append(True)
            while not over:
                pass

    with ThreadPoolExecutor(1) as pool:
        pool.submit(hold)
        while not holding:
            pass
        child = os.fork()
        if child == 0:
            taken = lock._lock.acquire(blocking=False)
            os._exit(0 if taken else 1)
        over = True
        assert os.waitpid(child, 0)[1] == 0


def test_caches_are_cleared() -> None:
    graph = net(9)
    first = at_sizes(graph, "adam")
    assert forward.cache_info().currsize and graph.memo.shelf("summaries", 1)
    memest.clear_caches()
    assert not forward.cache_info().currsize and not graph.memo.shelf("summaries", 1)
    assert at_sizes(graph, "adam") == first


MANY = """
import itertools
import memest

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

def net(k):
    b = memest.Builder(f"net{k}")
    x = b.input("input", ("N", 3, "H", "W"))
    x = b.layer("conv2d", x, out_channels=k % 97 + 1, kernel_size=3 if k % 2 else 5, padding=1)
    x = b.layer("flatten", b.layer("adaptive_avg_pool2d", x, output_size=1), start_dim=1)
    return b.build(b.layer("linear", x, out_features=k // 97 + 10))

memest.estimate(net(0), input_shape=(2, 3, 32, 32)).peak_bytes
OPTIMIZERS = ("sgd", "adam", "rmsprop", "adamw:foreach=true", "adagrad")
before = resident()
for k in range(10_000):
    graph = net(k)
    for shape, optimizer in itertools.product(((2, 3, 32, 32), (k % 7 + 1, 3, 64, 48)), OPTIMIZERS):
        memest.estimate(graph, input_shape=shape, optimizer=optimizer).peak_bytes
print(resident() - before)
"""


@pytest.mark.slow
def test_a_hundred_thousand_estimates_leave_less_than_150_mib() -> None:
    done = subprocess.run([sys.executable, "-c", MANY], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 150 * 2**20
