"""What OpenVINO makes of several calls together, as measured on 2026.4 with one thread, in float32; and what has no rule."""

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
CPU = memest.Cpu(isa="avx512", threads=1)


def _found(build: Build, *shapes: Shape) -> memest.Estimate:
    b = memest.Builder("one")
    graph = b.build(build(b, *(b.input(f"x{n}", s) for n, s in enumerate(shapes))))  # type: ignore[call-arg]
    given = {f"x{n}": s for n, s in enumerate(shapes)}
    return memest.estimate(graph, input_shape=given, mode="infer", runtime="openvino", machine=CPU, dtype="float32")


def _between(build: Build) -> Build:
    return lambda b, x: b.layer("neg", build(b, b.layer("neg", x)))


def _rms(b: memest.Builder, x: Any) -> Any:
    """A norm by the mean of squares, as exporters write it."""
    mean = b.layer("mean", b.layer("pow", x, None, exponent=2), dim=(2,), keepdim=True)
    factor = b.layer("reciprocal", b.layer("sqrt", b.layer("add", mean, None, value=1e-6)))
    return b.layer("mul", b.layer("mul", x, factor), b.parameter("weight", (48,)))


def _normalized(b: memest.Builder, x: Any) -> Any:
    norm = b.layer("clamp", b.layer("vector_norm", x, dim=(1,), keepdim=True), min=1e-12)
    return b.layer("div", x, b.layer("expand", norm, size=IMAGE))


def _chosen(b: memest.Builder, x: Any) -> Any:
    return b.layer("where", b.layer("isnan", x), None, x, input_value=0)


def _conv1d(b: memest.Builder, x: Any) -> Any:
    return b.layer("conv1d", x, b.parameter("weight", (24, 40, 5)), None, padding=(2,))


@pytest.mark.parametrize(
    ("build", "shape", "pool"),
    [
        (_rms, (2, 40, 48), 15_360),  # one node, and the negation before it
        (_normalized, IMAGE, WHOLE + 4480),  # nothing is broadcast first
        (_chosen, IMAGE, WHOLE + WHOLE // 4),  # a byte an element, not converted
        (lambda b, x: b.layer("softmax", x, dim=1), IMAGE, WHOLE),  # copied before it is written over
        (lambda b, x: b.layer("softmax", x, dim=3), IMAGE, WHOLE),
        (lambda b, x: b.layer("softsign", x), IMAGE, 0),
        (lambda b, x: b.layer("logsumexp", x, dim=(1,), keepdim=True), IMAGE, 2 * WHOLE + 4480),
        (_conv1d, (2, 40, 48), 24_576),  # both negations are in the weights
    ],
)
def test_the_pool_is_that_which_was_measured(build: Build, shape: Shape, pool: int) -> None:
    assert _found(_between(build), shape).reserved.bytes == pool


def test_a_mask_that_is_computed_is_computed_in_the_attention() -> None:
    def build(b: memest.Builder, *given: Any) -> Any:
        q, k, v, mask = (b.layer("neg", x) for x in given)
        return b.layer("neg", b.layer("scaled_dot_product_attention", q, k, v, mask))  # type: ignore[arg-type]

    shapes = [(2, 4, 20, 16), (2, 4, 24, 16), (2, 4, 24, 16), (2, 1, 20, 24)]
    assert _found(build, *shapes).reserved.bytes == 24_576


def _ops(build: Build, shape: Shape) -> list[str]:
    return [e.op for e in _found(build, shape).events if e.delta > 0]


def test_slices_that_share_out_a_dim_are_one_split() -> None:
    def build(b: memest.Builder, x: Any) -> Any:
        x = b.layer("conv2d", x, b.parameter("weight", (24, 24, 3, 3)), None, padding=(1, 1))
        parts = [b.layer("slice", x, dim=1, start=start, end=end) for start, end in ((0, 8), (8, 24))]
        return b.layer("cat", [b.layer("max_pool2d", p, kernel_size=(2, 2)) for p in parts], dim=1)

    found = _ops(build, IMAGE)
    assert found.count("Split") == 2  # outputs of one
    assert "StridedSlice" not in found


def test_what_is_joined_twice_is_joined_once_and_convolutions_alike_of_pieces_are_one() -> None:
    def twice(b: memest.Builder, x: Any) -> Any:
        y = b.layer("max_pool2d", x, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
        return b.layer("cat", [b.layer("cat", [x, y], dim=1), y], dim=1)

    def grouped(b: memest.Builder, x: Any) -> Any:
        parts = b.layer("split", x, split_size_or_sections=(12, 12), dim=1)
        return b.layer("cat", [b.layer("conv2d", p, b.parameter(f"w{n}", (8, 12, 1, 1)), None) for n, p in enumerate(parts)], dim=1)

    assert _ops(twice, IMAGE).count("Concatenation") == 1
    assert "Split" not in _ops(grouped, IMAGE)


def test_one_channel_lies_in_rows_as_it_does_with_channels_last() -> None:
    """MONAI's ViT: its image of 1 MiB is no part of the pool."""

    def build(b: memest.Builder, x: Any) -> Any:
        return b.layer("conv3d", x, b.parameter("weight", (8, 1, 16, 16, 16)), None, stride=(16, 16, 16))

    found = _found(build, (1, 1, 64, 64, 64)).reserved.bytes
    assert found is not None and found < 1 << 20


def _rotary(b: memest.Builder, x: Any) -> Any:
    first, second = b.layer("split", x, split_size_or_sections=(14, 14), dim=3)
    return b.layer("cat", [b.layer("neg", second), first], dim=3)


@pytest.mark.parametrize(
    ("build", "shape", "said"),
    [
        (_rotary, IMAGE, "a rotary embedding"),
        (lambda b, x: b.layer("max_pool2d", x, kernel_size=(3, 3), dilation=(2, 2)), IMAGE, "pooling with a dilation"),
        (lambda b, x: b.layer("conv_transpose1d", x, b.parameter("w", (40, 24, 4)), None), (2, 40, 48), "of one dim"),
        (lambda b, x: b.layer("conv_transpose2d", x, b.parameter("w", (24, 1, 4, 4)), None, groups=24), IMAGE, "in groups"),
        (lambda b, x: b.layer("conv_transpose2d", x, b.parameter("w", (24, 8, 3, 3)), None, dilation=(2, 2)), IMAGE, "with a dilation"),
    ],
)
def test_what_has_no_rule_is_refused_by_name(build: Build, shape: Shape, said: str) -> None:
    with pytest.raises(UnsupportedError, match=rf"{said}.*no rule for it on openvino"):
        _found(build, shape)


def test_a_network_that_computes_nothing_takes_no_pool() -> None:
    assert _found(lambda b, x: x, IMAGE).reserved.bytes == 0
    b = memest.Builder("one")
    x = b.input("x", IMAGE)
    graph = b.build(b.layer("new_zeros", x, size=(3, 4)))
    found = memest.estimate(graph, input_shape=IMAGE, mode="infer", runtime="openvino", machine=CPU, dtype="float32")
    assert found.reserved.bytes == 0
