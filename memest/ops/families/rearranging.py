"""Elements moved between channels and space: pixel and channel shuffles, unfolding into columns and folding back."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import prod
from typing import Any

from memest.errors import ShapeError
from memest.network.tensor import Shape
from memest.ops.aten.copies import contiguous
from memest.ops.aten.iterator import incoming
from memest.ops.aten.views import rearranged
from memest.ops.facts import EVERYWHERE_FACTS, POINTWISE_FACTS, Attributes, Windows, repeated, slid, window_by
from memest.ops.operator import REQUIRED, Attribute, Example, expand, integer, per_dim
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import DERIVED, FUNCTIONAL, row

Saved = dict[str, Any]
Grads = Sequence[Tensor | None]


def _shuffled(k: Tape, t: Tensor, factor: int) -> Tensor:
    if t.ndim < 3 or factor <= 0 or t.shape[-3] % (factor * factor):
        raise ShapeError(f"pixel_shuffle by {factor} needs channels that are a multiple of {factor * factor}, got shape {list(t.shape)}")
    *lead, channels, height, width = t.shape
    kept = channels // (factor * factor)
    inner, order = (*lead, kept, factor, factor, height, width), (0, 3, 1, 4, 2)
    return rearranged(k, t, inner, _behind(lead, order), (*lead, kept, height * factor, width * factor))


def _unshuffled(k: Tape, t: Tensor, factor: int) -> Tensor:
    if t.ndim < 3 or factor <= 0 or t.shape[-2] % factor or t.shape[-1] % factor:
        raise ShapeError(f"pixel_unshuffle by {factor} needs height and width that are multiples of it, got shape {list(t.shape)}")
    *lead, channels, height, width = t.shape
    rows, cols = height // factor, width // factor
    inner, order = (*lead, channels, rows, factor, cols, factor), (0, 2, 4, 1, 3)
    return rearranged(k, t, inner, _behind(lead, order), (*lead, channels * factor * factor, rows, cols))


def _behind(lead: Sequence[int], order: Sequence[int]) -> tuple[int, ...]:
    """An order of dims behind those in front."""
    return (*range(len(lead)), *(len(lead) + d for d in order))


def _pixel_shuffle(k: Tape, input: Tensor, *, upscale_factor: int) -> Tensor:
    return _shuffled(k, input, upscale_factor)


def _pixel_shuffle_backward(k: Tape, saved: Saved, grads: Grads, *, upscale_factor: int) -> list[Tensor | None]:
    return [_unshuffled(k, incoming(grads), upscale_factor)]


def _pixel_unshuffle(k: Tape, input: Tensor, *, downscale_factor: int) -> Tensor:
    return _unshuffled(k, input, downscale_factor)


def _pixel_unshuffle_backward(k: Tape, saved: Saved, grads: Grads, *, downscale_factor: int) -> list[Tensor | None]:
    return [_shuffled(k, incoming(grads), downscale_factor)]


def _channel_shuffle(k: Tape, input: Tensor, *, groups: int) -> Tensor:
    if input.ndim < 3 or groups <= 0 or input.shape[1] % groups:
        raise ShapeError(f"channel_shuffle of {groups} groups needs channels that are a multiple, got shape {list(input.shape)}")
    return _grouped(k, input, groups)


def _channel_shuffle_backward(k: Tape, saved: Saved, grads: Grads, *, groups: int) -> list[Tensor | None]:
    grad = incoming(grads)
    return [_grouped(k, grad, grad.shape[1] // groups)]


def _grouped(k: Tape, t: Tensor, groups: int) -> Tensor:
    batch, channels, *space = t.shape
    inner, order = (batch, groups, channels // groups, *space), (0, 2, 1, *range(3, 3 + len(space)))
    return rearranged(k, t, inner, order, t.shape, always=False)


def _blocks(height: int, width: int, kernel: Shape, dilation: Shape, padding: Shape, stride: Shape) -> tuple[int, int]:
    pairs = zip((height, width), kernel, dilation, padding, stride, strict=True)
    rows, cols = ((n + 2 * p - (d * (k - 1) + 1)) // s + 1 for n, k, d, p, s in pairs)
    if rows < 1 or cols < 1:
        raise ShapeError(f"kernel {list(kernel)} does not fit into {height}x{width} (padding {list(padding)}, dilation {list(dilation)})")
    return rows, cols


def _grown(k: Tape, first: Shape, shape: Shape, dtype: str, copy_of: Tensor) -> Tensor:
    """An output made as large as the input and then resized: the storage is replaced when it must grow, kept when it may shrink."""
    small = k.empty(first, dtype)
    dense = contiguous(k, copy_of)
    out = small
    if prod(shape) > prod(first):
        out = k.empty(shape, dtype)
        k.free(small)
    k.free(dense)
    return k.view(out, shape)


def _im2col(k: Tape, t: Tensor, kernel: Shape, dilation: Shape, padding: Shape, stride: Shape) -> Tensor:
    if t.ndim not in (3, 4):
        raise ShapeError(f"unfold needs 3 or 4 dimensions, got shape {list(t.shape)}")
    *lead, channels, height, width = t.shape
    rows, cols = _blocks(height, width, kernel, dilation, padding, stride)
    return _grown(k, t.shape, (*lead, channels * kernel[0] * kernel[1], rows * cols), t.dtype, t)


def _col2im(k: Tape, t: Tensor, size: Shape, kernel: Shape, dilation: Shape, padding: Shape, stride: Shape) -> Tensor:
    if t.ndim not in (2, 3):
        raise ShapeError(f"fold needs 2 or 3 dimensions, got shape {list(t.shape)}")
    rows, cols = _blocks(size[0], size[1], kernel, dilation, padding, stride)
    *lead, planes, length = t.shape
    if planes % (kernel[0] * kernel[1]) or length != rows * cols:
        raise ShapeError(f"fold of shape {list(t.shape)}: expected {rows * cols} blocks of a multiple of {kernel[0] * kernel[1]} values")
    return _grown(k, t.shape, (*lead, planes // (kernel[0] * kernel[1]), *size), t.dtype, t)


def _pairs(*values: Any) -> tuple[Shape, ...]:
    return tuple(expand(v, 2) for v in values)


def _unfold(k: Tape, input: Tensor, *, kernel_size: Any, dilation: Any, padding: Any, stride: Any) -> Tensor:
    k.note(size=input.shape[-2:])
    return _im2col(k, input, *_pairs(kernel_size, dilation, padding, stride))


def _unfold_backward(
    k: Tape, saved: Saved, grads: Grads, *, kernel_size: Any, dilation: Any, padding: Any, stride: Any
) -> list[Tensor | None]:
    return [_col2im(k, incoming(grads), saved["size"], *_pairs(kernel_size, dilation, padding, stride))]


def _fold(k: Tape, input: Tensor, *, output_size: Any, kernel_size: Any, dilation: Any, padding: Any, stride: Any) -> Tensor:
    return _col2im(k, input, *_pairs(output_size, kernel_size, dilation, padding, stride))


def _fold_backward(
    k: Tape, saved: Saved, grads: Grads, *, output_size: Any, kernel_size: Any, dilation: Any, padding: Any, stride: Any
) -> list[Tensor | None]:
    return [_im2col(k, incoming(grads), *_pairs(kernel_size, dilation, padding, stride))]


def _seen_shuffled(given: Attributes, shapes: Sequence[Shape | None], dims: int) -> Windows:
    return (repeated(given["upscale_factor"]) if dims == 2 else None,) * dims


def _seen_unshuffled(given: Attributes, shapes: Sequence[Shape | None], dims: int) -> Windows:
    factor = given["downscale_factor"]
    return (slid(factor, 0, factor - 1) if dims == 2 else None,) * dims


_row = partial(row, torch=FUNCTIONAL)


def _both(shape: Shape, attributes: dict[str, Any]) -> tuple[Example, ...]:
    return tuple(Example(shapes=(shape,), attributes=attributes, layout=layout) for layout in ("contiguous", "channels_last"))


WINDOW = (
    Attribute(name="kernel_size", default=REQUIRED, check=per_dim),
    *(Attribute(name=n, default=d, check=per_dim) for n, d in (("dilation", 1), ("padding", 0), ("stride", 1))),
)
ROWS = (
    _row(
        "pixel_shuffle",
        _pixel_shuffle,
        _pixel_shuffle_backward,
        (Attribute(name="upscale_factor", default=REQUIRED, check=integer),),
        _both((2, 8, 3, 4), {"upscale_factor": 2}),
        f"{DERIVED}/PixelShuffle.cpp",
        facts=EVERYWHERE_FACTS.but(reach=window_by(_seen_shuffled)),
    ),
    _row(
        "pixel_unshuffle",
        _pixel_unshuffle,
        _pixel_unshuffle_backward,
        (Attribute(name="downscale_factor", default=REQUIRED, check=integer),),
        _both((2, 2, 6, 4), {"downscale_factor": 2}),
        f"{DERIVED}/PixelShuffle.cpp",
        facts=EVERYWHERE_FACTS.but(reach=window_by(_seen_unshuffled)),
    ),
    _row(
        "channel_shuffle",
        _channel_shuffle,
        _channel_shuffle_backward,
        (Attribute(name="groups", default=REQUIRED, check=integer),),
        _both((2, 6, 3, 4), {"groups": 3}),
        f"{DERIVED}/ChannelShuffle.cpp",
        facts=POINTWISE_FACTS,
    ),
    _row(
        "unfold",
        _unfold,
        _unfold_backward,
        WINDOW,
        (*_both((2, 3, 5, 6), {"kernel_size": 3, "padding": 1}), Example(shapes=((3, 8, 8),), attributes={"kernel_size": 2, "stride": 2})),
        f"{DERIVED}/Im2Col.cpp",
        facts=EVERYWHERE_FACTS,
    ),
    _row(
        "fold",
        _fold,
        _fold_backward,
        (Attribute(name="output_size", default=REQUIRED, check=per_dim), *WINDOW),
        (
            Example(shapes=((2, 12, 12),), attributes={"output_size": (4, 5), "kernel_size": 2}),
            Example(shapes=((2, 12, 16),), attributes={"output_size": 8, "kernel_size": 2, "stride": 2}),
        ),
        f"{DERIVED}/Col2Im.cpp",
        facts=EVERYWHERE_FACTS,
    ),
)
COMPOSITE_ROWS = ()
