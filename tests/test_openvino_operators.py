"""What single operators take of OpenVINO's pool, as measured on 2026.4: a negation before and behind each, float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import memest
from memest.network.tensor import Shape

Build = Callable[[memest.Builder, Any], Any]
IMAGE: Shape = (2, 24, 20, 28)
VOLUME: Shape = (2, 12, 8, 10, 12)
CPU = memest.Cpu(isa="avx512", threads=1)


def _pool(graph: memest.Graph, shape: Shape) -> int | None:
    return memest.estimate(graph, input_shape=shape, mode="infer", runtime="openvino", machine=CPU, dtype="float32").reserved.bytes


def _layer(op: str, **given: Any) -> Build:
    return lambda b, x: b.layer(op, x, **given)


def _masked(b: memest.Builder, x: Any) -> Any:
    return b.layer("masked_fill", x, b.layer("gt", x, None, value=0), value=-1)


@pytest.mark.parametrize(
    ("build", "shape", "pool"),
    [
        (_layer("interpolate", size=(33, 41), mode="bilinear", align_corners=True), IMAGE, 367_296),
        (_layer("interpolate", size=(33, 41), mode="nearest"), IMAGE, 367_296),
        (_layer("interpolate", size=(40, 56), mode="bicubic"), IMAGE, 537_600),
        (_layer("interpolate", size=(16, 20, 24), mode="trilinear"), VOLUME, 829_440),
        (_layer("log_softmax", dim=1), IMAGE, 327_040),
        (_masked, IMAGE, 0),  # all of it is one node
    ],
)
def test_the_pool_is_that_which_was_measured(build: Build, shape: Shape, pool: int) -> None:
    b = memest.Builder("one")
    graph = b.build(b.layer("neg", build(b, b.layer("neg", b.input("x", shape)))))
    assert _pool(graph, shape) == pool


def test_places_that_are_known_are_gathered_without_a_conversion() -> None:
    b = memest.Builder("one")
    index = b.parameter("places", (6,), dtype="int64", buffer=True)
    x = b.layer("view", b.layer("neg", b.input("x", (2, 3, 4))), shape=(6, 4))
    graph = b.build(b.layer("neg", b.layer("getitem", x, [index], index=("tensor",))))
    found = memest.estimate(graph, input_shape=(2, 3, 4), mode="infer", runtime="openvino", machine=CPU, dtype="float32")
    assert "Convert" not in {e.op for e in found.events}
