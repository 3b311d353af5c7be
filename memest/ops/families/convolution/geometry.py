"""What a convolution is asked: its parameters per spatial dim, the shapes they give, and which of ATen's backends takes it.

One dimensional convolutions run as two dimensional ones of height 1, as in ATen.

Source: aten/src/ATen/native/Convolution.cpp (``ConvParams``, ``check_shape_forward``, ``_select_conv_backend``), ConvUtils.h.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from memest.errors import ShapeError, UnsupportedError
from memest.machines.cpu import Cpu
from memest.network.tensor import Shape
from memest.ops.aten.copies import suggests_channels_last
from memest.ops.operator import expand
from memest.ops.tape import Tape, Tensor

Backend = Literal["onednn", "slow2d", "slow3d", "slow_dilated", "slow_transpose2d", "slow_transpose3d"]
PerDim = int | tuple[int, ...]
MANY_IMAGES = 16
LARGE_KERNEL = 3
LARGE_INPUT = 20480


class Geometry(NamedTuple):
    """The parameters of a convolution, one entry a spatial dim."""

    stride: Shape
    padding: Shape
    dilation: Shape
    output_padding: Shape
    groups: int
    transposed: bool

    @property
    def is_strided(self) -> bool:
        """True when a stride is not 1."""
        return any(s != 1 for s in self.stride)

    @property
    def is_dilated(self) -> bool:
        """True when a dilation is not 1."""
        return any(d != 1 for d in self.dilation)

    def output_size(self, size: Shape, kernel: Shape) -> Shape:
        """Spatial dims of the result, where the input has ``size``."""
        if self.transposed:
            return tuple(
                (n - 1) * s - 2 * p + d * (m - 1) + extra + 1
                for n, m, s, p, d, extra in zip(size, kernel, self.stride, self.padding, self.dilation, self.output_padding, strict=True)
            )
        return tuple(
            (n + 2 * p - d * (m - 1) - 1) // s + 1
            for n, m, s, p, d in zip(size, kernel, self.stride, self.padding, self.dilation, strict=True)
        )

    def output_shape(self, input: Tensor, weight: Tensor) -> Shape:
        """Shape of the result."""
        channels = weight.shape[1] * self.groups if self.transposed else weight.shape[0]
        return (input.shape[0], channels, *self.output_size(input.shape[2:], weight.shape[2:]))

    def as_2d(self) -> Geometry:
        """The same for a one dimensional convolution seen as one of height 1."""
        return Geometry((1, *self.stride), (0, *self.padding), (1, *self.dilation), (0, *self.output_padding), self.groups, self.transposed)


def geometry(
    weight: Tensor, stride: PerDim, padding: PerDim, dilation: PerDim, output_padding: PerDim, groups: int, transposed: bool
) -> Geometry:
    """The parameters given, one value or one per dim, for ``weight``."""
    dims = weight.ndim - 2
    return Geometry(expand(stride, dims), expand(padding, dims), expand(dilation, dims), expand(output_padding, dims), groups, transposed)


def check_shapes(input: Tensor, weight: Tensor, bias: Tensor | None, g: Geometry) -> None:
    """Refuse what torch refuses."""
    if weight.ndim not in (3, 4, 5) or input.ndim != weight.ndim:
        raise ShapeError(f"a weight of {weight.ndim} dims needs an input of as many, got {input.ndim}")
    if min(g.padding) < 0 or min(g.output_padding) < 0 or min(*g.stride, *g.dilation, g.groups) < 1:
        raise ShapeError("padding must not be negative; stride, dilation and groups must be positive")
    if weight.shape[0] % g.groups:
        raise ShapeError(f"{weight.shape[0]} channels of the weight do not divide into {g.groups} groups")
    expected = weight.shape[0] if g.transposed else weight.shape[1] * g.groups
    if input.shape[1] != expected:
        raise ShapeError(f"the weight expects {expected} input channels, got {input.shape[1]}")
    out_channels = weight.shape[1] * g.groups if g.transposed else weight.shape[0]
    if bias is not None and bias.shape != (out_channels,):
        raise ShapeError(f"expected a bias of {out_channels} elements, got shape {list(bias.shape)}")
    if 0 in input.shape or 0 in weight.shape:
        raise ShapeError(f"input {list(input.shape)} or weight {list(weight.shape)} is empty")
    _check_sizes(input, weight, g)


def _check_sizes(input: Tensor, weight: Tensor, g: Geometry) -> None:
    size, kernel = input.shape[2:], weight.shape[2:]
    if g.transposed:
        if any(n < 1 for n in g.output_size(size, kernel)):
            raise ShapeError(f"input size {list(size)} gives an output size of {list(g.output_size(size, kernel))}")
        if any(o >= s and o >= d for o, s, d in zip(g.output_padding, g.stride, g.dilation, strict=True)):
            raise ShapeError("output_padding must be smaller than stride or dilation")
        return
    for n, m, p, d in zip(size, kernel, g.padding, g.dilation, strict=True):
        if n + 2 * p < d * (m - 1) + 1:
            raise ShapeError(f"padded input size {n + 2 * p} is smaller than the kernel's extent {d * (m - 1) + 1}")


def unsqueezed(k: Tape, t: Tensor) -> Tensor:
    """``t.unsqueeze(2)``: (batch, channels, length) as (batch, channels, 1, length)."""
    return k.alias(t, (*t.shape[:2], 1, t.shape[2]), (*t.strides[:2], t.shape[2] * t.strides[2], t.strides[2]))


def squeezed(k: Tape, t: Tensor) -> Tensor:
    """``t.squeeze(2)``, the way back."""
    return k.alias(t, (*t.shape[:2], t.shape[3]), (*t.strides[:2], t.strides[3]))


def select_backend(input: Tensor, weight: Tensor, g: Geometry, cpu: Cpu) -> Backend:
    """The backend that computes the convolution of 4 or 5 dims. NNPACK and XNNPACK never do: oneDNN takes all they would."""
    if uses_onednn(input, weight, g, cpu):
        return "onednn"
    volumetric = input.ndim == 5
    if g.transposed:
        return "slow_transpose3d" if volumetric else "slow_transpose2d"
    if g.is_dilated:
        return "slow_dilated"
    return "slow3d" if volumetric else "slow2d"


def uses_onednn(input: Tensor, weight: Tensor, g: Geometry, cpu: Cpu) -> bool:
    """``ConvParams::use_mkldnn``: in float32 all but small problems, in bfloat16 all where the processor has AVX-512."""
    if g.transposed and any(o >= s for o, s in zip(g.output_padding, g.stride, strict=True)):
        return False
    if input.dtype == "bfloat16":
        return cpu.isa == "avx512"
    if input.dtype == "float16" and cpu.isa == "avx512" and not cpu.bf16:
        raise UnsupportedError("convolutions in float16 are not modelled for this processor, which may have its own instructions for them")
    if input.dtype != "float32":
        return False
    batch, height, width = input.shape[0], weight.shape[-2], weight.shape[-1]
    pointwise = height == 1 and width == 1
    if pointwise and cpu.threads == 1 and batch < MANY_IMAGES and not g.is_strided and not g.is_dilated:
        return False
    if g.groups > 1 or batch > 1 or (width > LARGE_KERNEL and height > LARGE_KERNEL):
        return True
    return batch * input.shape[1] * input.shape[2] * input.shape[3] > LARGE_INPUT


def runs_channels_last(backend: Backend, input: Tensor, weight: Tensor) -> bool:
    """``determine_backend_memory_format``: one channels-last operand is enough, where the backend knows the format."""
    if backend in ("slow3d", "slow_transpose3d") or (backend == "slow_dilated" and input.ndim == 5):
        return False
    return suggests_channels_last(input) or suggests_channels_last(weight)
