"""Sweeps, fits and advice spread over executors are those of one process, whoever is lost on the way."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import memest
from memest.errors import MemestError, UsageError
from memest.planning import product, spread
from memest.planning.spread import in_order

AXES: dict[str, Any] = {"batch": range(2, 62), "H": [32, 64, 96, 128], "W": [32, 64], "optimizer": ["sgd", "adam"]}
TINY = "inputs: {x: [N, 3, H, W]}\nlayers: [conv2d: {out_channels: 2, kernel_size: 1}]"
FEW: dict[str, Any] = {**AXES, "batch": range(2, 22)}
BY_REPLAY: dict[str, Any] = {"batch": range(1, 8), "H": [32, 64], "W": 64, "machine": "t4", "mode": "infer"}


def _sent(thing: Any) -> Any:
    """As it arrives elsewhere."""
    return pickle.loads(pickle.dumps(thing))


class Through(Executor):
    """Does the work when it is asked for, through pickles; ``lost`` says which of the tasks are, and it takes no more than ``most``."""

    def __init__(self, lost: Callable[[int], bool] = lambda n: False, most: int = 10**9) -> None:
        self.lost, self.most, self.taken = lost, most, 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.taken += 1
        if self.taken > self.most:
            raise BrokenExecutor
        future: Future[Any] = Future()
        try:
            work, given = _sent((fn, args))
            if self.lost(self.taken):
                raise BrokenExecutor
            future.set_result(_sent(work(*given)))
        except Exception as e:
            future.set_exception(_sent(e))
        return future


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts so small that there are many."""
    monkeypatch.setattr(product, "LEAST_SHARE", 64)
    monkeypatch.setattr(product, "PLAYED_SHARE", 3)


@pytest.fixture(scope="module")
def graph() -> memest.Graph:
    return memest.loads(
        """
        name: small
        inputs: {x: [N, 3, H, W]}
        layers:
          - conv2d: {out_channels: 8, kernel_size: 3, stride: 8, bias: false}
          - batch_norm: {}
          - relu: {inplace: true}
          - conv2d: {out_channels: 4, kernel_size: 3, stride: 2}
          - batch_norm: {}
        """
    )


@pytest.mark.parametrize(
    "executor",
    [
        Through(lambda n: n % 3 == 0),
        Through(most=2),
        *(pytest.param(one, marks=pytest.mark.slow) for one in (Through(), Through(most=0))),
    ],
)
@pytest.mark.parametrize("what", [FEW, BY_REPLAY, {**FEW, "batch": range(1, 14), "invalid": "skip"}])
def test_a_sweep_is_that_of_one_process(graph: memest.Graph, executor: Through, what: dict[str, Any]) -> None:
    executor.taken = 0
    assert memest.sweep(graph, executor=executor, **what) == memest.sweep(graph, **what)
    assert executor.taken > 3


def test_bytes_past_64_bits_stay_exact(graph: memest.Graph) -> None:
    what: dict[str, Any] = {"batch": [1, 10**9], "H": [64, 10**6], "W": [64, 10**6, 10**9]}
    product_of_them = memest.sweep(graph, executor=Through(), **what)
    assert product_of_them["peak_bytes"].dtype == object and product_of_them == memest.sweep(graph, **what)


@pytest.mark.parametrize("suffix", [".csv", *(pytest.param(s, marks=pytest.mark.slow) for s in (".parquet", ".arrow"))])
def test_a_file_is_written_in_order(graph: memest.Graph, tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("pyarrow")
    here, there = tmp_path / f"here{suffix}", tmp_path / f"there{suffix}"
    memest.sweeps(graph, **FEW).write(here)
    memest.sweeps(graph, executor=Through(lambda n: n == 2), **FEW).write(there)
    if suffix == ".parquet":
        from pyarrow import parquet

        assert parquet.read_table(there).equals(parquet.read_table(here))
        assert parquet.read_table(there).num_rows == 20 * 4 * 2 * 2
    elif suffix == ".csv":
        assert there.read_bytes() == here.read_bytes()


def test_parts_are_no_larger_than_asked_for(graph: memest.Graph) -> None:
    parts = list(memest.sweeps(graph, at_once=50, executor=Through(), **FEW))
    assert max(part.points for part in parts) <= 50
    whole = memest.sweep(graph, **FEW)
    assert np.array_equal(np.concatenate([p["peak_bytes"] for p in parts]), whole["peak_bytes"])


def test_the_first_error_in_order_is_raised(graph: memest.Graph) -> None:
    what = {**FEW, "batch": [2, 1], "H": [64, 32], "W": [32]}
    with pytest.raises(UsageError) as here:
        memest.sweep(graph, **what)
    with pytest.raises(UsageError) as there:
        memest.sweep(graph, executor=Through(), **what)
    assert str(here.value) == str(there.value)


def test_fit_and_advise_over_many_networks(graph: memest.Graph) -> None:
    graphs = {"small": graph, "tiny": memest.loads(TINY), "large": memest.model("vgg11")}
    how: dict[str, Any] = {"H": 64, "W": 64, "optimizer": "adam"}
    alone = {name: memest.fit(one, "2GiB", **how) for name, one in graphs.items()}
    assert not alone["large"].fits and alone["small"].fits
    assert memest.fit(graphs, "2GiB", **how) == memest.fit(graphs, "2GiB", executor=Through(lambda n: n == 2), **how) == alone
    assert memest.fit(list(graphs.values()), "2GiB", executor=Through(), **how) == tuple(alone.values())
    assert memest.fit(graph, "2GiB", executor=Through(), **how) == alone["small"]
    pair = [graph, graphs["tiny"]]
    found = memest.advise(pair, "1MiB", input_shape=(9, 3, 64, 64), mode="infer", executor=Through())
    for advice, one in zip(found, pair, strict=True):
        expected = memest.advise(one, "1MiB", input_shape=(9, 3, 64, 64), mode="infer")
        assert (repr(advice), advice.keywords, advice.refused) == (repr(expected), expected.keywords, expected.refused)


def test_an_error_says_of_which_network_it_is() -> None:
    graphs = [memest.model("resnet18"), memest.model("unet3d")]
    for executor in (None, Through()):
        with pytest.raises(MemestError, match=r"^unet3d: (the graph has no size|give D=)"):
            memest.fit(graphs, "1GiB", H=64, W=64, executor=executor)
    assert memest.fit([], "1GiB") == () and memest.advise({}, "1GiB") == {}


def test_the_machine_at_hand_is_the_one_that_asks(graph: memest.Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    class Elsewhere(Through):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            with monkeypatch.context() as m:
                m.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
                m.setenv("OMP_NUM_THREADS", "7")
                return super().submit(fn, *args)

    how: dict[str, Any] = {"runtime": "openvino", "mode": "infer", "batch": range(1, 5), "H": 64, "W": 64}
    assert memest.sweep(graph, executor=Elsewhere(), **how) == memest.sweep(graph, **how)
    assert memest.fit(graph, "1MiB", executor=Elsewhere(), H=64, W=64) == memest.fit(graph, "1MiB", H=64, W=64)
    assert memest.Cpu.detect().threads != 7


def test_what_is_no_executor_is_refused(graph: memest.Graph) -> None:
    for ask in (
        lambda: memest.sweep(graph, executor=4, **FEW),  # type: ignore[arg-type]
        lambda: memest.sweeps(graph, executor="processes", **FEW),  # type: ignore[arg-type]
        lambda: memest.fit(graph, "1GiB", executor=object(), H=64, W=64),  # type: ignore[call-overload]
    ):
        with pytest.raises(UsageError, match=r"executor is one of concurrent\.futures"):
            ask()


def test_no_more_than_some_are_handed_out_ahead() -> None:
    begun: list[int] = []

    def tasks() -> Iterator[tuple[int]]:
        for n in range(1000):
            begun.append(n)
            yield (n,)

    results = in_order(Through(), abs, tasks())
    assert next(results) == 0 and len(begun) == spread.AHEAD


def test_threads_share_what_is_known(graph: memest.Graph) -> None:
    with ThreadPoolExecutor(3) as pool:
        assert memest.sweep(graph, executor=pool, **FEW) == memest.sweep(graph, **FEW)


def _ended(process: int) -> None:
    os.kill(process, signal.SIGKILL)


@pytest.mark.slow
def test_processes_and_one_of_them_lost(graph: memest.Graph, tmp_path: Path) -> None:
    expected = memest.sweep(graph, **AXES)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert memest.sweep(graph, executor=pool, **AXES) == expected
        parts = iter(memest.sweeps(graph, executor=pool, **AXES))
        found = [next(parts)]
        _ended(next(iter(pool._processes)))
        found += parts
    assert np.array_equal(np.concatenate([p["peak_bytes"] for p in found]), expected["peak_bytes"])


@pytest.mark.slow
def test_dask_and_one_of_its_workers_lost(graph: memest.Graph, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    pytest.importorskip("pyarrow")
    from pyarrow import parquet

    axes = {**AXES, "machine": memest.Cpu(threads=2)}  # Dask sets OMP_NUM_THREADS for its workers, in this process, too
    expected = memest.sweep(graph, **axes)
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, cluster.get_client() as client:
        executor = client.get_executor()
        assert memest.sweep(graph, executor=executor, **axes) == expected
        assert memest.fit([graph], "2GiB", H=64, W=64, executor=executor) == memest.fit([graph], "2GiB", H=64, W=64)
        what = {**axes, "H": range(32, 200, 8)}
        path = tmp_path / "peaks.parquet"
        blocks = iter(memest.sweeps(graph, executor=executor, **what))
        first = next(blocks)
        workers = list(client.run(os.getpid).values())
        _ended(workers[0])
        rest = [first, *blocks]
        assert np.array_equal(np.concatenate([p["peak_bytes"] for p in rest]), memest.sweep(graph, **what)["peak_bytes"])
        memest.sweeps(graph, executor=executor, **axes).write(path)
        assert parquet.read_table(path)["peak_bytes"].to_pylist() == expected["peak_bytes"].tolist()


@pytest.mark.parametrize("kind", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_an_executor_that_takes_nothing_is_refused(graph: memest.Graph, kind: type[Executor]) -> None:
    shut = kind()
    shut.shutdown()
    calls: list[Callable[[Any], Any]] = [
        lambda executor: memest.sweep(graph, batch=1, spatial=64, executor=executor),
        lambda executor: memest.sweeps(graph, batch=1, spatial=64, executor=executor),
        lambda executor: memest.fit(graph, "1GiB", H=64, W=64, executor=executor),
        lambda executor: memest.advise(graph, "1GiB", input_shape=(1, 3, 64, 64), executor=executor),
    ]
    for call in calls:
        with pytest.raises(UsageError, match=f"is the class {kind.__name__}: write {kind.__name__}"):
            call(kind)
        with pytest.raises(UsageError, match="is shut down"):
            call(shut)
