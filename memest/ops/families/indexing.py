"""Indexing with tensors, and writing into a part of a tensor. What is kept is the index (8 bytes an element); the gradient is zeros of the
input's sizes, filled or added to at the index."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from memest.errors import ShapeError, UnsupportedError
from memest.network.dtypes import HALVES
from memest.network.tensor import Shape
from memest.ops.aten.copies import contiguous, scatter_into
from memest.ops.aten.iterator import broadcast_shape, empty_like, incoming
from memest.ops.aten.places import free_places, picked
from memest.ops.aten.reductions import sum_to
from memest.ops.aten.views import index_entries, slice_bounds, wrapped
from memest.ops.facts import ALONG_DIM_FACTS, EVERYWHERE_FACTS
from memest.ops.operator import REQUIRED, Attribute, Example, Operator, flag, integer, integers, number, optional
from memest.ops.tape import Tape, Tensor

SUMMED_ROW = 16  # elements: from there on can_use_expanded_index_path adds rows (TensorAdvancedIndexing.cpp)
Saved = dict[str, Any]
Grads = Sequence[Tensor | None]


def _index_select_backward(k: Tape, saved: Saved, grads: Grads, *, dim: int) -> list[Tensor | None]:
    """new_zeros of the input's sizes, then index_add_, which is scatter_add_ along the first and the last dim. Whole rows are added with
    one row of sums a thread."""
    grad = incoming(grads)
    out = k.empty(saved["sizes"], grad.dtype)
    if k.target.on_cuda or grad.ndim < 2 or wrapped(dim, grad.ndim) not in (0, grad.ndim - 1):
        return [out, None]
    row = prod(grad.shape[1:])
    if wrapped(dim, grad.ndim) == 0 and grad.is_contiguous and row >= SUMMED_ROW:
        if grad.dtype in HALVES:
            k.free(k.empty((k.target.cpu.threads, row), "float32"))
    else:
        scatter_into(k, out)
    return [out, None]


def _index_select(k: Tape, input: Tensor, index: Tensor, *, dim: int) -> Tensor:
    d = wrapped(dim, input.ndim)
    if index.ndim > 1:
        raise ShapeError(f"index_select needs an index of one dimension, got shape {list(index.shape)}")
    k.note(sizes=input.shape)
    k.save(index=index)
    out = k.empty((*input.shape[:d], index.numel, *input.shape[d + 1 :]), input.dtype)
    if not k.target.on_cuda:
        contiguous(k, index)
        if d == 1 and input.ndim > 1:
            contiguous(k, input)
    return out


def _index(k: Tape, input: Tensor, indices: list[Tensor], *, dims: Shape, host: bool, counts: Shape) -> Tensor:
    """Advanced indexing: ``indices`` stand at ``dims``; their common shape comes where they stand together, else in front. Those that lie
    on the ``host`` beside an input of a card's are copied to it for the call. A mask stands at as many dims as it has, and picks as many
    elements as ``counts`` says, mask by mask."""
    if len(indices) != len(dims):
        raise ShapeError(f"{len(indices)} indices at {len(dims)} dims")
    k.save(**{f"index{i}": t for i, t in enumerate(indices)})
    k.note(sizes=input.shape)
    return picked(k, input, indices, dims, counts, host)


def _index_backward(k: Tape, saved: Saved, grads: Grads, *, dims: Shape, host: bool, counts: Shape) -> list[Tensor | None]:
    """new_zeros of the input's sizes, then index_put_ in place, which looks up again where masks are true."""
    out = k.empty(saved["sizes"], incoming(grads).dtype)
    free_places(k, [saved[f"index{i}"] for i in range(len(dims))], counts)
    return [out, *[None] * (len(k.needs) - 1)]


def _part(k: Tape, t: Tensor, index: tuple[Any, ...]) -> Tensor:
    """The view that basic indexing gives."""
    shape: list[int] = []
    strides: list[int] = []
    at = 0
    taken = sum(1 for i in index if i is not None and i != "...")
    for entry in (*index, *(() if "..." in index else ("...",))):
        if entry is None:
            shape.append(1)
            strides.append(1)
        elif entry == "...":
            rest = t.ndim - taken
            shape.extend(t.shape[at : at + rest])
            strides.extend(t.strides[at : at + rest])
            at += rest
        elif isinstance(entry, tuple):
            _, size = slice_bounds(t.shape[at], *entry)
            shape.append(size)
            strides.append(t.strides[at] * entry[2])
            at += 1
        else:
            at += 1
    return k.view(t, shape, strides)


def _is_whole(t: Tensor, index: tuple[Any, ...]) -> bool:
    """True when nothing is left out: Python's binding then makes no view."""
    places = zip((i for i in index if i != "..."), t.shape, strict=False)
    return all(isinstance(i, tuple) and i[2] == 1 and slice_bounds(n, *i)[1] == n for i, n in places)


def _setitem(k: Tape, input: Tensor, other: Tensor | None, *, index: tuple[Any, ...], value: float | None, always_view: bool) -> Tensor:
    """``input[index] = other`` or a number: a copy into a view. A number becomes a 0-dim tensor for the call. Python makes no view of
    everything, ATen (``always_view``) does."""
    if "tensor" in index:
        raise UnsupportedError("writing at tensor indices")
    part = _part(k, input, index)
    whole = not always_view and _is_whole(input, index)
    if other is None:
        if value is None:
            raise ShapeError("needs a second tensor or a value")
        if not k.target.on_cuda:
            k.free(k.empty((), input.dtype))
    elif broadcast_shape(part, other) != part.shape:
        raise ShapeError(f"a tensor of shape {list(other.shape)} does not fit into a part of shape {list(part.shape)}")
    filled = other is not None and other.ndim == 0 and part.ndim > 0 and not k.target.on_cuda
    given = None if other is None else other.dtype
    k.note(sizes=input.shape, strides=input.strides, given=given, whole=whole, part=part.spec, filled=filled)
    return input


def _setitem_backward(
    k: Tape, saved: Saved, grads: Grads, *, index: tuple[Any, ...], value: float | None, always_view: bool
) -> list[Tensor | None]:
    """CopySlices: the gradient copied as the base lies, the part's gradient cloned for the copy's own backward, and zeroed. A number in a
    tensor of the host fills (TensorIndexing.h, ``copy_to``): its gradient is the sum."""
    grad = incoming(grads)
    if saved["whole"] and saved["filled"]:
        return [empty_like(k, grad) if k.needs[0] else None, sum_to(k, grad, ()) if k.needs[1] else None]
    if saved["whole"]:
        zeros = None
        if k.needs[0]:
            zeros = empty_like(k, grad) if saved["given"] is None else k.empty(grad.shape, grad.dtype)
        return [zeros, *[grad] * (len(k.needs) - 1)]
    whole = k.empty(saved["sizes"], grad.dtype, saved["strides"])
    part = k.empty(_part(k, whole, index).shape, grad.dtype)
    if saved["filled"]:
        zeros = empty_like(k, part) if k.needs[0] else None
        total = sum_to(k, part, ()) if k.needs[1] else None
        k.free(part, zeros)
        return [whole if k.needs[0] else None, total]
    if k.needs[0]:
        k.free(empty_like(k, part))
    if saved["given"] is None:
        return [whole]
    return [whole if k.needs[0] else None, part if k.needs[1] else None]


DIM = Attribute(name="dim", default=REQUIRED, check=integer)
BCHW = (2, 3, 4, 5)
INDEXING = "aten/src/ATen/native/TensorAdvancedIndexing.cpp"
LONG = ("float32", "int64")
ROWS = (
    Operator(
        name="index_select",
        torch="torch.index_select",
        oracle="index_select",
        roles=("input", "index"),
        attributes=(DIM,),
        forward=_index_select,
        saves=("index",),
        backward=_index_select_backward,
        examples=(
            Example(shapes=(BCHW, (6,)), attributes={"dim": 1}, dtypes=LONG),
            Example(shapes=(BCHW, (6,)), attributes={"dim": -1}, dtypes=LONG),
        ),
        facts=ALONG_DIM_FACTS,
        source=f"derivatives.yaml: index_select; {INDEXING}",
    ),
    Operator(
        name="index",
        torch="torch.Tensor.__getitem__",
        oracle="index",
        roles=("input", "indices*"),
        attributes=(
            Attribute(name="dims", default=REQUIRED, check=integers),
            Attribute(name="host", default=False, check=flag),
            Attribute(name="counts", default=(), check=integers),
        ),
        forward=_index,
        saves=("index0", "index1", "index2", "index3"),
        backward=_index_backward,
        examples=(
            Example(shapes=(BCHW, [(6,)]), attributes={"dims": (0,)}, dtypes=LONG),
            Example(shapes=(BCHW, [(6,)]), attributes={"dims": (1,)}, dtypes=LONG),
            Example(shapes=(BCHW, [(6,), (2, 1)]), attributes={"dims": (0, 2)}, dtypes=(*LONG, "int64")),
            Example(shapes=(BCHW, [(6,)] * 4), attributes={"dims": (0, 1, 2, 3)}, dtypes=(*LONG, "int64", "int64", "int64")),
            Example(shapes=(BCHW, [(3,)]), attributes={"dims": (1,), "counts": (2,)}, dtypes=("float32", "bool")),
            Example(shapes=(BCHW, [(2, 3)]), attributes={"dims": (0,), "counts": (5,)}, dtypes=("float32", "bool")),
            Example(shapes=(BCHW, [BCHW]), attributes={"dims": (0,), "counts": (7,)}, dtypes=("float32", "bool")),
            Example(shapes=(BCHW, [(2,), (4,)]), attributes={"dims": (0, 2), "counts": (1, 3)}, dtypes=("float32", "bool", "bool")),
        ),
        facts=EVERYWHERE_FACTS,
        source=f"derivatives.yaml: index.Tensor; {INDEXING}",
    ),
    Operator(
        name="setitem",
        torch="torch.Tensor.__setitem__",
        oracle="setitem",
        roles=("input", "other?"),
        attributes=(
            Attribute(name="index", default=REQUIRED, check=index_entries),
            Attribute(name="value", default=None, check=optional(number)),
            Attribute(name="always_view", default=False, check=flag),
        ),
        forward=_setitem,
        saves=(),
        backward=_setitem_backward,
        examples=(
            Example(shapes=(BCHW, (2, 1, 4, 5)), attributes={"index": ((None, None, 1), (1, 2, 1))}, frozen=(0,)),
            Example(shapes=(BCHW, None), attributes={"index": (0,), "value": 0.0}, frozen=(0,)),
        ),
        facts=EVERYWHERE_FACTS,
        source="derivatives.yaml: copy_, fill_; torch/csrc/autograd/functions/tensor.cpp (CopySlices)",
    ),
)
COMPOSITE_ROWS = ()
