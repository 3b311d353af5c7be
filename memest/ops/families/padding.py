"""Padding. Constant padding keeps nothing; reflecting and replicating keep the input, of which backward reads the sizes. Circular padding
is a tensor filled slice by slice: each copy into it is a node that clones its part of the gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from memest.errors import ShapeError
from memest.network.tensor import Shape, channels_last_strides
from memest.ops.aten.copies import contiguous, suggests_channels_last
from memest.ops.aten.iterator import empty_like, incoming
from memest.ops.composite import Caller, Composite
from memest.ops.facts import EVERYWHERE_CALLS, EVERYWHERE_FACTS, FALLS_THROUGH, FLOAT32, Attributes, Dispatched, Window, Windows, window_by
from memest.ops.operator import REQUIRED, Attribute, Example, Operator, choice, integers, number, optional
from memest.ops.tape import Tape, Tensor

Saved = dict[str, Any]
Grads = Sequence[Tensor | None]


def padded_shape(shape: Shape, pad: Shape) -> Shape:
    """``pad`` gives (before, after) per dim, from the last dim backwards; negative numbers crop."""
    if len(pad) % 2 or len(pad) // 2 > len(shape):
        raise ShapeError(f"padding {list(pad)} does not fit {len(shape)} dimensions")
    out = list(shape)
    for i in range(len(pad) // 2):
        d = len(shape) - 1 - i
        out[d] = shape[d] + pad[2 * i] + pad[2 * i + 1]
        cropped = shape[d] + min(pad[2 * i], 0) + min(pad[2 * i + 1], 0)
        if cropped < 0 or out[d] < 0 or (out[d] == 0 and shape[d] != 0):
            raise ShapeError(f"padding {pad[2 * i]} and {pad[2 * i + 1]} of a dimension of {shape[d]} leaves nothing")
    return tuple(out)


def _like(k: Tape, shape: Shape, t: Tensor) -> Tensor:
    return k.empty(shape, t.dtype, channels_last_strides(shape) if suggests_channels_last(t) else None)


def _constant(k: Tape, t: Tensor, pad: Shape) -> Tensor:
    """constant_pad_nd: cropping alone is a copy of a part; else a filled tensor that a part is copied into."""
    shape = padded_shape(t.shape, pad)
    if all(p <= 0 for p in pad):
        return empty_like(k, k.view(t, shape, t.strides))
    return _like(k, shape, t)


def _constant_pad(k: Tape, input: Tensor, *, pad: Shape, value: float | None) -> Tensor:
    return _constant(k, input, pad)


def _constant_pad_backward(k: Tape, saved: Saved, grads: Grads, *, pad: Shape, value: float | None) -> list[Tensor | None]:
    return [_constant(k, incoming(grads), tuple(-p for p in pad))]


def _has_format(t: Tensor, pad: Shape) -> bool:
    """True where the kernel works on channels_last: with a batch only (what it allocates follows the format without one as well)."""
    return t.ndim == len(pad) // 2 + 2 and suggests_channels_last(t)


def check_sizes(t: Tensor, pad: Shape, mode: str) -> None:
    """Refuse what torch refuses to reflect or to repeat."""
    spatial = len(pad) // 2
    if spatial > 3:
        raise ShapeError(f"{mode} padding is for at most 3 dimensions, got {spatial}")
    if t.ndim not in (spatial + 1, spatial + 2):
        raise ShapeError(f"{mode} padding of {spatial} dimensions needs {spatial + 1} or {spatial + 2}, got shape {list(t.shape)}")
    for i, p in enumerate(pad):
        size = t.shape[t.ndim - 1 - i // 2]
        if mode == "reflect" and p >= size:
            raise ShapeError(f"reflect padding {p} must be less than the dimension's {size}")


def _border_pad(k: Tape, input: Tensor, *, pad: Shape, mode: str) -> Tensor:
    check_sizes(input, pad, mode)
    shape = padded_shape(input.shape, pad)
    k.save(input=input)
    out = _like(k, shape, input)
    last = _has_format(input, pad)
    contiguous(k, input, last)
    contiguous(k, out, last)
    return out


def _border_pad_backward(k: Tape, saved: Saved, grads: Grads, *, pad: Shape, mode: str) -> list[Tensor | None]:
    input: Tensor = saved["input"]
    grad = incoming(grads)
    out = _like(k, input.shape, input)
    last = _has_format(grad, pad)
    contiguous(k, grad, last)
    contiguous(k, out, last)
    return [out]


def _pad(c: Caller, input: Any, *, pad: Shape, mode: str, value: float | None) -> Any:
    if mode == "constant":
        return c.call("_constant_pad", input, pad=pad, value=value)
    if mode == "circular":
        return _circular(c, input, pad)
    return c.call("_border_pad", input, pad=pad, mode=mode)


def _circular(c: Caller, input: Any, pad: Shape) -> Any:
    """_pad_circular: the input's copy in the middle, then each side's from the opposite one, dim by dim from the last."""
    ndim = len(input.shape)
    shape = padded_shape(input.shape, pad)
    spatial = len(pad) // 2
    if ndim != spatial + 2:
        raise ShapeError(f"circular padding of {spatial} dimensions needs {spatial + 2} dimensions, got {list(input.shape)}")
    sides = [(ndim - 1 - i, pad[2 * i], pad[2 * i + 1]) for i in range(spatial)]
    out = c.call("new_empty", input, size=shape)
    inner = input
    place: list[Any] = [(None, None, 1)] * ndim
    for d, left, right in sides:
        if left > input.shape[d] or right > input.shape[d]:
            raise ShapeError(f"circular padding {left} and {right} must not exceed the dimension's {input.shape[d]}")
        place[d] = (max(left, 0), shape[d] - max(right, 0), 1)
        inner = c.call("slice", inner, dim=d, start=max(-left, 0), end=input.shape[d] - max(-right, 0))
    c.call("setitem", out, inner, index=tuple(place), always_view=True)
    for d, left, right in sides:
        end = shape[d] - max(right, 0)
        if left > 0:
            _copied(c, out, d, (0, left), (end - left, end))
        if right > 0:
            _copied(c, out, d, (shape[d] - right, shape[d]), (max(left, 0), max(left, 0) + right))
    return out


def _copied(c: Caller, out: Any, dim: int, to: tuple[int, int], source: tuple[int, int]) -> None:
    part = c.call("slice", out, dim=dim, start=source[0], end=source[1])
    index = [(None, None, 1)] * dim
    c.call("setitem", out, part, index=(*index, (*to, 1)), always_view=True)
    c.drop(part)


PAD = Attribute(name="pad", default=REQUIRED, check=integers)
SHAPES: dict[int, Shape] = {1: (2, 3, 5), 2: (2, 3, 4, 5), 3: (2, 3, 4, 5, 6)}


def _shifted(given: Attributes, shapes: Sequence[Shape | None], dims: int) -> Windows:
    """Position i holds the input's ``i - left``, but the borders another one where they are not constant."""
    if given.get("mode", "constant") != "constant":
        return (None,) * dims
    lefts = (*given["pad"][::2], *(0,) * dims)[:dims]
    return [Window(Fraction(1), Fraction(left), Fraction(-left)) for left in reversed(lefts)]


SHIFTED = window_by(_shifted)
BORDERS = Dispatched(
    {
        **{f"reflection_pad{n}d": FLOAT32 if n < 3 else FALLS_THROUGH for n in (1, 2, 3)},
        **{f"replication_pad{n}d": FLOAT32 for n in (1, 2, 3)},
    },
    lambda given: f"{'reflection' if given['mode'] == 'reflect' else 'replication'}_pad{len(given['pad']) // 2}d",
)
ROWS = (
    Operator(
        name="_constant_pad",
        torch="torch.constant_pad_nd",
        roles=("input",),
        attributes=(PAD, Attribute(name="value", default=None, check=optional(number))),
        forward=_constant_pad,
        saves=(),
        backward=_constant_pad_backward,
        examples=(
            Example(shapes=(SHAPES[2],), attributes={"pad": (1, 0, 2, 1)}),
            Example(shapes=(SHAPES[2],), attributes={"pad": (-1, 0)}),
        ),
        facts=EVERYWHERE_FACTS.but(reach=SHIFTED),
        source="derivatives.yaml: constant_pad_nd; aten/src/ATen/native/PadNd.cpp",
    ),
    Operator(
        name="_border_pad",
        torch="torch.nn.functional.pad",
        roles=("input",),
        attributes=(PAD, Attribute(name="mode", default="reflect", check=choice("reflect", "replicate"))),
        forward=_border_pad,
        saves=("input",),
        backward=_border_pad_backward,
        examples=tuple(
            Example(shapes=(SHAPES[2],), attributes={"pad": (1, 1, 1, 1), "mode": mode}, layout=layout)
            for mode in ("reflect", "replicate")
            for layout in ("contiguous", "channels_last")
        ),
        facts=EVERYWHERE_FACTS.but(autocast=BORDERS),
        source="derivatives.yaml: reflection_pad1d, replication_pad1d, …; aten/src/ATen/native/ReflectionPad.cpp, ReplicationPadding.cpp",
    ),
)
COMPOSITE_ROWS = (
    Composite(
        name="pad",
        torch="torch.nn.functional.pad",
        roles=("input",),
        attributes=(
            PAD,
            Attribute(name="mode", default="constant", check=choice("constant", "reflect", "replicate", "circular")),
            Attribute(name="value", default=None, check=optional(number)),
        ),
        compose=_pad,
        examples=(
            Example(shapes=(SHAPES[2],), attributes={"pad": (1, 2)}),
            Example(shapes=(SHAPES[2],), attributes={"pad": (-1, 2, 0, -1)}),
            Example(shapes=(SHAPES[2],), attributes={"pad": (1, 2, 3, 0)}, layout="channels_last"),
            *(
                Example(shapes=(SHAPES[n],), attributes={"pad": (1, 2) * n, "mode": mode})
                for n in (1, 2, 3)
                for mode in ("reflect", "replicate", "circular")
            ),
            *(
                Example(shapes=(SHAPES[n],), attributes={"pad": (1, 2) * n, "mode": mode}, layout="channels_last")
                for n in (2, 3)
                for mode in ("reflect", "replicate", "circular")
            ),
        ),
        facts=EVERYWHERE_CALLS.but(reach=SHIFTED),
        source="aten/src/ATen/native/PadNd.cpp",
    ),
)
