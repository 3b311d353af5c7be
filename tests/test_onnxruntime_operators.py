"""What single operators ask for on ONNX Runtime, as measured on 1.32.0: a negation before and behind each, sizes of requests in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import memest
from memest.errors import UnsupportedError
from memest.network.tensor import Shape

Build = Callable[[memest.Builder, Any], Any]
IMAGE: Shape = (2, 24, 20, 28)
WHOLE = 107_520  # bytes of it
SERIES: Shape = (40, 2, 48)


def _made(build: Build, shape: Shape) -> list[int]:
    b = memest.Builder("one")
    graph = b.build(b.layer("neg", build(b, b.layer("neg", b.input("x", shape)))))
    found = memest.estimate(graph, input_shape=shape, mode="infer", runtime="onnxruntime", machine=memest.Cpu(isa="avx512", threads=1))
    return [e.delta for e in found.events if e.delta > 0]


def _layer(op: str, **given: Any) -> Build:
    return lambda b, x: b.layer(op, x, **given)


def _chosen(b: memest.Builder, x: Any) -> Any:
    return b.layer("where", b.layer("isnan", x), None, x, input_value=0)


def _attention(b: memest.Builder, x: Any) -> Any:
    """q k as exporters write it: heads and batch together, turned around, apart again."""
    turned = b.layer("permute", b.layer("view", x, shape=(8, 24, 16)), dims=(0, 2, 1))
    return b.layer("matmul", x, b.layer("view", turned, shape=(2, 4, 16, 24)))


@pytest.mark.parametrize(
    ("build", "shape", "asked"),
    [
        (_layer("tan"), IMAGE, [WHOLE, WHOLE, WHOLE]),
        (_layer("triu"), IMAGE, [WHOLE, WHOLE]),  # in place
        (_layer("vector_norm", dim=(1,), keepdim=True), IMAGE, [WHOLE, 4480, 4480]),
        (_layer("logsumexp", dim=(1,), keepdim=True), IMAGE, [WHOLE, 4480, 4480]),
        (_layer("prod", dim=1), IMAGE, [WHOLE, 4480, 4480]),
        (_layer("cumsum", dim=1), IMAGE, [WHOLE, WHOLE, WHOLE]),
        (_chosen, IMAGE, [WHOLE, 26_880, WHOLE, WHOLE, WHOLE, WHOLE]),  # what is taken of either, and both merged
        (_attention, (2, 4, 24, 16), [12_288, 18_432, 18_432]),  # nothing is turned around
    ],
)
def test_requests_are_those_of_the_engine(build: Build, shape: Shape, asked: list[int]) -> None:
    assert _made(build, shape) == asked


def _lstm(b: memest.Builder, x: Any, directions: int) -> Any:
    hx, cx = (b.layer("new_zeros", x, size=(directions, 2, 32)) for _ in range(2))
    params = [b.parameter(f"p{d}{n}", s) for d in range(directions) for n, s in enumerate(((128, 48), (128, 32), (128,), (128,)))]
    return b.layer("lstm", x, hx, cx, params, has_biases=True, num_layers=1, bidirectional=directions == 2)[0]


def test_an_lstm_asks_for_states_gates_and_biases_and_backwards_for_both_ways_round() -> None:
    """uni_directional_lstm.cc: of hidden numbers, of a batch of them, of all gates of all steps."""
    one, batch, steps, features = 32 * 4, 2 * 32 * 4, 40 * 2 * 32 * 4, 40 * 2 * 48 * 4
    side = [one, one, batch, batch, batch, 4 * steps, one, one, one, one]
    assert _made(lambda b, x: _lstm(b, x, 1), SERIES) == [features, steps, batch, batch, *side, 64, steps, steps]
    both = [features, 2 * steps, 2 * batch, 2 * batch, *side, *side, features, steps, 64, 64, 2 * steps, 2 * steps]
    assert _made(lambda b, x: _lstm(b, x, 2), SERIES) == both


def test_what_has_no_rule_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedError, match="norm of order 3"):
        _made(_layer("vector_norm", ord=3, dim=(1,)), IMAGE)
