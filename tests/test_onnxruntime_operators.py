"""What single operators ask for on ONNX Runtime, as measured on 1.32.0: a negation before and behind each, sizes of requests in order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import memest
from memest.errors import UnsupportedError
from memest.network.tensor import Shape
from memest.runtimes.rewriting import no_rule

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


def _turned(b: memest.Builder, x: Any) -> Any:
    return b.layer("where", b.layer("logical_not", b.layer("gt", x, None, value=0)), x, None, other_value=1)


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
        (_turned, IMAGE, [WHOLE, 26_880, WHOLE, WHOLE, WHOLE, WHOLE]),  # chosen the other way round: nothing is negated
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


def _asked_by_file(tmp_path: Path, op: str, more: list[Any] | None = None, opset: int = 20, **given: Any) -> list[int]:
    """Of an ONNX file with that operator between two negations."""
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    names = [tensor.name for tensor in more or ()]
    nodes = [("Neg", ["x"], "a", {}), (op, ["a", *names], "made", given), ("Neg", ["made"], "y", {})]
    graph = helper.make_graph(
        [helper.make_node(op, reads, [made], **attributes) for op, reads, made, attributes in nodes],
        "one",
        [helper.make_tensor_value_info("x", kind, IMAGE)],
        [helper.make_tensor_value_info("y", kind, None)],
        more,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10), tmp_path / "one.onnx")
    read = memest.from_onnx(tmp_path / "one.onnx")
    found = memest.estimate(read, mode="infer", runtime="onnxruntime", machine=memest.Cpu(isa="avx512", threads=1))
    return [e.delta for e in found.events if e.delta > 0]


def test_nodes_of_a_file_that_several_of_torchs_calls_stand_for_run_as_one(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    assert _asked_by_file(tmp_path, "HardSigmoid") == [WHOLE, WHOLE]  # in place; its slope is a fifth
    channel, image = (onnx.helper.make_tensor("axes", onnx.TensorProto.INT64, [len(a)], a) for a in ([1], [2, 3]))
    assert _asked_by_file(tmp_path, "ReduceSumSquare", [channel], keepdims=1) == [WHOLE, 4480, 4480]
    assert _asked_by_file(tmp_path, "ReduceProd", [image], keepdims=0) == [WHOLE, 192, 192]


def test_the_operator_of_group_norms_is_refused(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    ones = [onnx.helper.make_tensor(name, onnx.TensorProto.FLOAT, [24], [1.0] * 24) for name in "gb"]
    with pytest.raises(UnsupportedError, match=r"GroupNormalization.*not modelled on onnxruntime"):
        _asked_by_file(tmp_path, "GroupNormalization", ones, 21, num_groups=3)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_what_torch_runs_on_its_fast_path_is_refused_with_what_to_do(runtime: str) -> None:
    assert "set_fastpath_enabled(False)" in str(no_rule("_transformer_encoder_layer_fwd", runtime))
    assert "memest ops cumsum" in str(no_rule("cumsum", runtime))
