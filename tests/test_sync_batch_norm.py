"""nn.SyncBatchNorm: what is recorded of it, where it is plain batch norm, what its kernels ask for on a card."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import memest
from memest.errors import UnsupportedError
from memest.estimate.estimate import Estimate
from memest.network.graph import Graph, Layer

CARD = "h100-80gb"
SHAPE = (4, 3, 16, 16)
SYNCED = "ddp:sync_batch_norm=true"


def step(graph: Graph, *levers: str, **settings: Any) -> Estimate:
    return memest.estimate(graph, input_shape=SHAPE, levers=levers, **{"runtime": "torch-cuda", "machine": CARD, **settings})


@pytest.fixture(scope="module")
def plain() -> Graph:
    b = memest.Builder("normed")
    conv = b.layer("conv2d", b.input("x", ("N", 3, "H", "W")), name="conv", out_channels=64, kernel_size=3, padding=1)
    return b.build(b.layer("mean", b.layer("batch_norm", conv, name="norm"), dim=(2, 3)))


def test_its_kernels_ask_for_what_the_stand_in_recorded(plain: Graph) -> None:
    """Two ranks, (4, 64, 16, 16) in float32: local statistics, the count, what this rank tells, what it is told; the mask; where it is
    true, once for counts, means and deviations (two numbers each of which is sorted out); the statistics of all; counts as int32; the
    result. Backward: two sums, two gradients, the sums together, the gradient of the input."""
    found = [e.delta for e in step(plain, SYNCED).events if e.layer == "norm"]
    where = [4, 1, -1, 16, 1023, -1023, -4]
    forward = [256, 256, 4, 516, 1032, -516, 2, *where, 8, -16, *where, 512, -16, *where, 512, -16, 256, 256, -256, -256, 8, 262_144]
    assert found[: len(forward)] == forward
    assert found[len(forward) : len(forward) + 6] == [-4, -512, -512, -2, -8, -1032]
    backward = found[len(forward) + 6 :]
    assert [n for n in backward if n > 0][-6:] == [256, 256, 256, 256, 512, 262_144]


@pytest.mark.parametrize("mode", ["train", "infer"])
def test_in_one_process_and_in_evaluation_it_is_batch_norm(plain: Graph, mode: str) -> None:
    synced = plain.with_(layers=tuple(of_all_ranks(layer) for layer in plain.layers))
    assert [e.delta for e in step(synced, mode=mode).events] == [e.delta for e in step(plain, mode=mode).events]


def of_all_ranks(layer: Layer) -> Layer:
    return replace(layer, attributes=(*layer.attributes, ("ranks", None))) if layer.op == "batch_norm" else layer


def test_more_ranks_tell_more(plain: Graph) -> None:
    told = [
        max(e.delta for e in step(plain, f"{SYNCED},world={n}").events if e.layer == "norm" and e.op == "batch_norm") for n in (2, 2000)
    ]
    assert told == [262_144, 2000 * 129 * 4]


def test_on_a_cpu_several_ranks_are_refused_as_torch_refuses_them(plain: Graph) -> None:
    cpu = memest.Cpu(isa="avx2", threads=1)
    with pytest.raises(UnsupportedError, match="trains on a GPU alone"):
        step(plain, SYNCED, runtime="torch-cpu", machine=cpu)


def test_a_graph_file_keeps_whose_statistics_are_taken(tmp_path: Path, plain: Graph) -> None:
    synced = plain.with_(layers=tuple(of_all_ranks(layer) for layer in plain.layers))
    memest.save(synced, tmp_path / "net.yaml")
    again = memest.load(tmp_path / "net.yaml")
    assert [dict(layer.attributes) for layer in again.layers if layer.op == "batch_norm"] == [{"ranks": None}]


def test_a_module_is_recorded_as_what_it_is() -> None:
    torch = pytest.importorskip("torch")
    nn = torch.nn
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.SyncBatchNorm(8), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8))
    module.append(nn.SyncBatchNorm(8, affine=False, track_running_stats=False))
    graph = memest.from_torch(module, (2, 3, 16, 16))
    norms = {layer.name: dict(layer.attributes) for layer in graph.layers if layer.op == "batch_norm"}
    assert norms == {"1": {"ranks": None}, "3": {}, "4": {"ranks": None}}


def test_stored_calls_are_played_event_by_event() -> None:
    pytest.importorskip("torch")
    from validation.cuda.compare import compare

    found = compare("sync_batch_norm")
    assert len({c.case for c in found}) >= 20
    assert [str(c) for c in found if not c.equal and c.group == "operators"] == []


def test_stored_steps_of_ranks_are_played_event_by_event() -> None:
    """A static graph's reducer, shards with a scaler, an optimizer's shards: to the byte in what is allocated and reserved."""
    pytest.importorskip("torchvision")
    from validation.cuda.compare import compare

    for name in ("accumulate:steps=4 ddp", "autocast:dtype=float16 fsdp", "zero:stage=1,world=8"):
        found = compare(name)
        assert found and all(c.group == "parallel" for c in found)
        for c in found:
            assert c.equal and c.allocated is not None and c.reserved is not None, str(c)
            assert c.allocated[0] == c.allocated[1] and c.reserved[0] == c.reserved[1] and (c.sure or not c.asked), str(c)
