"""Convolutions and transposed convolutions of one to three dimensions.

All of them are one differentiable operator, ``aten::convolution``; the names users know add padding by name and single images.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import prod
from typing import Any

from memest.errors import ShapeError
from memest.network.tensor import Shape
from memest.ops.aten.copies import contiguous, suggests_channels_last
from memest.ops.composite import Caller, Composite
from memest.ops.facts import EVERYWHERE_CALLS, EVERYWHERE_FACTS, LOWER, Attributes, Facts, Windows, slid, spread, window_by
from memest.ops.families.convolution import bound
from memest.ops.families.convolution import by_aten as convolution_slow
from memest.ops.families.convolution import by_onednn as convolution_onednn
from memest.ops.families.convolution.geometry import (
    Geometry,
    PerDim,
    check_shapes,
    geometry,
    runs_channels_last,
    select_backend,
    squeezed,
    unsqueezed,
)
from memest.ops.operator import Attribute, Example, Operator, expand, flag, integer, per_dim, text
from memest.ops.searched import sealed
from memest.ops.tape import Tape, Tensor
from memest.sizes.dims import recording


def _convolution(
    k: Tape,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: PerDim,
    padding: PerDim,
    dilation: PerDim,
    transposed: bool,
    output_padding: PerDim,
    groups: int,
) -> Tensor:
    g = geometry(weight, stride, padding, dilation, output_padding, groups, transposed)
    check_shapes(input, weight, bias, g)
    k.save(input=input, weight=weight)
    _record_what_decides(k, input, weight, g)
    out: Tensor = sealed(k, "convolution", _run, bound.forward, (input, weight, bias), g=g)
    return out


def _record_what_decides(k: Tape, input: Tensor, weight: Tensor, g: Geometry) -> None:
    """Record the sizes on which the results' memory format and storage depend: those that choose between oneDNN and ATen's own kernels."""
    with recording(None):
        last = suggests_channels_last(input) or suggests_channels_last(weight)
    if last and input.ndim > 3:
        select_backend(input, weight, g, k.target.cpu)
    convolution_slow.keeps_more(input, weight, g, k.target.cpu)


def _run(k: Tape, input: Tensor, weight: Tensor, bias: Tensor | None, *, g: Geometry) -> Tensor:
    g = Geometry(*g)
    flat = input.ndim == 3
    if flat:
        input, weight, g = unsqueezed(k, contiguous(k, input)), unsqueezed(k, weight), g.as_2d()
    backend = select_backend(input, weight, g, k.target.cpu)
    last = runs_channels_last(backend, input, weight)
    input, weight = contiguous(k, input, last), contiguous(k, weight, last)
    if backend == "onednn":
        out = convolution_onednn.forward(k, input, weight, bias, g, last)
    else:
        out = convolution_slow.forward(k, backend, input, weight, bias, g, last)
    return squeezed(k, out) if flat else out


def _convolution_backward(
    k: Tape,
    saved: dict[str, Any],
    grads: list[Tensor | None],
    *,
    stride: PerDim,
    padding: PerDim,
    dilation: PerDim,
    transposed: bool,
    output_padding: PerDim,
    groups: int,
) -> list[Tensor | None]:
    (grad,) = grads
    assert grad is not None
    input, weight = saved["input"], saved["weight"]
    mask = (k.needs[0], k.needs[1], len(k.needs) > 2 and k.needs[2])
    g = geometry(weight, stride, padding, dilation, output_padding, groups, transposed)
    _record_what_decides(k, input, weight, g)
    result: list[Tensor | None] = sealed(k, "convolution_backward", _run_backward, bound.backward, (grad, input, weight), g=g, mask=mask)
    return result[: len(k.needs)]


def _run_backward(
    k: Tape, grad: Tensor, input: Tensor, weight: Tensor, *, g: Geometry, mask: tuple[bool, bool, bool]
) -> list[Tensor | None]:
    g = Geometry(*g)
    flat = input.ndim == 3
    if flat:
        input, weight, g = unsqueezed(k, contiguous(k, input)), unsqueezed(k, weight), g.as_2d()
        grad = unsqueezed(k, grad)
    backend = select_backend(input, weight, g, k.target.cpu)
    last = runs_channels_last(backend, input, weight)
    if backend != "slow3d":
        input, weight = contiguous(k, input, last), contiguous(k, weight, last)
    if backend == "onednn":
        result = convolution_onednn.backward(k, grad, input, weight, g, last, mask)
    else:
        result = convolution_slow.backward(k, backend, grad, input, weight, g, last, mask)
    return [squeezed(k, t) if flat and t is not None and t.ndim == 4 else t for t in result]


def _conv(dims: int) -> Any:
    def compose(
        c: Caller, input: Any, weight: Any, bias: Any, *, stride: PerDim, padding: PerDim | str, dilation: PerDim, groups: int
    ) -> Any:
        input, single = _batched(c, input, dims)
        if isinstance(padding, str):
            input, padding = _padding_by_name(c, padding, input, weight, expand(stride, dims), expand(dilation, dims))
        out = c.call("convolution", input, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups)
        return c.call("squeeze", out, dim=0) if single else out

    return compose


def _conv_transpose(dims: int) -> Any:
    def compose(
        c: Caller,
        input: Any,
        weight: Any,
        bias: Any,
        *,
        stride: PerDim,
        padding: PerDim,
        output_padding: PerDim,
        groups: int,
        dilation: PerDim,
    ) -> Any:
        input, single = _batched(c, input, dims)
        out = c.call(
            "convolution",
            input,
            weight,
            bias,
            stride=stride,
            padding=padding,
            dilation=dilation,
            transposed=True,
            output_padding=output_padding,
            groups=groups,
        )
        return c.call("squeeze", out, dim=0) if single else out

    return compose


def _batched(c: Caller, input: Any, dims: int) -> tuple[Any, bool]:
    """``batchify``: a single image becomes a batch of one."""
    ndim = len(input.shape)
    if ndim not in (dims + 1, dims + 2):
        raise ShapeError(f"expected an input of {dims + 1} (one image) or {dims + 2} dims, got {ndim}")
    single = ndim == dims + 1
    return (c.call("unsqueeze", input, dim=0) if single else input), single


def _padding_by_name(c: Caller, name: str, input: Any, weight: Any, stride: Any, dilation: Any) -> tuple[Any, PerDim]:
    """``_convolution_mode``: 'valid' is no padding; 'same' pads both sides alike and what is odd on the far side, on a copy."""
    if name == "valid":
        return input, 0
    if name != "same":
        raise ShapeError(f"padding must be 'same', 'valid' or numbers, got {name!r}")
    if any(s != 1 for s in stride):
        raise ShapeError("padding='same' needs a stride of 1")
    total = [d * (m - 1) for m, d in zip(weight.shape[2:], dilation, strict=True)]
    if any(t % 2 for t in total):
        pad = tuple(p for t in reversed(total) for p in (0, t % 2))
        input = c.call("pad", input, pad=pad)
    return input, tuple(t // 2 for t in total)


def _padding(value: Any) -> Any:
    return text(value) if isinstance(value, str) else per_dim(value)


STRIDE = Attribute(name="stride", default=1, check=per_dim)
PADDING = Attribute(name="padding", default=0, check=per_dim)
DILATION = Attribute(name="dilation", default=1, check=per_dim)
OUTPUT_PADDING = Attribute(name="output_padding", default=0, check=per_dim)
GROUPS = Attribute(name="groups", default=1, check=integer)
NAMED_PADDING = Attribute(name="padding", default=0, check=_padding)
ROLES = ("input", "weight", "bias?")
BF16 = ("bfloat16",) * 3
SOURCE = "derivatives.yaml: convolution; aten/src/ATen/native/Convolution.cpp"


def _sees(given: Attributes, shapes: Sequence[Shape | None], dims: int, transposed: bool) -> Windows:
    """From the weight's spatial sizes; ``same`` pads half the width, ``valid`` nothing."""
    weight = shapes[1]
    if weight is None or len(weight) != dims + 2:
        return (None,) * dims
    widths = [dilation * (kernel - 1) for dilation, kernel in zip(expand(given["dilation"], dims), weight[2:], strict=True)]
    named = {"same": tuple(width // 2 for width in widths), "valid": (0,) * dims}
    padding = named[given["padding"]] if isinstance(given["padding"], str) else expand(given["padding"], dims)
    return [(spread if transposed else slid)(*of) for of in zip(expand(given["stride"], dims), padding, widths, strict=True)]


def _flops(inputs: Sequence[Shape], made: Sequence[Shape], given: Attributes) -> int:
    """Every weight meets every position of the output (of the input, when transposed) of every sample."""
    positions = inputs[0] if given["transposed"] else made[0]
    return 2 * positions[0] * prod(positions[2:]) * prod(inputs[1])


def _calls(transposed: bool) -> Facts:
    return EVERYWHERE_CALLS.but(autocast=LOWER, reach=window_by(partial(_sees, transposed=transposed)))


CONVOLVED, TRANSPOSED = _calls(False), _calls(True)
ROWS = (
    Operator(
        name="convolution",
        torch="torch.convolution",
        oracle="convolution",
        roles=ROLES,
        attributes=(STRIDE, PADDING, DILATION, Attribute(name="transposed", default=False, check=flag), OUTPUT_PADDING, GROUPS),
        forward=_convolution,
        saves=("input", "weight"),
        backward=_convolution_backward,
        examples=(
            Example(shapes=((4, 16, 14, 14), (32, 16, 3, 3), (32,)), attributes={"padding": 1}),
            Example(shapes=((4, 16, 14, 14), (32, 16, 3, 3), (32,)), attributes={"padding": 1}, layout="channels_last"),
            Example(shapes=((1, 4, 9, 9), (6, 4, 3, 3), (6,)), attributes={"padding": 1}),
            Example(shapes=((1, 4, 9, 9), (6, 4, 3, 3), (6,)), attributes={"padding": 1}, layout="channels_last"),
            Example(shapes=((1, 4, 9, 9), (6, 4, 3, 3), (6,)), attributes={"padding": 2, "dilation": 2}),
            Example(shapes=((2, 4, 9, 9), (6, 2, 3, 3), (6,)), attributes={"groups": 2}, dtypes=("float64",) * 3),
            Example(shapes=((1, 4, 5, 6, 7), (6, 4, 3, 3, 3), (6,)), attributes={"padding": 1}),
            Example(shapes=((1, 4, 5, 6, 7), (4, 6, 2, 2, 2), (6,)), attributes={"transposed": True, "stride": 2}),
            Example(shapes=((4, 16, 14, 14), (32, 16, 3, 3), (32,)), attributes={"padding": 1}, dtypes=BF16),
            Example(shapes=((4, 16, 14, 14), (32, 16, 3, 3), (32,)), attributes={"padding": 1}, dtypes=BF16, layout="channels_last"),
            Example(shapes=((1, 4, 9, 9), (6, 4, 3, 3), (6,)), attributes={"padding": 1, "stride": 2}, dtypes=BF16),
            Example(shapes=((2, 32, 9, 9), (16, 32, 1, 1), None), attributes={}, dtypes=BF16),
            Example(shapes=((2, 24, 9, 9), (24, 1, 3, 3), (24,)), attributes={"padding": 1, "groups": 24}, dtypes=BF16),
            Example(shapes=((2, 6, 9, 9), (9, 2, 3, 3), (9,)), attributes={"groups": 3}, dtypes=BF16),
            Example(shapes=((1, 4, 5, 6, 7), (6, 4, 3, 3, 3), (6,)), attributes={"padding": 1}, dtypes=BF16),
            Example(shapes=((1, 4, 5, 6, 7), (4, 6, 2, 2, 2), (6,)), attributes={"transposed": True, "stride": 2}, dtypes=BF16),
            Example(shapes=((2, 4, 9, 9), (4, 6, 3, 3), (6,)), attributes={"transposed": True, "stride": 2}, dtypes=BF16),
            Example(shapes=((1, 4, 9, 9), (6, 4, 3, 3), None), attributes={"padding": 1}, dtypes=("float16",) * 3),
            Example(shapes=((1, 4, 5, 6, 7), (6, 4, 3, 3, 3), (6,)), attributes={"padding": 1}, dtypes=("float64",) * 3),
        ),
        facts=EVERYWHERE_FACTS.but(
            reach=window_by(lambda given, shapes, dims: _sees(given, shapes, dims, given["transposed"])), flops=_flops
        ),
        source=f"{SOURCE}, mkldnn/Conv.cpp, ConvolutionMM2d.cpp, ConvolutionMM3d.cpp, NaiveDilatedConvolution.cpp",
    ),
)

COMPOSITE_ROWS = (
    Composite(
        name="conv1d",
        torch="torch.nn.functional.conv1d",
        roles=ROLES,
        attributes=(STRIDE, NAMED_PADDING, DILATION, GROUPS),
        compose=_conv(1),
        examples=(
            Example(shapes=((4, 16, 30), (32, 16, 3), (32,)), attributes={"padding": 1}),
            Example(shapes=((4, 16, 30), (16, 1, 3), None), attributes={"groups": 16, "dilation": 2, "padding": "same"}),
            Example(shapes=((16, 30), (32, 16, 3), (32,)), attributes={"padding": 1}),
        ),
        facts=CONVOLVED,
        source=SOURCE,
    ),
    Composite(
        name="conv2d",
        torch="torch.nn.functional.conv2d",
        roles=ROLES,
        attributes=(STRIDE, NAMED_PADDING, DILATION, GROUPS),
        compose=_conv(2),
        examples=(
            Example(shapes=((2, 3, 33, 33), (16, 3, 7, 7), None), attributes={"stride": 2, "padding": 3}),
            Example(shapes=((2, 32, 8, 8), (32, 1, 3, 3), None), attributes={"groups": 32, "padding": 1}),
            Example(shapes=((2, 16, 8, 8), (16, 16, 4, 4), (16,)), attributes={"padding": "same"}),
            Example(shapes=((16, 8, 8), (16, 16, 1, 1), (16,)), attributes={"padding": "valid"}),
        ),
        facts=CONVOLVED,
        source=SOURCE,
    ),
    Composite(
        name="conv3d",
        torch="torch.nn.functional.conv3d",
        roles=ROLES,
        attributes=(STRIDE, NAMED_PADDING, DILATION, GROUPS),
        compose=_conv(3),
        examples=(
            Example(shapes=((2, 16, 8, 8, 8), (32, 16, 3, 3, 3), (32,)), attributes={"padding": 1}),
            Example(shapes=((1, 4, 8, 8, 8), (8, 4, 3, 3, 3), (8,)), attributes={"padding": (0, 1, 1), "dilation": (1, 1, 2)}),
        ),
        facts=CONVOLVED,
        source=SOURCE,
    ),
    Composite(
        name="conv_transpose1d",
        torch="torch.nn.functional.conv_transpose1d",
        roles=ROLES,
        attributes=(STRIDE, PADDING, OUTPUT_PADDING, GROUPS, DILATION),
        compose=_conv_transpose(1),
        examples=(Example(shapes=((2, 16, 9), (16, 8, 4), (8,)), attributes={"stride": 2, "padding": 1}),),
        facts=TRANSPOSED,
        source=SOURCE,
    ),
    Composite(
        name="conv_transpose2d",
        torch="torch.nn.functional.conv_transpose2d",
        roles=ROLES,
        attributes=(STRIDE, PADDING, OUTPUT_PADDING, GROUPS, DILATION),
        compose=_conv_transpose(2),
        examples=(
            Example(shapes=((2, 16, 9, 9), (16, 8, 2, 2), (8,)), attributes={"stride": 2}),
            Example(shapes=((2, 16, 9, 9), (16, 8, 2, 2), (8,)), attributes={"stride": 2}, layout="channels_last"),
            Example(shapes=((2, 16, 9, 9), (16, 4, 3, 3), (8,)), attributes={"stride": 2, "padding": 1, "output_padding": 1, "groups": 2}),
            Example(shapes=((1, 4, 9, 9), (4, 6, 2, 2), (6,)), attributes={"stride": 2}),
        ),
        facts=TRANSPOSED,
        source=f"{SOURCE}, NaiveConvolutionTranspose2d.cpp",
    ),
    Composite(
        name="conv_transpose3d",
        torch="torch.nn.functional.conv_transpose3d",
        roles=ROLES,
        attributes=(STRIDE, PADDING, OUTPUT_PADDING, GROUPS, DILATION),
        compose=_conv_transpose(3),
        examples=(Example(shapes=((2, 16, 4, 4, 4), (16, 8, 2, 2, 2), (8,)), attributes={"stride": 2}),),
        facts=TRANSPOSED,
        source=f"{SOURCE}, NaiveConvolutionTranspose3d.cpp",
    ),
)
