"""What oneDNN is asked and what it answers: a convolution problem, and the plan its primitive descriptor would hold."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal

from memest.libraries.onednn.releases import NEWEST, Release
from memest.network.dtypes import ITEMSIZE
from memest.sizes.remembering import kept

Prop = Literal["forward_training", "forward_inference", "backward_data", "backward_weights"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Convolution:
    """One convolution problem, as ideep hands it to oneDNN.

    ``in_channels`` and ``out_channels`` are totals over the groups; spatial tuples have 1 to 3 entries, outermost first.
    ``dilation`` follows torch (1 is dense; oneDNN writes it as 0). ``channels_last`` pins source and destination to
    nwc/nhwc/ndhwc; otherwise every format is ``any`` and the implementation chooses. ``float_source``: backward data writes its
    result in float32 whatever the type of the rest (as a transposed convolution asks for that adds a bias afterwards); the plan's
    layouts are counted in ``dtype`` all the same. ``release`` is the oneDNN that is asked.
    """

    prop: Prop
    batch: int
    in_channels: int
    out_channels: int
    groups: int
    input_size: tuple[int, ...]
    output_size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[int, ...]
    padding_end: tuple[int, ...]
    bias: bool
    channels_last: bool
    dtype: str = "float32"
    float_source: bool = False
    release: Release = NEWEST

    @property
    def itemsize(self) -> int:
        """Bytes of an element of every tensor: data, weights, bias and their gradients have one type."""
        return ITEMSIZE[self.dtype]

    @property
    def source_itemsize(self) -> int:
        """Bytes of an element of the source or its gradient."""
        return 4 if self.float_source else self.itemsize

    @property
    def spatial_dims(self) -> int:
        """Number of spatial dimensions, 1 to 3."""
        return len(self.kernel)

    @property
    def source_dims(self) -> tuple[int, ...]:
        """Logical dims of the source: (batch, in_channels, *input_size)."""
        return (self.batch, self.in_channels, *self.input_size)

    @property
    def destination_dims(self) -> tuple[int, ...]:
        """Logical dims of the destination: (batch, out_channels, *output_size)."""
        return (self.batch, self.out_channels, *self.output_size)

    @property
    def weights_dims(self) -> tuple[int, ...]:
        """Logical dims of the weights: (groups, oc/groups, ic/groups, *kernel), without the group dim when groups is 1."""
        oc, ic = self.out_channels // self.groups, self.in_channels // self.groups
        lead = (self.groups, oc, ic) if self.groups > 1 else (oc, ic)
        return (*lead, *self.kernel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A memory descriptor: oneDNN's letter tag (``aBcd16b``) and the bytes it takes, padding to whole blocks included."""

    tag: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the chosen primitive descriptor says: implementation name (as ONEDNN_VERBOSE prints it), layouts, scratchpad, and how much of
    the scratchpad is never written."""

    implementation: str
    source: Layout
    weights: Layout
    destination: Layout
    scratchpad_bytes: int
    unwritten_bytes: int = 0


@kept(4_096)
def parse_tag(tag: str) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
    """(outer order of dims, inner blocks as (dim, size)) of a letter tag: ``aBcd16b`` -> ((0, 1, 2, 3), ((1, 16),))."""
    order: list[int] = []
    blocks: list[tuple[int, int]] = []
    digits = ""
    for letter in tag:
        if letter.isdigit():
            digits += letter
        elif digits:
            blocks.append((ord(letter) - ord("a"), int(digits)))
            digits = ""
        else:
            order.append(ord(letter.lower()) - ord("a"))
    return tuple(order), tuple(blocks)


def layout(tag: str, dims: tuple[int, ...], itemsize: int = 4) -> Layout:
    """The layout of logical ``dims`` under ``tag``: every blocked dim is padded to a whole number of blocks."""
    _, blocks = parse_tag(tag)
    factor: dict[int, int] = {}
    for dim, size in blocks:
        factor[dim] = factor.get(dim, 1) * size
    padded = [-(-n // factor[d]) * factor[d] if d in factor else n for d, n in enumerate(dims)]
    return Layout(tag=tag, bytes=prod(padded) * itemsize)


def plain_tag(ndim: int) -> str:
    """The dense row-major tag (``abcd``: nchw, oihw)."""
    return "abcdef"[:ndim]


def channels_last_tag(ndim: int) -> str:
    """The channels-last tag (``acdb``: nhwc)."""
    letters = "abcdef"[:ndim]
    return letters[0] + letters[2:] + letters[1]
