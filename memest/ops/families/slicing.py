"""Parts of a tensor: slices, splits, windows, basic indexing. All are views; the gradient of a part is a tensor of zeros as large as the
whole, with the part's gradient copied in.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from memest.errors import ShapeError, UnsupportedError
from memest.network.tensor import Shape
from memest.ops.aten.copies import cat
from memest.ops.aten.iterator import incoming
from memest.ops.aten.places import refuse_on_cuda
from memest.ops.aten.views import (
    dim_or_dims,
    index_entries,
    slice_bounds,
    stacked,
    wrapped,
)
from memest.ops.composite import Caller
from memest.ops.facts import ALONG_DIM_CALLS, ALONG_DIM_FACTS, EVERYWHERE_CALLS, EVERYWHERE_FACTS
from memest.ops.operator import Example, flag, integer, integers, optional
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import DERIVED, NATIVE, attribute, calls, composite, row
from memest.sizes.dims import plain

Saved = dict[str, Any]
Grads = Sequence[Tensor | None]

MOST_PARTS = 65_536


def _zeros_of(k: Tape, saved: Saved, grads: Grads, **attributes: Any) -> list[Tensor | None]:
    """select_backward and its kin: contiguous zeros of the input's sizes, the gradient copied into its part."""
    return [k.empty(saved["sizes"], incoming(grads).dtype)]


def _select(k: Tape, input: Tensor, *, dim: int, index: int) -> Tensor:
    k.note(sizes=input.shape)
    d = wrapped(dim, input.ndim)
    if not input.ndim or not -input.shape[d] <= index < input.shape[d]:
        raise ShapeError(f"index {index} is out of range for dimension {d} of shape {list(input.shape)}")
    return k.view(input, (*input.shape[:d], *input.shape[d + 1 :]), (*input.strides[:d], *input.strides[d + 1 :]))


def _slice(k: Tape, input: Tensor, *, dim: int, start: int | None, end: int | None, step: int) -> Tensor:
    k.note(sizes=input.shape)
    d = wrapped(dim, input.ndim)
    _, size = slice_bounds(input.shape[d], start, end, step)
    strides = (*input.strides[:d], input.strides[d] * step, *input.strides[d + 1 :])
    return k.view(input, (*input.shape[:d], size, *input.shape[d + 1 :]), strides)


def _narrow(c: Caller, input: Any, *, dim: int, start: int, length: int) -> Any:
    d = wrapped(dim, len(input.shape))
    first = start + input.shape[d] if start < 0 else start
    if length < 0 or first + length > input.shape[d]:
        raise ShapeError(f"narrow of {length} from {start} exceeds size {input.shape[d]} of dimension {d}")
    return c.call("slice", input, dim=d, start=first, end=first + length)


def _checked(parts: int) -> int:
    """The number of parts; each is a view of its own."""
    if plain(parts) > MOST_PARTS:
        raise UnsupportedError(f"{parts:,} parts of one tensor are not modelled, at most {MOST_PARTS:,}")
    return parts


def _split_sizes(length: int, size: Any) -> list[int]:
    if isinstance(size, tuple):
        if sum(size) != length:
            raise ShapeError(f"split sizes {list(size)} do not sum to {length}")
        return list(size)
    if size <= 0:
        raise ShapeError(f"split size must be positive, got {size}")
    _checked(-(-length // size))
    return [min(size, length - at) for at in range(0, length, size)] or [0]


def _split(k: Tape, input: Tensor, *, split_size_or_sections: Any, dim: int) -> tuple[Tensor, ...]:
    d = wrapped(dim, input.ndim)
    sizes = _split_sizes(input.shape[d], split_size_or_sections)
    k.note(sizes=input.shape)
    return tuple(k.view(input, (*input.shape[:d], n, *input.shape[d + 1 :]), input.strides) for n in sizes)


def _unsafe_split(k: Tape, input: Tensor, *, split_size: int, dim: int) -> tuple[Tensor, ...]:
    """Parts that autograd does not count as views: they may be written into one by one."""
    d = wrapped(dim, input.ndim)
    k.note(sizes=input.shape)
    sizes = _split_sizes(input.shape[d], split_size)
    return tuple(k.alias(input, (*input.shape[:d], n, *input.shape[d + 1 :]), input.strides) for n in sizes)


def _unsafe_split_backward(k: Tape, saved: Saved, grads: Grads, *, split_size: int, dim: int) -> list[Tensor | None]:
    return _split_backward(k, saved, grads, split_size_or_sections=split_size, dim=dim)


def _split_backward(k: Tape, saved: Saved, grads: Grads, *, split_size_or_sections: Any, dim: int) -> list[Tensor | None]:
    sizes: Shape = saved["sizes"]
    d = wrapped(dim, len(sizes))
    dtype = next(g.dtype for g in grads if g is not None)
    parts = _split_sizes(sizes[d], split_size_or_sections)
    filled = [g if g is not None else k.empty((*sizes[:d], n, *sizes[d + 1 :]), dtype) for g, n in zip(grads, parts, strict=True)]
    return [cat(k, filled, d)]


def _chunk(c: Caller, input: Any, *, chunks: int, dim: int) -> Any:
    if chunks <= 0:
        raise ShapeError(f"chunks must be positive, got {chunks}")
    length = input.shape[wrapped(dim, len(input.shape))]
    return _tuple(c.call("split", input, split_size_or_sections=max((length + chunks - 1) // chunks, 1), dim=dim))


def _tensor_split(c: Caller, input: Any, *, indices_or_sections: Any, dim: int) -> Any:
    d = wrapped(dim, len(input.shape))
    length = input.shape[d]
    if isinstance(indices_or_sections, int):
        if indices_or_sections <= 0:
            raise ShapeError(f"tensor_split needs a positive number of sections, got {indices_or_sections}")
        size, more = length // indices_or_sections, length % indices_or_sections
        borders = [i * size + min(i, more) for i in range(1, _checked(indices_or_sections))]
    else:
        borders = list(indices_or_sections)
    return tuple(c.call("slice", input, dim=d, start=a, end=b) for a, b in zip([0, *borders], [*borders, length], strict=True))


def _tuple(result: Any) -> tuple[Any, ...]:
    return result if isinstance(result, tuple) else (result,)


def _unbind(k: Tape, input: Tensor, *, dim: int) -> tuple[Tensor, ...]:
    d = wrapped(dim, input.ndim)
    shape, strides = (*input.shape[:d], *input.shape[d + 1 :]), (*input.strides[:d], *input.strides[d + 1 :])
    k.note(part=shape)
    return tuple(k.view(input, shape, strides) for _ in range(_checked(input.shape[d])))


def _unbind_backward(k: Tape, saved: Saved, grads: Grads, *, dim: int) -> list[Tensor | None]:
    part: Shape = saved["part"]
    dtype = next(g.dtype for g in grads if g is not None)
    filled = [g if g is not None else k.view(k.empty((), dtype), part, (0,) * len(part)) for g in grads]
    d = wrapped(dim, len(part) + 1)
    return [stacked(k, filled, d)]


def _windows(k: Tape, t: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """Windows along a dim, as a view: their places go last."""
    d = wrapped(dimension, t.ndim)
    if size > t.shape[d] or step <= 0:
        raise ShapeError(f"unfold of {size} by {step} along a dimension of {t.shape[d]}")
    return k.view(
        t,
        (*t.shape[:d], (t.shape[d] - size) // step + 1, *t.shape[d + 1 :], size),
        (*t.strides[:d], t.strides[d] * step, *t.strides[d + 1 :], t.strides[d]),
    )


def _laid_together(k: Tape, sizes: Shape, dtype: str, dimension: int, size: int, step: int) -> Tensor:
    """Zeros of these sizes; windows that overlap are summed with the help of the positions that they cover."""
    out = k.empty(sizes, dtype)
    if step < size:
        windows = (sizes[wrapped(dimension, len(sizes))] - size) // step + 1
        k.free(k.empty(((windows - 1) * step + size,), "int64"))
    return out


def _unfold(k: Tape, input: Tensor, *, dimension: int, size: int, step: int) -> Tensor:
    k.note(sizes=input.shape)
    return _windows(k, input, dimension, size, step)


def _unfold_backward(k: Tape, saved: Saved, grads: Grads, *, dimension: int, size: int, step: int) -> list[Tensor | None]:
    grad = incoming(grads)
    return [_laid_together(k, saved["sizes"], grad.dtype, dimension, size, step)]


def _refold(k: Tape, input: Tensor, *, input_sizes: Shape, dim: int, size: int, step: int) -> Tensor:
    """``unfold_backward`` as a call of its own, whose gradient are the windows."""
    refuse_on_cuda(k)
    return _laid_together(k, input_sizes, input.dtype, dim, size, step)


def _refold_backward(k: Tape, saved: Saved, grads: Grads, *, input_sizes: Shape, dim: int, size: int, step: int) -> list[Tensor | None]:
    return [_windows(k, incoming(grads), dim, size, step)]


def _getitem(c: Caller, input: Any, indices: Any, *, index: tuple[Any, ...], host: bool, counts: Shape) -> Any:
    """Basic indexing: integers select, (start, end, step) slice, None inserts a dim, "..." skips dims, "tensor" takes the next index, which
    may be a mask that picks so many elements as ``counts`` says; where the input is a card's, they may lie on the ``host``."""
    widths = [len(i.shape) if i.spec.dtype == "bool" else 1 for i in indices]
    taken = sum(1 for i in index if i is not None and i != "..." and i != "tensor") + sum(widths)
    at, result, places = 0, input, []
    for entry in index:
        if entry is None:
            result = c.call("unsqueeze", result, dim=at)
            at += 1
        elif entry == "...":
            at += len(input.shape) - taken
        elif entry == "tensor":
            places.append(at)
            at += widths[len(places) - 1]
        elif isinstance(entry, tuple):
            start, end, step = entry
            if slice_bounds(result.shape[at], start, end, step) != (0, result.shape[at]) or step != 1:
                result = c.call("slice", result, dim=at, start=start, end=end, step=step)
            at += 1
        else:
            result = c.call("select", result, dim=at, index=entry)
    if places:
        return c.call("index", result, indices, dims=tuple(places), host=host, counts=counts)
    return c.call("alias", result) if result is input else result


_row = partial(row, source=f"{DERIVED}/TensorShape.cpp")
_composite = partial(composite, source=f"{NATIVE}/TensorShape.cpp")
DIM = attribute("dim")
BCHW = (2, 3, 4, 5)
ROWS = (
    _row("select", _select, _zeros_of, (DIM, attribute("index")), calls((BCHW, {"dim": 1, "index": -1})), facts=EVERYWHERE_FACTS),
    _row(
        "slice",
        _slice,
        _zeros_of,
        (
            attribute("dim", 0),
            attribute("start", None, optional(integer)),
            attribute("end", None, optional(integer)),
            attribute("step", 1),
        ),
        calls((BCHW, {"dim": 1, "start": 1}), (BCHW, {"dim": -1, "step": 2}), (BCHW, {"dim": 2, "start": -3, "end": -1})),
        facts=ALONG_DIM_FACTS,
        torch="torch.ops.aten.slice",
    ),
    _row(
        "split",
        _split,
        _split_backward,
        (attribute("split_size_or_sections", check=dim_or_dims), attribute("dim", 0)),
        calls((BCHW, {"split_size_or_sections": 2, "dim": 1}), (BCHW, {"split_size_or_sections": (1, 3), "dim": 2})),
        facts=ALONG_DIM_FACTS,
    ),
    _row(
        "unsafe_split",
        _unsafe_split,
        _unsafe_split_backward,
        (attribute("split_size"), attribute("dim", 0)),
        calls((BCHW, {"split_size": 2, "dim": 1}), (BCHW, {"split_size": 3, "dim": 3})),
        facts=ALONG_DIM_FACTS,
    ),
    _row("unbind", _unbind, _unbind_backward, (attribute("dim", 0),), calls((BCHW, {"dim": 1}), ((1, 3), {})), facts=EVERYWHERE_FACTS),
    _row(
        "tensor_unfold",
        _unfold,
        _unfold_backward,
        (attribute("dimension"), attribute("size"), attribute("step")),
        calls(
            (BCHW, {"dimension": 2, "size": 2, "step": 1}),
            (BCHW, {"dimension": 3, "size": 2, "step": 2}),
        ),
        facts=EVERYWHERE_FACTS,
        torch="torch.Tensor.unfold",
    ),
    _row(
        "unfold_backward",
        _refold,
        _refold_backward,
        (attribute("input_sizes", check=integers), attribute("dim"), attribute("size"), attribute("step")),
        calls(
            ((2, 4, 8), {"input_sizes": (2, 20), "dim": 1, "size": 8, "step": 4}),
            ((2, 2, 8), {"input_sizes": (2, 16), "dim": 1, "size": 8, "step": 8}),
        ),
        facts=EVERYWHERE_FACTS,
        torch="torch.ops.aten.unfold_backward",
    ),
)
COMPOSITE_ROWS = (
    _composite(
        "narrow",
        _narrow,
        (DIM, attribute("start"), attribute("length")),
        calls((BCHW, {"dim": 1, "start": 1, "length": 2})),
        facts=ALONG_DIM_CALLS,
    ),
    _composite(
        "chunk",
        _chunk,
        (attribute("chunks"), attribute("dim", 0)),
        calls((BCHW, {"chunks": 2, "dim": 1}), (BCHW, {"chunks": 3, "dim": 2})),
        facts=ALONG_DIM_CALLS,
    ),
    _composite(
        "tensor_split",
        _tensor_split,
        (attribute("indices_or_sections", check=dim_or_dims), attribute("dim", 0)),
        calls((BCHW, {"indices_or_sections": 2, "dim": 1}), (BCHW, {"indices_or_sections": (1, -1), "dim": 2})),
        facts=ALONG_DIM_CALLS,
        torch="torch.tensor_split",
        oracle="tensor_split",
    ),
    _composite(
        "getitem",
        _getitem,
        (attribute("index", check=index_entries), attribute("host", False, flag), attribute("counts", (), integers)),
        (
            Example(shapes=(BCHW, []), attributes={"index": (0, "...", (1, None, 2))}),
            Example(shapes=(BCHW, []), attributes={"index": ((None, None, 1), None, (0, 2, 1))}),
            Example(shapes=(BCHW, [(3,)]), attributes={"index": ((None, None, 1), "tensor")}, dtypes=("float32", "int64")),
            Example(shapes=(BCHW, [(3, 4)]), attributes={"index": (1, "tensor", (1, None, 2)), "counts": (5,)}, dtypes=("float32", "bool")),
        ),
        facts=EVERYWHERE_CALLS,
        roles=("input", "indices*"),
        torch="torch.Tensor.__getitem__",
        oracle="getitem",
    ),
)
