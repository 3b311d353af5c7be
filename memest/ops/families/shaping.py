"""Views: the same storage under another shape. Forward takes no memory; backward mostly views the gradient, and allocates where a
part of a tensor was taken (its gradient is a tensor of zeros with that part filled in).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import prod
from typing import Any

from memest.errors import ShapeError, UnsupportedError
from memest.network.tensor import Shape, broadcast
from memest.ops.aten.gemm import transpose
from memest.ops.aten.iterator import incoming
from memest.ops.aten.reductions import sum_to
from memest.ops.aten.views import (
    dim_or_dims,
    expanded,
    inferred_shape,
    overlap,
    permuted,
    reshaped,
    squeezed,
    unsqueezed,
    viewed_strides,
    wrapped,
)
from memest.ops.composite import Caller, refuse_on_cuda
from memest.ops.facts import EVERYWHERE_CALLS, EVERYWHERE_FACTS, POINTWISE_FACTS
from memest.ops.operator import Example, integers
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import DERIVED, NATIVE, attribute, calls, composite, row

Saved = dict[str, Any]
Grads = Sequence[Tensor | None]


# shapes ----------------------------------------------------------------------------------------------------------------


def _view(k: Tape, input: Tensor, *, shape: Shape) -> Tensor:
    return k.view(input, *_seen_as(k, input, shape))


def _view_backward(k: Tape, saved: Saved, grads: Grads, *, shape: Shape) -> list[Tensor | None]:
    return [reshaped(k, incoming(grads), saved["sizes"])]


def _unsafe_view(k: Tape, input: Tensor, *, shape: Shape) -> Tensor:
    """A view that autograd does not count as one: its source is nobody else's."""
    return k.alias(input, *_seen_as(k, input, shape))


def _seen_as(k: Tape, input: Tensor, shape: Shape) -> tuple[Shape, Shape]:
    """The shape with its -1 filled in, and the strides under which it shows ``input``; backward goes back to the shape of now."""
    k.note(sizes=input.shape)
    wanted = inferred_shape(shape, input.numel)
    strides = viewed_strides(input.shape, input.strides, wanted)
    if strides is None:
        raise ShapeError(f"view of shape {list(wanted)} is not possible with strides {list(input.strides)}: use reshape")
    return wanted, strides


def _reshape(c: Caller, input: Any, *, shape: Shape) -> Any:
    wanted = inferred_shape(shape, prod(input.shape))
    if viewed_strides(input.shape, input.spec.strides, wanted) is not None:
        return c.call("view", input, shape=wanted)
    return c.call("_unsafe_view", c.call("clone", input, memory_format="contiguous_format"), shape=wanted)


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


def _broadcast_tensors(c: Caller, tensors: list[Any]) -> Any:
    refuse_on_cuda(c, "broadcast_tensors")
    shape = broadcast(*(t.shape for t in tensors))
    return tuple(c.call("expand", t, size=shape) for t in tensors)


# order of dims ---------------------------------------------------------------------------------------------------------


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


def _expand(k: Tape, input: Tensor, *, size: Shape) -> Tensor:
    k.note(sizes=input.shape)
    return expanded(k, input, size)


def _expand_backward(k: Tape, saved: Saved, grads: Grads, *, size: Shape) -> list[Tensor | None]:
    return [sum_to(k, incoming(grads), saved["sizes"])]


def _expand_as(c: Caller, input: Any, other: Any) -> Any:
    return c.call("expand", input, size=other.shape)


def _as_strided(k: Tape, input: Tensor, *, size: Shape, stride: Shape) -> Tensor:
    k.note(base=input.shape, strides=input.strides)
    return k.view(input, size, stride)


def _as_strided_backward(k: Tape, saved: Saved, grads: Grads, *, size: Shape, stride: Shape) -> list[Tensor | None]:
    """Zeros as large as the base's storage, the gradient copied into its places; where those overlap, added by their numbers."""
    grad = incoming(grads)
    if any(step == 0 and n != 1 for n, step in zip(size, stride, strict=True)):
        raise UnsupportedError("the gradient of as_strided with a stride of 0 has no rule: expand is modelled")
    out = k.empty(saved["base"], grad.dtype, saved["strides"])
    if overlap(size, stride):
        if k.target.on_cuda:
            raise UnsupportedError("the gradient of as_strided whose places overlap has no rule on torch-cuda")
        numbers = k.empty((out.numel,), "int64")
        flat = reshaped(k, grad, (grad.numel,))
        places = k.empty((grad.numel,), "int64")
        k.free(places, None if flat.slot == grad.slot else flat, numbers)
    return [out]


def _as_strided_in_place(k: Tape, input: Tensor, *, size: Shape, stride: Shape) -> Tensor:
    k.note(base=input.shape, strides=input.strides)
    return k.restride(input, size, stride)


# parts -----------------------------------------------------------------------------------------------------------------


def _detach(k: Tape, input: Tensor) -> Tensor:
    """No view to autograd: the tensor itself, and the graph behind it, may die."""
    return k.alias(input, input.shape, input.strides)


def _alias(k: Tape, input: Tensor) -> Tensor:
    return k.view(input, input.shape, input.strides)


def _alias_backward(k: Tape, saved: Saved, grads: Grads) -> list[Tensor | None]:
    return [incoming(grads)]


_row = partial(row, facts=EVERYWHERE_FACTS, source=f"{DERIVED}/TensorShape.cpp")
_composite = partial(composite, facts=EVERYWHERE_CALLS, source=f"{NATIVE}/TensorShape.cpp")
DIM = attribute("dim")
SHAPE = attribute("shape", check=integers)
PLACES = (attribute("size", check=integers), attribute("stride", check=integers))
STRIDED = calls(((2, 3, 1, 1), {"size": (2, 3, 1, 1), "stride": (3, 1, 3, 3)}))
BCHW = (2, 3, 4, 5)
ROWS = (
    _row(
        "view",
        _view,
        _view_backward,
        (SHAPE,),
        calls((BCHW, {"shape": (6, -1)}), (BCHW, {"shape": (2, 3, 20)})),
        torch="torch.Tensor.view",
        oracle="view",
    ),
    _row(
        "permute",
        _permute,
        _permute_backward,
        (attribute("dims", check=integers),),
        calls((BCHW, {"dims": (0, 2, 3, 1)}), ((2, 3), {"dims": (-1, 0)})),
    ),
    _row(
        "transpose",
        _transpose,
        _transpose_backward,
        (attribute("dim0"), attribute("dim1")),
        calls((BCHW, {"dim0": 1, "dim1": -1}), ((2, 3), {"dim0": 0, "dim1": 1})),
    ),
    _row("t", _t, _t_backward, (), calls(((2, 3), {}), ((3,), {}))),
    _row(
        "squeeze",
        _squeeze,
        _squeeze_backward,
        (attribute("dim", None, dim_or_dims),),
        calls(((2, 1, 3, 1), {"dim": 1}), ((2, 1, 3, 1), {"dim": (1, -1)}), ((2, 3), {"dim": 0})),
    ),
    _row("unsqueeze", _unsqueeze, _unsqueeze_backward, (DIM,), calls(((2, 3), {"dim": -1}), ((2, 3), {"dim": 1}))),
    _row(
        "expand",
        _expand,
        _expand_backward,
        (attribute("size", check=integers),),
        calls(((2, 3, 1, 1), {"size": (-1, -1, 4, 5)}), ((2, 3), {"size": (4, 2, 3)})),
        torch="torch.Tensor.expand",
        oracle="expand",
    ),
    _row(
        "_unsafe_view",
        _unsafe_view,
        _view_backward,
        (SHAPE,),
        calls(((2, 3, 4), {"shape": (6, 4)})),
        torch="torch.ops.aten._unsafe_view",
        oracle="unsafe_view",
    ),
    _row("as_strided", _as_strided, _as_strided_backward, PLACES, STRIDED),
    _row("as_strided_", _as_strided_in_place, _as_strided_backward, PLACES, STRIDED, torch="torch.Tensor.as_strided_"),
    _row("detach", _detach, None, (), calls((BCHW, {})), facts=POINTWISE_FACTS),
    _row("data", _detach, None, (), calls((BCHW, {})), facts=POINTWISE_FACTS, torch="", oracle="data"),
    _row("alias", _alias, _alias_backward, (), calls((BCHW, {})), facts=POINTWISE_FACTS, torch="torch.ops.aten.alias"),
)
COMPOSITE_ROWS = (
    composite(
        "broadcast_tensors",
        _broadcast_tensors,
        (),
        (Example(shapes=([(2, 3, 4), (3, 1), (2, 3, 4)],), attributes={}),),
        "aten/src/ATen/native/TensorShape.cpp",
        facts=EVERYWHERE_CALLS,
        roles=("tensors*",),
        oracle="broadcast_tensors",
    ),
    _composite(
        "reshape", _reshape, (SHAPE,), (*calls((BCHW, {"shape": (6, 20)})), *calls((BCHW, {"shape": (-1, 12)}), layout="channels_last"))
    ),
    _composite(
        "flatten",
        _flatten,
        (attribute("start_dim", 0), attribute("end_dim", -1)),
        (*calls((BCHW, {"start_dim": 1}), (BCHW, {})), *calls((BCHW, {"start_dim": 1}), layout="channels_last")),
    ),
    _composite(
        "unflatten",
        _unflatten,
        (DIM, attribute("sizes", check=integers)),
        calls(((2, 6), {"dim": 1, "sizes": (2, -1)})),
        torch="torch.Tensor.unflatten",
    ),
    _composite("view_as", _view_as, (), calls((((2, 6), (3, 4)), {})), roles=("input", "other"), torch="torch.Tensor.view_as"),
    _composite("reshape_as", _reshape_as, (), calls((((2, 6), (3, 4)), {})), roles=("input", "other"), torch="torch.Tensor.reshape_as"),
    _composite("expand_as", _expand_as, (), calls((((2, 1), (2, 4)), {})), roles=("input", "other"), torch="torch.Tensor.expand_as"),
    _composite("swapaxes", _swapaxes, (attribute("axis0"), attribute("axis1")), calls((BCHW, {"axis0": 0, "axis1": 1}))),
    _composite(
        "movedim",
        _movedim,
        (attribute("source", check=dim_or_dims), attribute("destination", check=dim_or_dims)),
        calls((BCHW, {"source": 1, "destination": -1}), (BCHW, {"source": (0, 1), "destination": (1, 0)})),
    ),
)
