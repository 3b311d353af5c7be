"""Shapes, strides and element types: the metadata of a tensor, without its data.

Strides count elements. Everything is arithmetic on the dims it is given: ints, or ``Dim`` (an int that carries its expression).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

from memest.network.dtypes import ITEMSIZE

Shape = tuple[int, ...]


class Spec(NamedTuple):
    """Shape, strides (in elements) and dtype of a tensor."""

    shape: Shape
    strides: Shape
    dtype: str


def same_shape(a: Shape, b: Shape) -> bool:
    """True for equal shapes. Ranks are compared first: tuples compare sizes even where their lengths differ, and a comparison of
    sizes is a condition of every formula."""
    return len(a) == len(b) and a == b


def contiguous_strides(shape: Sequence[int]) -> Shape:
    """Row-major strides of ``shape``, as torch computes them (a dim of size 0 counts as 1)."""
    strides: list[int] = []
    step = 1
    for n in reversed(shape):
        strides.append(step)
        step = step * (n if n > 1 else 1)
    return tuple(reversed(strides))


def channels_last_strides(shape: Sequence[int]) -> Shape:
    """Strides of channels_last (4 dims) or channels_last_3d (5 dims): channels innermost."""
    order = (0, *range(2, len(shape)), 1)
    inner = contiguous_strides([shape[d] for d in order])
    strides = [0] * len(shape)
    for d, step in zip(order, inner, strict=True):
        strides[d] = step
    return tuple(strides)


def is_contiguous(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """True when the elements lie row-major; dims of size 1 do not matter."""
    expected = 1
    for n, step in zip(reversed(shape), reversed(strides), strict=True):
        if n != 1:
            if step != expected:
                return 0 in shape
            expected = expected * n
    return True


def is_channels_last(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """True when 4 or 5 dims lie channels-last (``is_contiguous(memory_format=channels_last)``)."""
    if len(shape) not in (4, 5):
        return False
    expected = 1
    for d in (1, *range(len(shape) - 1, 1, -1), 0):
        if shape[d] != 1:
            if strides[d] != expected:
                return False
            expected = expected * shape[d]
    return True


def is_channels_last_strides(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """torch's weaker test on stride order alone (c10 ``is_channels_last_strides_2d/3d``), used by ``suggest_memory_format``."""
    if len(shape) not in (4, 5):
        return False
    least = 0
    if strides[1] == 0:
        return False
    for d in (1, *range(len(shape) - 1, 1, -1), 0):
        if shape[d] == 0 or strides[d] < least:
            return False
        if d == 0 and least == strides[1]:  # N111 with contiguous strides is not channels-last
            return False
        least = strides[d]
        if shape[d] > 1:
            least = least * shape[d]
    return True


def is_non_overlapping_and_dense(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """True when some order of the dims makes the elements lie contiguous."""
    if is_contiguous(shape, strides):
        return True
    if len(shape) == 1:
        return shape[0] < 2 or strides[0] == 1
    order = sorted((d for d in range(len(shape)) if shape[d] > 1), key=lambda d: strides[d])
    expected = 1
    for d in order:
        if strides[d] != expected:
            return False
        expected = expected * shape[d]
    return True


def numel(shape: Sequence[int]) -> int:
    """Number of elements."""
    return prod(shape)


def nbytes(shape: Sequence[int], dtype: str) -> int:
    """Bytes of a dense tensor of ``shape``."""
    return prod(shape) * ITEMSIZE[dtype]


LAYOUTS = ("contiguous", "channels_last")
"""Those with names. Any other is the dims from the outermost to the innermost: ``1,0`` is what ``t()`` gives."""


def is_layout(layout: str, ndim: int) -> bool:
    """Whether a tensor of so many dims can lie so."""
    return layout in LAYOUTS or sorted(layout.split(",")) == sorted(map(str, range(ndim)))


def strides_in(layout: str, shape: Sequence[int]) -> Shape:
    """Strides of a dense tensor of this layout; ``channels_last`` counts for 4 and 5 dims, others stay row-major (as ``Module.to`` leaves
    them)."""
    if layout not in LAYOUTS:
        order = [int(d) for d in layout.split(",")]
        inwards = dict(zip(order, contiguous_strides([shape[d] for d in order]), strict=True))
        return tuple(inwards[d] for d in range(len(shape)))
    last = layout == "channels_last" and len(shape) in (4, 5)
    return channels_last_strides(shape) if last else contiguous_strides(shape)


def layout_of(shape: Sequence[int], strides: Sequence[int]) -> str | None:
    """The layout of a tensor of these numbers; None where its elements overlap or leave gaps."""
    order = sorted(range(len(shape)), key=lambda d: (-strides[d], shape[d] == 1, d))
    for layout in (*LAYOUTS, ",".join(map(str, order))):
        if strides_in(layout, shape) == tuple(strides):
            return layout
    return "contiguous" if is_contiguous(shape, strides) else None


def spec(shape: Sequence[int], dtype: str = "float32", layout: str = "contiguous") -> Spec:
    """A dense tensor's metadata."""
    shape = tuple(shape)
    return Spec(shape, strides_in(layout, shape), dtype)


def broadcast(*shapes: Sequence[int]) -> Shape:
    """The common shape of broadcast operands; ValueError when there is none."""
    ndim = max((len(s) for s in shapes), default=0)
    out: list[int] = [1] * ndim
    for shape in shapes:
        offset = ndim - len(shape)
        for d, n in enumerate(shape):
            have = out[offset + d]
            if n == 1:
                if type(have) is int and have == 1:
                    out[offset + d] = n  # which may be a symbol's value
                continue
            if have not in (1, n):
                raise ValueError(f"sizes {have} and {n} of dimension {offset + d} do not broadcast")
            out[offset + d] = n
    return tuple(out)
