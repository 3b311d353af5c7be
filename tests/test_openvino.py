"""OpenVINO's CPU plugin: nodes, pool and process as measured (the small networks here with openvino 2026.4, on AVX-512 with bfloat16)."""

from __future__ import annotations

from typing import Any

import pytest

import memest
from memest.errors import MemestError, UnsupportedError, UsageError
from memest.memory.planners.standard_sort import standard_sort
from memest.network.graph import Graph
from memest.runtimes.openvino.lowering import lowered
from memest.runtimes.openvino.rows import told
from memest.runtimes.table import runtime_named
from memest.sources.builder import Builder
from validation.engines.openvino.comparing import compare, failures

CPU = memest.Cpu(threads=1)
SORTED = (
    [3, 3, 1, 4, 2, 1, 2, 1, 3, 4, 2, 4, 1, 2, 1, 2, 4, 3, 2, 4, 2, 1, 2, 4, 2, 2, 1, 1, 2, 2, 2, 2, 3, 3, 2, 2, 2, 2, 4, 3],
    [
        38,
        3,
        23,
        19,
        9,
        16,
        11,
        1,
        39,
        33,
        32,
        17,
        0,
        8,
        13,
        37,
        36,
        35,
        34,
        4,
        31,
        30,
        29,
        28,
        25,
        24,
        6,
        22,
        20,
        18,
        10,
        15,
        26,
        27,
        21,
        5,
        7,
        14,
        2,
        12,
    ],
)
"""Sizes, and the order in which GNU's std::sort leaves them, the largest first."""


def _estimate(graph: Graph, shape: tuple[int, ...], dtype: str = "float32", **settings: Any) -> memest.Estimate:
    return memest.estimate(graph, input_shape=shape, **{"mode": "infer", "runtime": "openvino", "machine": CPU, "dtype": dtype, **settings})


def _kinds(graph: Graph, shape: tuple[int, ...], precision: str = "float32") -> list[str]:
    target = runtime_named("null").target(None, None, None)
    nodes = lowered(graph, {graph.inputs[0].name: shape}, {}, target, precision, remember=True)
    return [layer.op for layer in nodes.layers]


@pytest.mark.parametrize(
    ("name", "shape", "f32", "bf16"),
    [
        ("resnet18", (1, 3, 224, 224), 4_014_080, 2_007_040),
        ("resnet18", (4, 3, 256, 192), 15_728_640, 7_864_320),
        ("unet3d", (1, 1, 64, 64, 64), 67_108_864, 33_554_432),
        ("vnet", (1, 1, 64, 64, 64), 100_663_296, 50_331_648),
    ],
)
def test_the_pool_is_that_which_was_measured(name: str, shape: tuple[int, ...], f32: int, bf16: int) -> None:
    graph = memest.model(name)
    assert _estimate(graph, shape).reserved.bytes == f32
    assert _estimate(graph, shape, "bfloat16").reserved.bytes == bf16


def _linear(b: Builder, x: Any, width: int) -> Any:
    return b.layer("linear", x, out_features=width)


def test_what_a_product_takes_in_needs_no_place() -> None:
    b = Builder("e1")
    x = b.input("x", (1, 56, 56, 96))
    y = b.layer("gelu", _linear(b, _linear(b, x, 96), 384))
    graph = b.build(_linear(b, _linear(b, y, 96), 96))
    assert _kinds(graph, (1, 56, 56, 96)) == ["FullyConnected"] * 4
    assert _estimate(graph, (1, 56, 56, 96)).reserved.bytes == 6_021_120


def test_a_norm_over_the_last_of_four_dims_is_written_out() -> None:
    b = Builder("e3")
    x = b.layer("layer_norm", _linear(b, b.input("x", (1, 56, 56, 96)), 96), normalized_shape=[96])
    graph = b.build(_linear(b, x, 96))
    assert _kinds(graph, (1, 56, 56, 96)) == ["FullyConnected", "Reduce", "Subgraph", "RMS", "Subgraph", "FullyConnected"]
    assert _estimate(graph, (1, 56, 56, 96)).reserved.bytes == 2_420_992


def test_a_norm_over_the_last_of_three_dims_is_one_node() -> None:
    b = Builder("norm")
    x = b.layer("layer_norm", _linear(b, b.input("x", (1, 49, 96)), 96), normalized_shape=[96])
    assert _kinds(b.build(_linear(b, x, 96)), (1, 49, 96)) == ["FullyConnected", "MVN", "Subgraph", "FullyConnected"]


def _convnext(blocks: int) -> Graph:
    b = Builder("blocks")
    x = b.input("x", (1, 96, 56, 56))
    depthwise = {"out_channels": 96, "kernel_size": 7, "padding": 3, "groups": 96}
    x = b.layer("conv2d", x, **depthwise)
    for n in range(blocks):
        y = b.layer("permute", b.layer("conv2d", x, **depthwise), dims=[0, 2, 3, 1])
        y = b.layer("layer_norm", y, normalized_shape=[96])
        y = b.layer("permute", _linear(b, b.layer("gelu", _linear(b, y, 384)), 96), dims=[0, 3, 1, 2])
        x = b.layer("add", b.layer("mul", y, b.parameter(f"scale{n}", (96, 1, 1))), x)
    return b.build(b.layer("conv2d", x, **depthwise))


@pytest.mark.parametrize(("blocks", "pool"), [(1, 7_225_344), (2, 8_429_568), (3, 8_429_568)])
def test_equal_blocks_are_placed_in_the_order_in_which_the_sort_leaves_them(blocks: int, pool: int) -> None:
    """The largest live set is 7,225,344 bytes in all three."""
    assert _estimate(_convnext(blocks), (1, 96, 56, 56)).reserved.bytes == pool


def test_the_sort_is_that_of_the_standard_library() -> None:
    sizes = SORTED[0]
    found = standard_sort(list(enumerate(sizes)), lambda x, y: x[1] > y[1])
    assert [n for n, _ in found] == SORTED[1]


def test_a_sum_is_taken_in_where_its_other_operand_is_read_by_nobody_later() -> None:
    def network(late: bool) -> Graph:
        b = Builder("sum")
        x = b.layer("conv2d", b.input("x", (1, 3, 32, 32)), out_channels=8, kernel_size=3, padding=1)
        y = b.layer("conv2d", x, out_channels=8, kernel_size=3, padding=1)
        y = b.layer("add", b.layer("conv2d", y, out_channels=8, kernel_size=3, padding=1), x)
        z = b.layer("conv2d", y, out_channels=8, kernel_size=3, padding=1)
        return b.build(b.layer("cat", [z, x], dim=1) if late else z)

    assert "Eltwise" not in _kinds(network(late=False), (1, 3, 32, 32))
    assert "Eltwise" in _kinds(network(late=True), (1, 3, 32, 32))


def _between(op: str, **attributes: Any) -> Graph:
    b = Builder(op)
    x = b.layer("conv2d", b.input("x", (2, 3, 16, 24)), out_channels=8, kernel_size=3, padding=1)
    return b.build(b.layer("conv2d", b.layer(op, x, **attributes), out_channels=4, kernel_size=3, padding=1))


@pytest.mark.parametrize(
    ("op", "attributes", "f32", "bf16"),
    [
        ("group_norm", {"num_groups": 2}, 49_152, 24_576),
        ("hardsigmoid", {}, 49_152, 49_152),
        ("instance_norm", {}, 36_864, 18_432),
        ("mish", {}, 36_864, 18_432),
        ("pad", {"pad": [1, 1, 2, 2]}, 41_216, 20_608),
        ("pixel_unshuffle", {"downscale_factor": 2}, 49_152, 24_576),
        ("softmax", {"dim": 1}, 49_152, 24_576),
        ("transpose", {"dim0": 2, "dim1": 3}, 49_152, 24_576),
    ],
)
def test_operators_take_what_was_measured_between_two_convolutions(op: str, attributes: dict[str, Any], f32: int, bf16: int) -> None:
    graph = _between(op, **attributes)
    assert _estimate(graph, (2, 3, 16, 24)).reserved.bytes == f32
    assert _estimate(graph, (2, 3, 16, 24), "bfloat16").reserved.bytes == bf16


def test_what_softmax_gives_is_written_over_what_it_reads() -> None:
    b = Builder("softmax")
    x = b.layer("conv2d", b.input("x", (1, 3, 32, 32)), out_channels=8, kernel_size=3, padding=1)
    x = b.layer("softmax", x, dim=1)
    graph = b.build(b.layer("conv2d", x, out_channels=8, kernel_size=3, padding=1))
    target = runtime_named("null").target(None, None, None)
    nodes = lowered(graph, {"x": (1, 3, 32, 32)}, {}, target, "float32", remember=True)
    assert [told(layer, "over") for layer in nodes.layers if layer.op == "Softmax"] == [0]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"ov_streams": 2}, "ov_hint latency is one stream"),
        ({"ov_mmap": False}, "ov_mmap is about weights outside the .onnx file"),
        ({"dtype": "float16"}, "computes in float32 or bfloat16"),
        ({"ov_streams": 3, "ov_hint": "throughput"}, "there are 1 threads"),
        ({"ov_weights": "xml"}, "is not one of onnx, external, ir"),
        ({"ort_arena": False}, "settings of onnxruntime and openvino at once"),
        ({"machine": memest.Cpu(bf16=False), "dtype": "bfloat16"}, "does not multiply it"),
    ],
)
def test_settings_that_contradict_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        _estimate(memest.model("resnet18"), (1, 3, 64, 64), **settings)


def test_streams_have_a_pool_each() -> None:
    graph, machine = memest.model("resnet18"), memest.Cpu(threads=2)
    one = _estimate(graph, (1, 3, 64, 64), machine=machine)
    two = _estimate(graph, (1, 3, 64, 64), machine=machine, ov_hint="throughput")
    assert one.reserved.bytes is not None
    assert two.reserved.bytes == 2 * one.reserved.bytes


def test_the_default_precision_is_the_processors() -> None:
    graph = memest.model("resnet18")
    given = {"input_shape": (1, 3, 64, 64), "mode": "infer", "runtime": "openvino"}
    half, full = (memest.estimate(graph, machine=memest.Cpu(bf16=bf16), **given) for bf16 in (True, False))
    assert full.reserved.bytes == 2 * (half.reserved.bytes or 0)


def test_an_operator_without_a_rule_is_named() -> None:
    b = Builder("unknown")
    graph = b.build(b.layer("cumsum", b.input("x", ("N", 8)), dim=1))
    with pytest.raises(UnsupportedError, match=r"no rule for 'cumsum' on openvino; memest ops cumsum says where there is one"):
        _estimate(graph, (2, 8))


def test_the_listing_tells_what_there_is_a_rule_for() -> None:
    rows = runtime_named("openvino").rows
    assert [rows.how(op) for op in ("relu", "conv2d", "dropout", "cumsum")] == ["plain", "plain", "plain", None]


def test_levers_that_change_how_torch_runs_are_refused() -> None:
    with pytest.raises(MemestError, match="plays one plain call"):
        _estimate(memest.model("resnet18"), (1, 3, 64, 64), levers=["autocast"])


def test_formulas_hold_the_bytes_asked_for() -> None:
    graph = memest.model("resnet18")
    formula = _estimate(graph, (1, 3, 64, 64)).formula()
    assert formula.evaluate(N=2, H=96, W=64) == _estimate(graph, (2, 3, 96, 64)).requested_bytes


@pytest.mark.parametrize("network", ["squeezenet1_1"])
def test_stored_results_are_met(network: str) -> None:
    found = list(compare(network))
    assert found
    assert all(c.equal and not c.first for c in found)


@pytest.mark.slow
def test_all_stored_results_are_met() -> None:
    assert not failures(list(compare()))


@pytest.mark.parametrize(("read", "f32", "bf16"), [("grid_sample", 524_288, 393_216), ("index_select", 524_288, 262_144)])
def test_reading_at_places_takes_what_was_measured_between_two_convolutions(read: str, f32: int, bf16: int) -> None:
    b = Builder("read")
    x = b.layer("conv2d", b.input("x", (1, 3, 64, 64)), out_channels=16, kernel_size=3, padding=1)
    if read == "grid_sample":
        found = b.layer(read, x, b.input("grid", (1, 32, 48, 2)), align_corners=False)
    else:
        found = b.layer(read, x, b.parameter("places", (30,), dtype="int64", buffer=True), dim=2)
    graph = b.build(b.layer("conv2d", found, out_channels=8, kernel_size=3, padding=1))
    asked: dict[str, Any] = {"mode": "infer", "runtime": "openvino", "machine": CPU}
    assert memest.estimate(graph, dtype="float32", **asked).reserved.bytes == f32
    assert memest.estimate(graph, dtype="bfloat16", **asked).reserved.bytes == bf16


@pytest.mark.parametrize(
    ("equation", "shapes", "pool"),
    [
        ("blxd,blyd->blxy", ((2, 4, 128, 64), (2, 4, 96, 64)), 458_752),
        ("bhxy,bhyd->bhxd", ((2, 4, 128, 96), (2, 4, 96, 64)), 589_824),
        ("ij,jk->ik", ((256, 128), (128, 512)), 393_216),
    ],
)
def test_an_einsum_is_a_product_of_matrices_as_they_lie(equation: str, shapes: Any, pool: int) -> None:
    b = Builder("pair")
    factors = [b.layer("relu", b.input(name, shape)) for name, shape in zip("ab", shapes, strict=True)]
    graph = b.build(b.layer("abs", b.layer("einsum", factors, equation=equation)))
    found = memest.estimate(graph, mode="infer", runtime="openvino", machine=CPU, dtype="float32")
    assert found.reserved.bytes == pool
    other = Builder("other")
    graph = other.build(other.layer("einsum", [other.input("a", (2, 16, 64, 32)), other.input("b", (64, 64))], equation="ncvl,vw->ncwl"))
    with pytest.raises(UnsupportedError, match="einsum 'ncvl,vw->ncwl': no rule for it on openvino"):
        memest.estimate(graph, mode="infer", runtime="openvino", machine=CPU)
