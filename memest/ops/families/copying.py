"""Copies: the same values in new storage, in another order, format or type, or several tensors in one."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from memest.errors import ShapeError
from memest.network.dtypes import check_dtype
from memest.network.tensor import Shape, Spec, channels_last_strides, contiguous_strides, is_channels_last, is_contiguous
from memest.ops.aten.copies import cat, contiguous, copy_into, suggests_channels_last
from memest.ops.aten.iterator import empty_like, incoming, on_host, preserved_strides, scalar
from memest.ops.aten.reductions import reduced_shape, sum_into
from memest.ops.aten.views import dim_or_dims, reshaped, stacked, wrapped
from memest.ops.composite import Caller
from memest.ops.facts import (
    ALONG_DIM_CALLS,
    ALONG_DIM_FACTS,
    EVERYWHERE_CALLS,
    EVERYWHERE_FACTS,
    POINTWISE_CALLS,
    POINTWISE_FACTS,
    PROMOTE,
    along,
)
from memest.ops.operator import REQUIRED, Attribute, Example, choice, flag, integer, integers, optional
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import DERIVED, NATIVE, composite, row

Saved = dict[str, Any]
Grads = Sequence[Tensor | None]
FORMATS = ("preserve_format", "contiguous_format", "channels_last", "channels_last_3d")


def formatted_strides(t: Tensor, memory_format: str) -> Shape:
    """Those of a copy of ``t`` in that format."""
    if memory_format == "preserve_format":
        return preserved_strides(t)
    if memory_format == "contiguous_format":
        return contiguous_strides(t.shape)
    if t.ndim != (4 if memory_format == "channels_last" else 5):
        raise ShapeError(f"{memory_format} does not fit {t.ndim} dimensions")
    return channels_last_strides(t.shape)


def _lies(spec: Spec, memory_format: str) -> bool:
    """``is_contiguous(memory_format)``."""
    if memory_format.startswith("channels_last"):
        return is_channels_last(spec.shape, spec.strides)
    return is_contiguous(spec.shape, spec.strides)


def _clone(k: Tape, input: Tensor, *, memory_format: str) -> Tensor:
    out = k.empty(input.shape, input.dtype, formatted_strides(input, memory_format))
    copy_into(k, input, out)
    return out


def _unchanged(k: Tape, saved: Saved, grads: Grads, **attributes: Any) -> list[Tensor | None]:
    return [incoming(grads)]


def _contiguous(c: Caller, input: Any, *, memory_format: str) -> Any:
    return input if _lies(input.spec, memory_format) else c.call("clone", input, memory_format=memory_format)


def _to_copy(k: Tape, input: Tensor, *, dtype: str | None, memory_format: str) -> Tensor:
    k.note(dtype=input.dtype)
    return k.empty(input.shape, dtype or input.dtype, formatted_strides(input, memory_format))


def _to_copy_backward(k: Tape, saved: Saved, grads: Grads, *, dtype: str | None, memory_format: str) -> list[Tensor | None]:
    grad = incoming(grads)
    return [grad if grad.dtype == saved["dtype"] else empty_like(k, grad, saved["dtype"])]


def _to(c: Caller, input: Any, other: Any = None, *, dtype: str | None, memory_format: str, copy: bool) -> Any:
    """With ``other`` the dtype is its one."""
    spec = input.spec
    dtype = dtype if other is None else other.spec.dtype
    as_wanted = memory_format == "preserve_format" or _suggested(spec) == memory_format
    if not copy and as_wanted and dtype in (None, spec.dtype):
        return input
    return c.call("_to_copy", input, dtype=dtype, memory_format=memory_format)


def _to_device(
    c: Caller, input: Any, other: Any = None, *, device: str, dtype: str | None, memory_format: str, copy: bool, non_blocking: bool
) -> Any:
    """Where there is one device: what else is asked for."""
    return _to(c, input, other, dtype=dtype, memory_format=memory_format, copy=copy)


def _copy_across(c: Caller, input: Any, src: Any, *, device: str, non_blocking: bool) -> Any:
    """Where there is one device: a copy."""
    return c.call("copy_", input, src)


def _suggested(spec: Spec) -> str:
    if not suggests_channels_last(Tensor(*spec, 0)):
        return "contiguous_format"
    return "channels_last" if len(spec.shape) == 4 else "channels_last_3d"


def _cat(k: Tape, tensors: list[Tensor], *, dim: int) -> Tensor:
    if not tensors:
        raise ShapeError("cat of no tensors")
    k.note(sizes=tuple(t.shape for t in tensors))
    return cat(k, tensors, _cat_dim(dim, [t.shape for t in tensors]))


def _cat_dim(dim: int, sizes: Sequence[Shape]) -> int:
    return wrapped(dim, len(next((s for s in sizes if s != (0,)), sizes[0])))


def _cat_backward(k: Tape, saved: Saved, grads: Grads, *, dim: int) -> list[Tensor | None]:
    """Each operand gets its part of the gradient, a view (which the engine casts where its dtype is another)."""
    grad = incoming(grads)
    return [
        k.view(grad, shape, grad.strides if len(shape) == grad.ndim else None) if needed else None
        for needed, shape in zip(k.needs, saved["sizes"], strict=True)
    ]


def _stack(k: Tape, tensors: list[Tensor], *, dim: int) -> Tensor:
    if not tensors or any(t.shape != tensors[0].shape for t in tensors):
        raise ShapeError(f"stack needs tensors of one shape, got {[list(t.shape) for t in tensors]}")
    d = wrapped(dim, tensors[0].ndim + 1)
    k.note(types=tuple(t.dtype for t in tensors))
    return stacked(k, tensors, d)


def _stack_backward(k: Tape, saved: Saved, grads: Grads, *, dim: int) -> list[Tensor | None]:
    grad = incoming(grads)
    d = wrapped(dim, grad.ndim)
    shape, strides = (*grad.shape[:d], *grad.shape[d + 1 :]), (*grad.strides[:d], *grad.strides[d + 1 :])
    parts = [k.view(grad, shape, strides) for _ in k.needs]
    return [p if p.dtype == dtype else empty_like(k, p, dtype) for p, dtype in zip(parts, saved["types"], strict=True)]


def _repeat(k: Tape, input: Tensor, *, repeats: Shape) -> Tensor:
    lead = len(repeats) - input.ndim
    if lead < 0:
        raise ShapeError(f"{len(repeats)} repeats for a tensor of {input.ndim} dimensions")
    k.note(sizes=input.shape)
    padded = (1,) * lead + input.shape
    out = k.empty([n * r for n, r in zip(padded, repeats, strict=True)], input.dtype)
    if 0 not in repeats and k.target.version >= (2, 10):
        _interleaving(k, len(repeats))
    return out


def _interleaving(k: Tape, ndim: int) -> None:
    """The order of dims in which the copy is made, worked out with small tensors (up to 2.9 the result is unfolded instead)."""
    first = on_host(k, (ndim,), "int64")
    number = scalar(k, 1)
    second = on_host(k, (ndim,), "int64")
    k.free(number)
    order = on_host(k, (2 * ndim,), "int64")
    k.free(first, second, order)


def _summed(k: Tape, t: Tensor, dims: Sequence[int]) -> Tensor:
    out = k.empty(reduced_shape(t.shape, dims, False), t.dtype)
    sum_into(k, t, out, dims)
    return out


def _repeat_backward(k: Tape, saved: Saved, grads: Grads, *, repeats: Shape) -> list[Tensor | None]:
    """repeat_backward: new leading dims are summed one by one, repeats inside at once."""
    grad, sizes = incoming(grads), saved["sizes"]
    if 0 in repeats:
        return [k.empty(sizes, grad.dtype)]
    lead = grad.ndim - len(sizes)
    for _ in range(lead):
        made = _summed(k, grad, (0,))
        k.free(grad)
        grad = made
    shape: list[int] = []
    dims: list[int] = []
    for n, r in zip(sizes, repeats[lead:], strict=True):
        if r != 1:
            dims.append(len(shape))
            shape.append(r)
        shape.append(n)
    return [_summed(k, reshaped(k, grad, tuple(shape)), dims) if dims else grad]


def _tile(c: Caller, input: Any, *, dims: Shape) -> Any:
    missing = len(input.shape) - len(dims)
    return c.call("repeat", input, repeats=(1,) * missing + dims)


def _repeat_interleave(c: Caller, input: Any, *, repeats: int, dim: int | None) -> Any:
    source = c.call("flatten", input) if dim is None else input
    d = wrapped(0 if dim is None else dim, len(source.shape))
    wide = c.call("unsqueeze", source, dim=d + 1)
    shape = (*wide.shape[: d + 1], repeats, *wide.shape[d + 2 :])
    copied = c.call("clone", c.call("expand", wide, size=shape), memory_format="contiguous_format")
    return c.call("flatten", copied, start_dim=d, end_dim=d + 1)


def _rolled(k: Tape, t: Tensor, shifts: Shape, dims: Shape) -> Tensor:
    for shift, dim in zip(shifts, dims, strict=True):
        if t.numel == 0:
            t = empty_like(k, t)
            continue
        d = wrapped(dim, t.ndim)
        start = -shift % t.shape[d]
        parts = [(*t.shape[:d], n, *t.shape[d + 1 :]) for n in (t.shape[d] - start, start)]
        t = cat(k, [k.view(t, p, t.strides) for p in parts], d)
    return t


def _roll(k: Tape, input: Tensor, *, shifts: Any, dims: Any) -> Tensor:
    amounts, at = roll_lists(shifts, dims)
    if at:
        return _rolled(k, input, amounts, at)
    if len(amounts) != 1:
        raise ShapeError("roll without dims takes one shift")
    return _rolled_flat(k, input, amounts)


def _rolled_flat(k: Tape, t: Tensor, shifts: Shape) -> Tensor:
    dense = contiguous(k, t)
    return k.view(_rolled(k, k.view(dense, (t.numel,)), shifts, (0,)), t.shape)


def roll_lists(shifts: Any, dims: Any) -> tuple[Shape, Shape]:
    """Shifts and dims as lists; ShapeError where they are not equally many."""
    amounts = (shifts,) if isinstance(shifts, int) else tuple(shifts)
    at = () if dims is None else (dims,) if isinstance(dims, int) else tuple(dims)
    if at and len(at) != len(amounts):
        raise ShapeError(f"{len(amounts)} shifts for {len(at)} dims")
    return amounts, at


def _roll_backward(k: Tape, saved: Saved, grads: Grads, *, shifts: Any, dims: Any) -> list[Tensor | None]:
    amounts, at = roll_lists(shifts, dims)
    back = tuple(-s for s in reversed(amounts))
    grad = incoming(grads)
    return [_rolled(k, grad, back, tuple(reversed(at))) if at else _rolled_flat(k, grad, back)]


def _flip(k: Tape, input: Tensor, *, dims: Shape) -> Tensor:
    for d in dims:
        wrapped(d, input.ndim)
    return empty_like(k, input)


def _flip_backward(k: Tape, saved: Saved, grads: Grads, *, dims: Shape) -> list[Tensor | None]:
    return [empty_like(k, incoming(grads))]


def _meshgrid(c: Caller, tensors: list[Any], *, indexing: str) -> Any:
    """Each vector as a view along a dim of its own, expanded to all; ``xy`` exchanges the first two dims."""
    order = list(range(len(tensors)))
    if indexing == "xy" and len(tensors) > 1:
        order[:2] = [1, 0]
    shape = tuple(prod(tensors[i].shape) for i in order)
    grids: list[Any] = [None] * len(tensors)
    for place, i in enumerate(order):
        line = c.call("view", tensors[i], shape=tuple(shape[place] if d == place else 1 for d in range(len(shape))))
        grids[i] = c.call("expand", line, size=shape)
    return tuple(grids)


def _broadcast_to(c: Caller, input: Any, *, size: Shape) -> Any:
    return c.call("expand", input, size=size)


FORMAT = Attribute(name="memory_format", default="preserve_format", check=choice(*FORMATS))
DTYPE = Attribute(name="dtype", default=None, check=optional(check_dtype))
BCHW = (2, 3, 4, 5)
TRIPLET = Example(shapes=([BCHW, (2, 1, 4, 5), BCHW],), attributes={"dim": 1})


def _calls(*attributes: dict[str, Any], layout: str = "contiguous") -> tuple[Example, ...]:
    return tuple(Example(shapes=(BCHW,), attributes=a, layout=layout) for a in attributes)


ROWS = (
    row(
        "clone",
        _clone,
        _unchanged,
        (FORMAT,),
        (*_calls({}, {"memory_format": "channels_last"}), *_calls({"memory_format": "contiguous_format"}, layout="channels_last")),
        f"{DERIVED}/TensorFactories.cpp",
        facts=POINTWISE_FACTS,
        torch="torch.clone",
        oracle="clone",
    ),
    row(
        "_to_copy",
        _to_copy,
        _to_copy_backward,
        (DTYPE, FORMAT),
        (*_calls({"dtype": "bfloat16"}), *_calls({"dtype": "float64"}, {"memory_format": "contiguous_format"}, layout="channels_last")),
        f"{DERIVED}/TensorConversions.cpp",
        facts=POINTWISE_FACTS,
        torch="torch.ops.aten._to_copy",
        oracle="to_copy",
    ),
    row(
        "cat",
        _cat,
        _cat_backward,
        (Attribute(name="dim", default=0, check=integer),),
        (
            TRIPLET,
            Example(shapes=([BCHW, BCHW],), attributes={}, layout="channels_last"),
            Example(shapes=([(3,), (4,)],), attributes={"dim": -1}),
            Example(shapes=([(2, 3, 4), (2, 5, 4)],), attributes={"dim": 1}, dtypes=("bfloat16", "float32")),
        ),
        f"{DERIVED}/TensorShape.cpp (cat_out_cpu)",
        facts=ALONG_DIM_FACTS.but(autocast=PROMOTE),
        roles=("tensors*",),
    ),
    row(
        "stack",
        _stack,
        _stack_backward,
        (Attribute(name="dim", default=0, check=integer),),
        (Example(shapes=([BCHW, BCHW],), attributes={"dim": 1}), Example(shapes=([(3,), (3,)],), attributes={"dim": -1})),
        f"{DERIVED}/TensorShape.cpp (stack)",
        facts=EVERYWHERE_FACTS.but(autocast=PROMOTE),
        roles=("tensors*",),
    ),
    row(
        "repeat",
        _repeat,
        _repeat_backward,
        (Attribute(name="repeats", default=REQUIRED, check=integers),),
        (*_calls({"repeats": (1, 2, 1, 1)}, {"repeats": (3, 1, 1, 2, 1)}), *_calls({"repeats": (1, 1, 2, 2)}, layout="channels_last")),
        f"{DERIVED}/TensorShape.cpp (repeat)",
        facts=EVERYWHERE_FACTS,
        torch="torch.Tensor.repeat",
    ),
    row(
        "roll",
        _roll,
        _roll_backward,
        (Attribute(name="shifts", default=REQUIRED, check=dim_or_dims), Attribute(name="dims", default=None, check=dim_or_dims)),
        (
            *_calls({"shifts": 1, "dims": 2}, {"shifts": (-1, 2), "dims": (2, 3)}, {"shifts": 3}),
            *_calls({"shifts": 3}, layout="channels_last"),
        ),
        f"{DERIVED}/TensorTransformations.cpp (roll_cpu)",
        facts=POINTWISE_FACTS.but(reach=along("dims")),
    ),
    row(
        "flip",
        _flip,
        _flip_backward,
        (Attribute(name="dims", default=REQUIRED, check=integers),),
        (*_calls({"dims": (2, 3)}), *_calls({"dims": (-1,)}, layout="channels_last")),
        f"{DERIVED}/TensorTransformations.cpp (flip)",
        facts=POINTWISE_FACTS.but(reach=along("dims")),
    ),
)
TO_DEVICE = composite(
    "to_device",
    _to_device,
    (
        Attribute(name="device", default=REQUIRED, check=choice("card", "host")),
        DTYPE,
        FORMAT,
        Attribute(name="copy", default=False, check=flag),
        Attribute(name="non_blocking", default=False, check=flag),
    ),
    (
        *(Example(shapes=(BCHW, None), attributes={"device": "card", **a}) for a in ({}, {"dtype": "float16"}, {"copy": True})),
        Example(shapes=(BCHW, (2, 3)), attributes={"device": "host"}, dtypes=("float32", "float64")),
    ),
    f"{NATIVE}/TensorConversions.cpp (to, type_as), cuda/Copy.cu (copy_requires_temporaries, copy_kernel_cuda)",
    facts=POINTWISE_CALLS,
    roles=("input", "other?"),
    torch="torch.Tensor.to",
    oracle="to_device",
)
COPY_ACROSS = composite(
    "copy_across_",
    _copy_across,
    (
        Attribute(name="device", default=REQUIRED, check=choice("card", "host")),
        Attribute(name="non_blocking", default=False, check=flag),
    ),
    (Example(shapes=((3, 4), (3, 4)), attributes={"device": "host"}, frozen=(0, 1)),),
    f"{NATIVE}/Copy.cpp (copy_), cuda/Copy.cu (copy_requires_temporaries, copy_kernel_cuda)",
    facts=POINTWISE_CALLS,
    roles=("input", "src"),
    torch="torch.Tensor.copy_",
    oracle="copy_across",
)
COMPOSITE_ROWS = (
    composite(
        "contiguous",
        _contiguous,
        (Attribute(name="memory_format", default="contiguous_format", check=choice(*FORMATS[1:])),),
        (*_calls({"memory_format": "channels_last"}), *_calls({}, layout="channels_last")),
        f"{NATIVE}/TensorProperties.cpp (contiguous)",
        facts=POINTWISE_CALLS,
        torch="torch.Tensor.contiguous",
        oracle="contiguous",
    ),
    composite(
        "to",
        _to,
        (DTYPE, FORMAT, Attribute(name="copy", default=False, check=flag)),
        (
            *(
                Example(shapes=(BCHW, None), attributes=a)
                for a in ({"dtype": "float16"}, {"memory_format": "channels_last"}, {"copy": True})
            ),
            Example(shapes=(BCHW, (2, 3)), attributes={}, dtypes=("float32", "float64")),
        ),
        f"{NATIVE}/TensorConversions.cpp (to, type_as)",
        facts=POINTWISE_CALLS,
        roles=("input", "other?"),
        torch="torch.Tensor.to",
        oracle="to",
    ),
    composite(
        "tile",
        _tile,
        (Attribute(name="dims", default=REQUIRED, check=integers),),
        _calls({"dims": (2, 1)}, {"dims": (2, 1, 1, 1, 1)}),
        f"{NATIVE}/TensorShape.cpp (tile)",
        facts=EVERYWHERE_CALLS,
    ),
    TO_DEVICE,
    COPY_ACROSS,
    composite(
        "repeat_interleave",
        _repeat_interleave,
        (Attribute(name="repeats", default=REQUIRED, check=integer), Attribute(name="dim", default=None, check=optional(integer))),
        (*_calls({"repeats": 2, "dim": 1}, {"repeats": 3}), *_calls({"repeats": 2, "dim": -1}, layout="channels_last")),
        f"{NATIVE}/Repeat.cpp (repeat_interleave)",
        facts=ALONG_DIM_CALLS,
    ),
    composite(
        "meshgrid",
        _meshgrid,
        (Attribute(name="indexing", default="ij", check=choice("ij", "xy")),),
        (Example(shapes=([(3,), (4,)],), attributes={}), Example(shapes=([(3,), (4,), (2,)],), attributes={"indexing": "xy"})),
        f"{NATIVE}/TensorShape.cpp (meshgrid)",
        facts=EVERYWHERE_CALLS,
        roles=("tensors*",),
        torch="torch.meshgrid",
        oracle="meshgrid",
    ),
    composite(
        "broadcast_to",
        _broadcast_to,
        (Attribute(name="size", default=REQUIRED, check=integers),),
        (Example(shapes=((2, 1),), attributes={"size": (3, 2, 4)}),),
        f"{NATIVE}/TensorShape.cpp (broadcast_to)",
        facts=EVERYWHERE_CALLS,
    ),
)
