"""Matrices by their diagonals: views of them, tensors filled along them, triangles, and the sum."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import prod
from typing import Any

from memest.errors import ShapeError
from memest.network.tensor import Shape
from memest.ops.aten.iterator import incoming
from memest.ops.aten.lapack import triangle_of
from memest.ops.aten.views import wrapped
from memest.ops.facts import BY_METHOD, EVERYWHERE_FACTS, FLOAT32
from memest.ops.operator import Example, flag
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import DERIVED, attribute, calls, row
from memest.sizes.choices import least

Saved = dict[str, Any]
Grads = Sequence[Tensor | None]


def _view(k: Tape, t: Tensor, offset: int, dim1: int, dim2: int) -> Tensor:
    """``t.diagonal(…)``: the dims but two, then the diagonal."""
    one, two = wrapped(dim1, t.ndim), wrapped(dim2, t.ndim)
    if one == two:
        raise ShapeError("a diagonal lies between two dims")
    rows, columns = t.shape[one] + min(offset, 0), t.shape[two] - max(offset, 0)
    length = least(rows, columns)
    kept = [d for d in range(t.ndim) if d not in (one, two)]
    shape = (*(t.shape[d] for d in kept), length)
    return k.view(t, shape, (*(t.strides[d] for d in kept), t.strides[one] + t.strides[two]))


def _diagonal(k: Tape, input: Tensor, *, offset: int, dim1: int, dim2: int) -> Tensor:
    k.note(sizes=input.shape)
    return _view(k, input, offset, dim1, dim2)


def _diagonal_backward(k: Tape, saved: Saved, grads: Grads, **attributes: Any) -> list[Tensor | None]:
    """Zeros, the gradient copied onto their diagonal."""
    return [k.empty(saved["sizes"], incoming(grads).dtype)]


def _diag_embed(k: Tape, input: Tensor, *, offset: int, dim1: int, dim2: int) -> Tensor:
    """Zeros, the input copied onto their diagonal."""
    ndim = input.ndim + 1
    one, two = wrapped(dim1, ndim), wrapped(dim2, ndim)
    side = input.shape[-1] + abs(offset)
    batch = iter(input.shape[:-1])
    return k.empty(tuple(side if d in (one, two) else next(batch) for d in range(ndim)), input.dtype)


def _diag_embed_backward(k: Tape, saved: Saved, grads: Grads, *, offset: int, dim1: int, dim2: int) -> list[Tensor | None]:
    return [_view(k, incoming(grads), offset, dim1, dim2)]


def _trace(k: Tape, input: Tensor) -> Tensor:
    if input.ndim != 2:
        raise ShapeError(f"trace of a tensor of {input.ndim} dims")
    k.note(sizes=input.shape)
    return k.empty((), "int64" if input.dtype in ("bool", "uint8", "int8", "int16", "int32") else input.dtype)


def _trace_backward(k: Tape, saved: Saved, grads: Grads) -> list[Tensor | None]:
    """Flat zeros, filled at a range of places."""
    sizes: Shape = saved["sizes"]
    out = k.empty((prod(sizes),), incoming(grads).dtype)
    k.free(k.empty((least(*sizes),), "int64"))
    return [k.view(out, sizes)]


def _triangle(k: Tape, input: Tensor, *, diagonal: int, inplace: bool) -> Tensor:
    if input.ndim < 2:
        raise ShapeError("a triangle of a tensor of fewer than 2 dims")
    return input if inplace else triangle_of(k, input)


def _triangle_backward(k: Tape, saved: Saved, grads: Grads, *, diagonal: int, inplace: bool) -> list[Tensor | None]:
    return [triangle_of(k, incoming(grads))]


BETWEEN = (attribute("offset", 0), attribute("dim1", 0), attribute("dim2", 1))
EMBEDDED = (attribute("offset", 0), attribute("dim1", -2), attribute("dim2", -1))
_row = partial(row, facts=EVERYWHERE_FACTS)
ROWS = (
    _row(
        "diagonal",
        _diagonal,
        _diagonal_backward,
        BETWEEN,
        calls(((4, 50), {}), ((2, 3, 9), {"offset": 1, "dim1": -2, "dim2": -1}), ((3, 50), {"offset": -1})),
        f"{DERIVED}/TensorShape.cpp",
    ),
    _row(
        "diag_embed",
        _diag_embed,
        _diag_embed_backward,
        EMBEDDED,
        calls(((4,), {}), ((2, 3), {"offset": 1}), ((2, 3), {"dim1": 0, "dim2": 2})),
        f"{DERIVED}/TensorShape.cpp",
    ),
    _row(
        "trace",
        _trace,
        _trace_backward,
        (),
        calls(((5, 4), {}), ((4, 5), {})),
        f"{DERIVED}/ReduceOps.cpp",
        facts=EVERYWHERE_FACTS.but(autocast=FLOAT32),
    ),
    *(
        _row(
            name,
            _triangle,
            _triangle_backward,
            (attribute("diagonal", 0), attribute("inplace", False, flag)),
            (
                *calls(((6, 5), {}), ((2, 3, 4, 5), {"diagonal": 1})),
                *calls(((2, 3, 4, 5), {}), layout="channels_last"),
                Example(shapes=((6, 5),), attributes={}, layout="transposed"),
            ),
            f"{DERIVED}/TriangularOps.cpp",
            facts=EVERYWHERE_FACTS.but(overwrites=BY_METHOD),
        )
        for name in ("tril", "triu")
    ),
)
COMPOSITE_ROWS = ()
