"""What oneDNN's AVX-512 direct convolutions ask of a problem first, in float32 and bfloat16 alike: its sizes, and its blocks of channels.

Sources: oneDNN v3.12 src/cpu/x64/jit_avx512_common_conv_kernel.cpp, jit_avx512_core_bf16_conv_kernel.cpp.
"""

from __future__ import annotations

from typing import NamedTuple

from memest.libraries.onednn.avx512_common import BLOCK, blocked_data_tag
from memest.libraries.onednn.problem import Convolution, channels_last_tag


class Geometry(NamedTuple):
    """A problem per group, its spatial sizes as (depth, height, width) whatever the number of dimensions."""

    spatial_dims: int
    channels_last: bool
    bias: bool
    groups: int
    batch: int
    ic: int
    oc: int
    input: tuple[int, ...]
    output: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[int, ...]
    extent: tuple[int, ...]
    """What the dilated kernel covers."""

    padding_end: tuple[int, ...]
    """What the last output needs beyond the input; negative when input is left over."""

    @property
    def is_first_layer(self) -> bool:
        """True for images of few channels, whose layout stays plain."""
        return self.ic < BLOCK and self.groups == 1


def geometry_of(problem: Convolution) -> Geometry:
    """``problem`` seen so."""
    missing = 3 - problem.spatial_dims
    ones, zeros = (1,) * missing, (0,) * missing
    sizes, outputs = ones + problem.input_size, ones + problem.output_size
    kernel, stride = ones + problem.kernel, ones + problem.stride
    dilation, padding = ones + problem.dilation, zeros + problem.padding
    extent = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
    needed = ((o - 1) * s + e for o, s, e in zip(outputs, stride, extent, strict=True))
    return Geometry(
        problem.spatial_dims,
        problem.channels_last,
        problem.bias,
        problem.groups,
        problem.batch,
        problem.in_channels // problem.groups,
        problem.out_channels // problem.groups,
        sizes,
        outputs,
        kernel,
        stride,
        dilation,
        padding,
        extent,
        tuple(n - i - p for n, i, p in zip(needed, sizes, padding, strict=True)),
    )


def padding_exceeds_kernel(g: Geometry) -> bool:
    """Whether some outputs would see nothing but padding."""
    return any(e <= p or e <= q for e, p, q in zip(g.extent, g.padding, g.padding_end, strict=True))


def vector_width(g: Geometry) -> int | None:
    """Channels in a block; groups that do not fill blocks of 16 may use narrower ones. None when they fill none."""
    if g.groups == 1 or (g.channels_last and max(g.ic, g.oc) >= BLOCK):
        return BLOCK
    for width in (BLOCK, 8, 4):
        if g.ic % width == 0 and g.oc % width == 0:
            return width
    return BLOCK if g.channels_last else None


def data_tag(g: Geometry, width: int) -> str:
    """The layout of source and destination."""
    return channels_last_tag(g.spatial_dims + 2) if g.channels_last else blocked_data_tag(g.spatial_dims, width)
