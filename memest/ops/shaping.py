"""Views: the same storage under another shape. Forward takes no memory; backward mostly views the gradient, and allocates where a
part of a tensor was taken (its gradient is a tensor of zeros with that part filled in).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from memest.errors import ShapeError
from memest.ops.composite import Caller, Composite
from memest.ops.kernels import cat, contiguous, sum_to, transpose
from memest.ops.operator import REQUIRED, Attribute, Example, Operator, integer, integers, optional
from memest.ops.tape import Tape, Tensor
from memest.tensor import Shape

Saved = dict[str, Any]
Grads = Sequence[Tensor | None]


def wrapped(dim: int, ndim: int) -> int:
    """A dim counted from the end made positive."""
    limit = max(ndim, 1)
    if not -limit <= dim < limit:
        raise ShapeError(f"dimension {dim} of a tensor of {ndim}")
    return dim + limit if dim < 0 else dim


def incoming(grads: Grads) -> Tensor:
    """The gradient of the only output."""
    (grad,) = grads
    assert grad is not None
    return grad


# shapes ----------------------------------------------------------------------------------------------------------------


def inferred_shape(wanted: Sequence[int], numel: int) -> Shape:
    """``wanted`` with its one -1 worked out."""
    known = prod(n for n in wanted if n != -1)
    if -1 in wanted and wanted.count(-1) == 1 and known and numel % known == 0:
        return tuple(numel // known if n == -1 else n for n in wanted)
    if -1 in wanted or known != numel:
        raise ShapeError(f"shape {list(wanted)} does not hold {numel} elements")
    return tuple(wanted)


def viewed_strides(shape: Shape, strides: Shape, wanted: Shape) -> Shape | None:
    """Strides that show the elements of (shape, strides) under ``wanted``; None when a copy is needed (at::detail::computeStride)."""
    if 0 in shape:
        return strides if shape == wanted else _zero_strides(wanted)
    out = [0] * len(wanted)
    d = len(wanted) - 1
    step = strides[-1] if shape else 1
    chunk = taken = 1
    for i in range(len(shape) - 1, -1, -1):
        chunk = chunk * shape[i]
        if i == 0 or (shape[i - 1] != 1 and strides[i - 1] != chunk * step):
            while d >= 0 and (taken < chunk or wanted[d] == 1):
                out[d] = taken * step
                taken = taken * wanted[d]
                d -= 1
            if taken != chunk:
                return None
            if i > 0:
                step = strides[i - 1]
                chunk = taken = 1
    if not shape:
        return (1,) * len(wanted)
    return tuple(out) if d == -1 else None


def _zero_strides(wanted: Shape) -> Shape:
    out = [1] * len(wanted)
    for d in range(len(wanted) - 2, -1, -1):
        out[d] = max(wanted[d + 1], 1) * out[d + 1]
    return tuple(out)


def reshaped(k: Tape, t: Tensor, shape: Shape) -> Tensor:
    """``t.reshape(shape)``: a view where strides allow, else a view of a contiguous copy."""
    strides = viewed_strides(t.shape, t.strides, shape)
    if strides is not None:
        return k.view(t, shape, strides)
    return k.view(contiguous(k, t), shape)


def _view(k: Tape, input: Tensor, *, shape: Shape) -> Tensor:
    k.note(sizes=input.shape)
    wanted = inferred_shape(shape, input.numel)
    strides = viewed_strides(input.shape, input.strides, wanted)
    if strides is None:
        raise ShapeError(f"view of shape {list(wanted)} is not possible with strides {list(input.strides)}: use reshape")
    return k.view(input, wanted, strides)


def _view_backward(k: Tape, saved: Saved, grads: Grads, *, shape: Shape) -> list[Tensor | None]:
    return [reshaped(k, incoming(grads), saved["sizes"])]


def _reshape(c: Caller, input: Any, *, shape: Shape) -> Any:
    wanted = inferred_shape(shape, prod(input.shape))
    if viewed_strides(input.shape, input.spec.strides, wanted) is not None:
        return c.call("view", input, shape=wanted)
    return c.call("view", c.call("clone", input, memory_format="contiguous_format"), shape=wanted)


def _flatten(c: Caller, input: Any, *, start_dim: int, end_dim: int) -> Any:
    ndim = len(input.shape)
    start, end = wrapped(start_dim, ndim), wrapped(end_dim, ndim)
    if start > end:
        raise ShapeError(f"flatten from dimension {start} to {end}")
    if ndim == 0:
        return c.call("reshape", input, shape=(1,))
    if start == end:
        return input
    shape = input.shape
    return c.call("reshape", input, shape=(*shape[:start], prod(shape[start : end + 1]), *shape[end + 1 :]))


def _unflatten(c: Caller, input: Any, *, dim: int, sizes: Shape) -> Any:
    shape = input.shape
    d = wrapped(dim, len(shape))
    return c.call("view", input, shape=(*shape[:d], *inferred_shape(sizes, shape[d]), *shape[d + 1 :]))


def _view_as(c: Caller, input: Any, other: Any) -> Any:
    return c.call("view", input, shape=other.shape)


def _reshape_as(c: Caller, input: Any, other: Any) -> Any:
    return c.call("reshape", input, shape=other.shape)


# order of dims ---------------------------------------------------------------------------------------------------------


def permuted(k: Tape, t: Tensor, dims: Sequence[int]) -> Tensor:
    """The view with dims in another order."""
    return k.view(t, [t.shape[d] for d in dims], [t.strides[d] for d in dims])


def _order(dims: Sequence[int], ndim: int) -> list[int]:
    order = [wrapped(d, ndim) for d in dims]
    if sorted(order) != list(range(ndim)):
        raise ShapeError(f"{list(dims)} is not an order of {ndim} dimensions")
    return order


def _permute(k: Tape, input: Tensor, *, dims: Shape) -> Tensor:
    return permuted(k, input, _order(dims, input.ndim))


def _permute_backward(k: Tape, saved: Saved, grads: Grads, *, dims: Shape) -> list[Tensor | None]:
    grad = incoming(grads)
    order = _order(dims, grad.ndim)
    return [permuted(k, grad, [order.index(d) for d in range(grad.ndim)])]


def _transpose(k: Tape, input: Tensor, *, dim0: int, dim1: int) -> Tensor:
    a, b = wrapped(dim0, input.ndim), wrapped(dim1, input.ndim)
    return transpose(k, input, a, b) if input.ndim else k.view(input, ())


def _transpose_backward(k: Tape, saved: Saved, grads: Grads, *, dim0: int, dim1: int) -> list[Tensor | None]:
    return [_transpose(k, incoming(grads), dim0=dim0, dim1=dim1)]


def _t(k: Tape, input: Tensor) -> Tensor:
    if input.ndim > 2:
        raise ShapeError(f"t takes at most 2 dimensions, got {input.ndim}")
    return transpose(k, input, 0, 1) if input.ndim == 2 else k.view(input, input.shape, input.strides)


def _t_backward(k: Tape, saved: Saved, grads: Grads) -> list[Tensor | None]:
    return [_t(k, incoming(grads))]


def _swapaxes(c: Caller, input: Any, *, axis0: int, axis1: int) -> Any:
    return c.call("transpose", input, dim0=axis0, dim1=axis1)


def _movedim(c: Caller, input: Any, *, source: Any, destination: Any) -> Any:
    ndim = len(input.shape)
    src = [wrapped(d, ndim) for d in ((source,) if isinstance(source, int) else source)]
    dst = [wrapped(d, ndim) for d in ((destination,) if isinstance(destination, int) else destination)]
    rest = iter([d for d in range(ndim) if d not in src])
    at = dict(zip(dst, src, strict=True))
    return c.call("permute", input, dims=tuple(at[d] if d in at else next(rest) for d in range(ndim)))


# dims of size one ------------------------------------------------------------------------------------------------------


def unsqueezed(k: Tape, t: Tensor, dim: int) -> Tensor:
    """The view with a dim of size 1 more at ``dim``."""
    step = t.shape[dim] * t.strides[dim] if dim < t.ndim else 1
    return k.view(t, (*t.shape[:dim], 1, *t.shape[dim:]), (*t.strides[:dim], step, *t.strides[dim:]))


def squeezed(k: Tape, t: Tensor, dims: Sequence[int]) -> Tensor:
    """The view without those of ``dims`` that have size 1."""
    kept = [d for d in range(t.ndim) if d not in dims or t.shape[d] != 1]
    return k.view(t, [t.shape[d] for d in kept], [t.strides[d] for d in kept])


def _squeezable(dim: Any, ndim: int) -> list[int]:
    if dim is None:
        return list(range(ndim))
    return [wrapped(d, ndim) for d in ((dim,) if isinstance(dim, int) else dim)]


def _squeeze(k: Tape, input: Tensor, *, dim: Any) -> Tensor:
    k.note(sizes=input.shape)
    return squeezed(k, input, _squeezable(dim, input.ndim))


def _squeeze_backward(k: Tape, saved: Saved, grads: Grads, *, dim: Any) -> list[Tensor | None]:
    grad = incoming(grads)
    sizes = saved["sizes"]
    dims = _squeezable(dim, len(sizes))
    for d in range(len(sizes)):
        if d in dims and sizes[d] == 1:
            grad = unsqueezed(k, grad, d)
    return [grad]


def _unsqueeze(k: Tape, input: Tensor, *, dim: int) -> Tensor:
    return unsqueezed(k, input, wrapped(dim, input.ndim + 1))


def _unsqueeze_backward(k: Tape, saved: Saved, grads: Grads, *, dim: int) -> list[Tensor | None]:
    grad = incoming(grads)
    return [squeezed(k, grad, [wrapped(dim, grad.ndim)])]


def expanded(k: Tape, t: Tensor, shape: Shape) -> Tensor:
    """The view repeated along dims of size 1 (inferExpandGeometry)."""
    lead = len(shape) - t.ndim
    if lead < 0:
        raise ShapeError(f"expand of {list(t.shape)} to fewer dimensions {list(shape)}")
    sizes, strides = list(shape), [0] * len(shape)
    if t.ndim == 0:
        return k.view(t, sizes, strides)
    for i in range(len(shape) - 1, -1, -1):
        size = t.shape[i - lead] if i >= lead else 1
        step = t.strides[i - lead] if i >= lead else (sizes[i + 1] * strides[i + 1] if i + 1 < len(shape) else 1)
        if sizes[i] == -1:
            sizes[i] = size
        if size not in (1, sizes[i]):
            raise ShapeError(f"expand of {list(t.shape)} to {list(shape)}")
        strides[i] = step if size == sizes[i] else 0
    return k.view(t, sizes, strides)


def _expand(k: Tape, input: Tensor, *, size: Shape) -> Tensor:
    k.note(sizes=input.shape)
    return expanded(k, input, size)


def _expand_backward(k: Tape, saved: Saved, grads: Grads, *, size: Shape) -> list[Tensor | None]:
    return [sum_to(k, incoming(grads), saved["sizes"])]


def _expand_as(c: Caller, input: Any, other: Any) -> Any:
    return c.call("expand", input, size=other.shape)


# parts -----------------------------------------------------------------------------------------------------------------


def _zeros_of(k: Tape, saved: Saved, grads: Grads, **attributes: Any) -> list[Tensor | None]:
    """select_backward and its kin: contiguous zeros of the input's sizes, the gradient copied into its part."""
    return [k.empty(saved["sizes"], incoming(grads).dtype)]


def _select(k: Tape, input: Tensor, *, dim: int, index: int) -> Tensor:
    k.note(sizes=input.shape)
    d = wrapped(dim, input.ndim)
    if not input.ndim or not -input.shape[d] <= index < input.shape[d]:
        raise ShapeError(f"index {index} is out of range for dimension {d} of shape {list(input.shape)}")
    return k.view(input, (*input.shape[:d], *input.shape[d + 1 :]), (*input.strides[:d], *input.strides[d + 1 :]))


def slice_bounds(length: int, start: int | None, end: int | None, step: int) -> tuple[int, int]:
    """Start and number of elements of a slice, as Python clamps it."""
    if step <= 0:
        raise ShapeError(f"slice step must be positive, got {step}")
    first = 0 if start is None else start
    last = length if end is None else end
    first = max(first + length, 0) if first < 0 else min(first, length)
    last = last + length if last < 0 else min(last, length)
    return first, (max(last - first, 0) + step - 1) // step


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


def _split_sizes(length: int, size: Any) -> list[int]:
    if isinstance(size, tuple):
        if sum(size) != length:
            raise ShapeError(f"split sizes {list(size)} do not sum to {length}")
        return list(size)
    if size <= 0:
        raise ShapeError(f"split size must be positive, got {size}")
    return [min(size, length - at) for at in range(0, length, size)] or [0]


def _split(k: Tape, input: Tensor, *, split_size_or_sections: Any, dim: int) -> tuple[Tensor, ...]:
    d = wrapped(dim, input.ndim)
    sizes = _split_sizes(input.shape[d], split_size_or_sections)
    k.note(sizes=input.shape)
    return tuple(k.view(input, (*input.shape[:d], n, *input.shape[d + 1 :]), input.strides) for n in sizes)


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


def _tuple(result: Any) -> tuple[Any, ...]:
    return result if isinstance(result, tuple) else (result,)


def _unbind(k: Tape, input: Tensor, *, dim: int) -> tuple[Tensor, ...]:
    d = wrapped(dim, input.ndim)
    shape, strides = (*input.shape[:d], *input.shape[d + 1 :]), (*input.strides[:d], *input.strides[d + 1 :])
    k.note(part=shape)
    return tuple(k.view(input, shape, strides) for _ in range(input.shape[d]))


def _unbind_backward(k: Tape, saved: Saved, grads: Grads, *, dim: int) -> list[Tensor | None]:
    part: Shape = saved["part"]
    dtype = next(g.dtype for g in grads if g is not None)
    filled = [g if g is not None else k.view(k.empty((), dtype), part, (0,) * len(part)) for g in grads]
    d = wrapped(dim, len(part) + 1)
    return [cat(k, [unsqueezed(k, g, d) for g in filled], d)]


def _detach(k: Tape, input: Tensor) -> Tensor:
    return k.view(input, input.shape, input.strides)


def _unfold(k: Tape, input: Tensor, *, dimension: int, size: int, step: int) -> Tensor:
    d = wrapped(dimension, input.ndim)
    if size > input.shape[d] or step <= 0:
        raise ShapeError(f"unfold of {size} by {step} along a dimension of {input.shape[d]}")
    k.note(sizes=input.shape)
    windows = (input.shape[d] - size) // step + 1
    return k.view(
        input,
        (*input.shape[:d], windows, *input.shape[d + 1 :], size),
        (*input.strides[:d], input.strides[d] * step, *input.strides[d + 1 :], input.strides[d]),
    )


def _unfold_backward(k: Tape, saved: Saved, grads: Grads, *, dimension: int, size: int, step: int) -> list[Tensor | None]:
    """Zeros of the input's sizes; windows that overlap are summed with the help of the positions along the dimension."""
    sizes: Shape = saved["sizes"]
    out = k.empty(sizes, incoming(grads).dtype)
    if step < size:
        k.free(k.empty((sizes[wrapped(dimension, len(sizes))],), "int64"))
    return [out]


def _getitem(c: Caller, input: Any, indices: Any, *, index: tuple[Any, ...]) -> Any:
    """Basic indexing: integers select, (start, end, step) slice, None inserts a dim, "..." skips dims, "tensor" takes the next index."""
    taken = sum(1 for i in index if i is not None and i != "...")
    at, result, places = 0, input, []
    for entry in index:
        if entry is None:
            result = c.call("unsqueeze", result, dim=at)
            at += 1
        elif entry == "...":
            at += len(input.shape) - taken
        elif entry == "tensor":
            places.append(at)
            at += 1
        elif isinstance(entry, tuple):
            start, end, step = entry
            if slice_bounds(result.shape[at], start, end, step) != (0, result.shape[at]) or step != 1:
                result = c.call("slice", result, dim=at, start=start, end=end, step=step)
            at += 1
        else:
            result = c.call("select", result, dim=at, index=entry)
    if places:
        return c.call("index", result, indices, dims=tuple(places))
    return c.call("alias", result) if result is input else result


def _alias_backward(k: Tape, saved: Saved, grads: Grads) -> list[Tensor | None]:
    return [incoming(grads)]


SHAPES = "aten/src/ATen/native/TensorShape.cpp"


def dim_or_dims(value: Any) -> Any:
    """One dim, several, or None."""
    return None if value is None else integers(value) if isinstance(value, list | tuple) else integer(value)


def index_entries(value: Any) -> tuple[Any, ...]:
    """The entries of an index: integer, [start, end, step], None, "..." or "tensor"."""
    if not isinstance(value, list | tuple):
        raise ValueError("expected a list of index entries")
    return tuple(_index_entry(v) for v in value)


def _index_entry(value: Any) -> Any:
    if isinstance(value, list | tuple):
        if len(value) != 3:
            raise ValueError("a slice is [start, end, step]")
        start, end, step = (optional(integer)(v) for v in value)
        return (start, end, 1 if step is None else step)
    return value if value is None or value in ("...", "tensor") else integer(value)


def _attribute(name: str, default: Any = REQUIRED, check: Callable[[Any], Any] = integer) -> Attribute:
    return Attribute(name=name, default=default, check=check)


def _examples(*calls: tuple[Any, dict[str, Any]], layout: str = "contiguous") -> tuple[Example, ...]:
    return tuple(
        Example(shapes=shape if shape and isinstance(shape[0], tuple | list) else (shape,), attributes=a, layout=layout)
        for shape, a in calls
    )


def _row(
    name: str,
    forward: Any,
    backward: Any,
    attributes: tuple[Attribute, ...],
    examples: tuple[Example, ...],
    torch: str = "",
    roles: tuple[str, ...] = ("input",),
) -> Operator:
    return Operator(
        name=name,
        torch=torch or f"torch.{name}",
        roles=roles,
        attributes=attributes,
        forward=forward,
        saves=(),
        backward=backward,
        examples=examples,
        source=f"derivatives.yaml: {name}; {SHAPES}",
    )


def _composite(
    name: str,
    compose: Any,
    attributes: tuple[Attribute, ...],
    examples: tuple[Example, ...],
    torch: str = "",
    roles: tuple[str, ...] = ("input",),
) -> Composite:
    return Composite(
        name=name, torch=torch or f"torch.{name}", roles=roles, attributes=attributes, compose=compose, examples=examples, source=SHAPES
    )


DIM = _attribute("dim")
SHAPE = _attribute("shape", check=integers)
BCHW = (2, 3, 4, 5)
ROWS = (
    _row(
        "view",
        _view,
        _view_backward,
        (SHAPE,),
        _examples((BCHW, {"shape": (6, -1)}), (BCHW, {"shape": (2, 3, 20)})),
        "validation.adapters.view",
    ),
    _row(
        "permute",
        _permute,
        _permute_backward,
        (_attribute("dims", check=integers),),
        _examples((BCHW, {"dims": (0, 2, 3, 1)}), ((2, 3), {"dims": (-1, 0)})),
    ),
    _row(
        "transpose",
        _transpose,
        _transpose_backward,
        (_attribute("dim0"), _attribute("dim1")),
        _examples((BCHW, {"dim0": 1, "dim1": -1}), ((2, 3), {"dim0": 0, "dim1": 1})),
    ),
    _row("t", _t, _t_backward, (), _examples(((2, 3), {}), ((3,), {}))),
    _row(
        "squeeze",
        _squeeze,
        _squeeze_backward,
        (_attribute("dim", None, dim_or_dims),),
        _examples(((2, 1, 3, 1), {"dim": 1}), ((2, 1, 3, 1), {"dim": (1, -1)}), ((2, 3), {"dim": 0})),
    ),
    _row("unsqueeze", _unsqueeze, _unsqueeze_backward, (DIM,), _examples(((2, 3), {"dim": -1}), ((2, 3), {"dim": 1}))),
    _row(
        "expand",
        _expand,
        _expand_backward,
        (_attribute("size", check=integers),),
        _examples(((2, 3, 1, 1), {"size": (-1, -1, 4, 5)}), ((2, 3), {"size": (4, 2, 3)})),
        "validation.adapters.expand",
    ),
    _row("select", _select, _zeros_of, (DIM, _attribute("index")), _examples((BCHW, {"dim": 1, "index": -1}))),
    _row(
        "slice",
        _slice,
        _zeros_of,
        (
            _attribute("dim", 0),
            _attribute("start", None, optional(integer)),
            _attribute("end", None, optional(integer)),
            _attribute("step", 1),
        ),
        _examples((BCHW, {"dim": 1, "start": 1}), (BCHW, {"dim": -1, "step": 2}), (BCHW, {"dim": 2, "start": -3, "end": -1})),
        "torch.ops.aten.slice",
    ),
    _row(
        "split",
        _split,
        _split_backward,
        (_attribute("split_size_or_sections", check=dim_or_dims), _attribute("dim", 0)),
        _examples((BCHW, {"split_size_or_sections": 2, "dim": 1}), (BCHW, {"split_size_or_sections": (1, 3), "dim": 2})),
    ),
    _row("unbind", _unbind, _unbind_backward, (_attribute("dim", 0),), _examples((BCHW, {"dim": 1}), ((1, 3), {}))),
    _row("detach", _detach, None, (), _examples((BCHW, {}))),
    _row("alias", _detach, _alias_backward, (), _examples((BCHW, {})), "torch.ops.aten.alias"),
    _row(
        "tensor_unfold",
        _unfold,
        _unfold_backward,
        (_attribute("dimension"), _attribute("size"), _attribute("step")),
        _examples((BCHW, {"dimension": 2, "size": 2, "step": 1}), (BCHW, {"dimension": 3, "size": 2, "step": 2})),
        "torch.Tensor.unfold",
    ),
)
COMPOSITE_ROWS = (
    _composite(
        "reshape",
        _reshape,
        (SHAPE,),
        (*_examples((BCHW, {"shape": (6, 20)})), *_examples((BCHW, {"shape": (-1, 12)}), layout="channels_last")),
    ),
    _composite(
        "flatten",
        _flatten,
        (_attribute("start_dim", 0), _attribute("end_dim", -1)),
        (*_examples((BCHW, {"start_dim": 1}), (BCHW, {})), *_examples((BCHW, {"start_dim": 1}), layout="channels_last")),
    ),
    _composite(
        "unflatten",
        _unflatten,
        (DIM, _attribute("sizes", check=integers)),
        _examples(((2, 6), {"dim": 1, "sizes": (2, -1)})),
        "torch.Tensor.unflatten",
    ),
    _composite("view_as", _view_as, (), _examples((((2, 6), (3, 4)), {})), "torch.Tensor.view_as", ("input", "other")),
    _composite("reshape_as", _reshape_as, (), _examples((((2, 6), (3, 4)), {})), "torch.Tensor.reshape_as", ("input", "other")),
    _composite("expand_as", _expand_as, (), _examples((((2, 1), (2, 4)), {})), "torch.Tensor.expand_as", ("input", "other")),
    _composite("swapaxes", _swapaxes, (_attribute("axis0"), _attribute("axis1")), _examples((BCHW, {"axis0": 0, "axis1": 1}))),
    _composite(
        "movedim",
        _movedim,
        (_attribute("source", check=dim_or_dims), _attribute("destination", check=dim_or_dims)),
        _examples((BCHW, {"source": 1, "destination": -1}), (BCHW, {"source": (0, 1), "destination": (1, 0)})),
    ),
    _composite("narrow", _narrow, (DIM, _attribute("start"), _attribute("length")), _examples((BCHW, {"dim": 1, "start": 1, "length": 2}))),
    _composite(
        "chunk",
        _chunk,
        (_attribute("chunks"), _attribute("dim", 0)),
        _examples((BCHW, {"chunks": 2, "dim": 1}), (BCHW, {"chunks": 3, "dim": 2})),
    ),
    _composite(
        "getitem",
        _getitem,
        (_attribute("index", check=index_entries),),
        (
            Example(shapes=(BCHW, []), attributes={"index": (0, "...", (1, None, 2))}),
            Example(shapes=(BCHW, []), attributes={"index": ((None, None, 1), None, (0, 2, 1))}),
            Example(shapes=(BCHW, [(3,)]), attributes={"index": ((None, None, 1), "tensor")}, dtypes=("float32", "int64")),
        ),
        "validation.adapters.getitem",
        ("input", "indices*"),
    ),
)
