"""Bags of embedded numbers: rows of a table, summed, averaged or compared bag by bag; and bilinear forms.

Source: aten/src/ATen/native/EmbeddingBag.cpp (``_embedding_bag_cpu_impl_out``, ``make_bag_size_out``, ``make_offset2bag_out``,
``_embedding_bag_dense_backward_cpu_sum_mean``), Linear.cpp (``_trilinear``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memest.errors import ShapeError, UnsupportedError
from memest.network.dtypes import HALVES
from memest.ops.aten.iterator import incoming, wants, with_number_
from memest.ops.aten.places import refuse_on_cuda
from memest.ops.composite import Caller
from memest.ops.composite import refuse_on_cuda as refuse_calls
from memest.ops.facts import EVERYWHERE_CALLS, EVERYWHERE_FACTS, REFUSED
from memest.ops.operator import Example, choice, flag, integer, optional
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import FUNCTIONAL, attribute, composite, row
from memest.sizes.dims import plain

Saved = dict[str, Any]
Grads = Sequence[Tensor | None]


def _bags_of(k: Tape, count: int, offsets: Tensor) -> Tensor:
    """To which bag each number belongs: running sums of ones where a bag begins."""
    marks = k.empty((count + 1,), offsets.dtype)
    k.free(k.empty(offsets.shape, offsets.dtype))
    with_number_(k, marks, 1)
    out = k.empty(marks.shape, offsets.dtype)
    k.free(marks)
    return out


def _embedding_bag(
    k: Tape,
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    per_sample_weights: Tensor | None,
    *,
    mode: str,
    scale_grad_by_freq: bool,
    sparse: bool,
    include_last_offset: bool,
    padding_idx: int | None,
    forward_only: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sums go straight into the result; others look up the bags first, and give them, how large each is, and where the greatest were."""
    refuse_on_cuda(k)
    if weight.dtype != "float32" or weight.ndim != 2 or weight.strides[1] != 1:
        raise UnsupportedError("embedding_bag is modelled for tables of float32 that lie row by row")
    if indices.ndim != 1 or offsets.ndim != 1 or indices.dtype != offsets.dtype:
        raise ShapeError(
            f"embedding_bag of indices {list(indices.shape)} and offsets {list(offsets.shape)}: vectors of one dtype are needed"
        )
    if k.grad_enabled and (sparse or scale_grad_by_freq or mode == "max"):
        raise UnsupportedError("the gradient of embedding_bag is modelled for sums and means, dense and not scaled by frequency")
    count = offsets.shape[0] - 1 if include_last_offset else offsets.shape[0]
    k.save(indices=indices, offsets=offsets, per_sample_weights=per_sample_weights, weight=weight if wants(k, 3) else None)
    out = k.empty((count, weight.shape[1]), weight.dtype)
    looked_up = mode != "sum" or padding_idx is not None
    bags = k.alias(_bags_of(k, indices.shape[0], offsets), indices.shape) if looked_up else k.empty((0,), offsets.dtype)
    sizes = k.alias(k.empty(offsets.shape, offsets.dtype), (count,))
    if not (forward_only and mode == "sum"):
        if count != 1:
            k.free(k.empty((count - 1,), offsets.dtype))
        k.free(k.empty((), offsets.dtype))
    places = k.empty((count,), offsets.dtype)
    if mode == "mean":
        ones, most = k.empty((count,), offsets.dtype), k.empty((count,), offsets.dtype)
        k.free(k.empty((count,), weight.dtype), most, ones)
    if mode == "max":
        most_of_each = k.empty((count, weight.shape[1]), offsets.dtype)
        k.free(places)
        places = most_of_each
    k.save(bags=bags, sizes=sizes, places=places)
    k.note(rows=weight.shape[0], columns=weight.shape[1], looked_up=looked_up)
    return out, bags, sizes, places


def _embedding_bag_backward(k: Tape, saved: Saved, grads: Grads, **attributes: Any) -> list[Tensor | None]:
    """A table of zeros to which rows are added, numbers sorted first; before it, the gradient of each number's own weight."""
    grad, indices, offsets = incoming(grads[:1]), saved["indices"], saved["offsets"]
    count = indices.shape[0]
    own = None
    if wants(k, 3):
        own = k.empty((count,), grad.dtype)
        if not saved["looked_up"]:
            k.free(_bags_of(k, count, offsets))
    table = None
    if k.needs[0]:
        bags = None if saved["looked_up"] else _bags_of(k, count, offsets)
        table = k.empty((saved["rows"], saved["columns"]), grad.dtype)
        ordered, order = k.empty((count,), indices.dtype), k.empty((count,), "int64")
        k.free(k.empty((count,), "int64"))
        chosen = k.empty((count,), indices.dtype)
        weights = k.empty((count,), grad.dtype) if "per_sample_weights" in saved else None
        k.free(weights, chosen, ordered, order, bags)
    return [table, None, None, own][: len(k.needs)]


def _bag(c: Caller, weight: Any, indices: Any, offsets: Any, per_sample_weights: Any, **given: Any) -> Any:
    """A table that requires a gradient, also where none is taken, gets what its gradient needs."""
    refuse_calls(c, "embedding_bag")
    made = [None if t is None else c.call("contiguous", t) for t in (indices, offsets, per_sample_weights)]
    out = c.call("_embedding_bag", weight, *made, **given, forward_only=not weight.says_grad)
    c.drop(*(t for t in made if t is not None))
    return out


def _looped(k: Tape, times: int, *parts: tuple[tuple[int, ...], str]) -> None:
    """So many times (as many as here, which is compared): tensors made one after the other, and dropped."""
    count = plain(times)
    if times != count:
        raise UnsupportedError("bilinear of a number of features that varies has no rule")
    since = k.mark()
    made = [k.empty(shape, dtype) for shape, dtype in parts]
    k.free(*made)
    k.again(since, count - 1)


def _trilinear(k: Tape, input1: Tensor, input2: Tensor, weight: Tensor) -> Tensor:
    """One output feature after the other."""
    if input1.dtype in HALVES:
        raise UnsupportedError(f"bilinear in {input1.dtype} has no rule: its products of halves were not held against torch; take float32")
    refuse_on_cuda(k)
    (n, one), (_, two), (features, *sizes) = input1.shape, input2.shape, weight.shape
    if tuple(sizes) != (one, two) or input2.shape[0] != n:
        raise ShapeError(f"bilinear of inputs {list(input1.shape)} and {list(input2.shape)} by a weight {list(weight.shape)}")
    k.save(input1=input1, weight=weight, input2=input2)
    out = k.empty((n, features), input1.dtype)
    _looped(k, features, ((n, two), input1.dtype), ((n,), input1.dtype))
    return out


def _trilinear_backward(k: Tape, saved: Saved, grads: Grads) -> list[Tensor | None]:
    """That of the first input, of the weight, and of the second input."""
    grad, weight = incoming(grads), saved["weight"]
    (features, one, two), n, dtype = weight.shape, grad.shape[0], grad.dtype
    first = matrix = second = None
    if k.needs[0]:
        first = k.empty((n, one), dtype)
        _looped(k, features, ((n, one, two), dtype), ((n, one), dtype))
    if wants(k, 2):
        matrix = k.empty(weight.shape, dtype)
        _looped(k, features, ((n, one), dtype), ((one, two), dtype))
    if wants(k, 1):
        second = k.empty((n, two), dtype)
        _looped(k, features, ((n, two), dtype), ((n, two), dtype))
    return [first, second, matrix]


def _bilinear(c: Caller, input1: Any, input2: Any, weight: Any, bias: Any) -> Any:
    """Rows of both, whatever their dims."""
    lead = input1.shape[:-1]
    flat = [c.call("reshape", t, shape=(-1, t.shape[-1])) for t in (input1, input2)]
    product = c.call("_trilinear", *flat, weight)
    out = c.call("reshape", product, shape=(*lead, weight.shape[0]))
    c.drop(*flat, product)
    return out if bias is None else c.call("add", out, bias)


SETTINGS = (
    attribute("mode", "sum", choice("sum", "mean", "max")),
    *(attribute(name, False, flag) for name in ("scale_grad_by_freq", "sparse", "include_last_offset")),
    attribute("padding_idx", None, optional(integer)),
)
BAG = (("float32", "int64", "int64", "float32"), ("float32", "int32", "int32", "float32"))
MODES = ({"mode": "sum"}, {"mode": "mean"}, {"mode": "sum", "padding_idx": 1}, {"mode": "sum", "include_last_offset": True})
ROWS = (
    row(
        "_embedding_bag",
        _embedding_bag,
        _embedding_bag_backward,
        (*SETTINGS, attribute("forward_only", False, flag)),
        (
            *(Example(shapes=((30, 8), (12,), (4,), None), attributes=m, dtypes=d) for m in MODES for d in BAG),
            Example(shapes=((30, 8), (12,), (1,), None), attributes={"mode": "sum"}, dtypes=BAG[0]),
            Example(shapes=((30, 8), (12,), (4,), (12,)), attributes={"mode": "sum"}, dtypes=BAG[0]),
        ),
        "derivatives.yaml: {}; aten/src/ATen/native/EmbeddingBag.cpp",
        facts=EVERYWHERE_FACTS,
        roles=("weight", "indices", "offsets", "per_sample_weights?"),
        saves=("weight", "indices", "offsets", "per_sample_weights", "bags", "sizes", "places"),
        oracle="embedding_bag",
    ),
    row(
        "_trilinear",
        _trilinear,
        _trilinear_backward,
        (),
        (
            Example(shapes=((5, 4), (5, 3), (6, 4, 3)), attributes={}),
            Example(shapes=((70, 40), (70, 30), (20, 40, 30)), attributes={}),
            Example(shapes=((5, 4), (5, 3), (6, 4, 3)), attributes={}, frozen=(0,)),
        ),
        "derivatives.yaml: {}; aten/src/ATen/native/Linear.cpp",
        facts=EVERYWHERE_FACTS.but(autocast=REFUSED),
        roles=("input1", "input2", "weight"),
        saves=("input1", "input2", "weight"),
        oracle="trilinear",
    ),
)
COMPOSITE_ROWS = (
    composite(
        "embedding_bag",
        _bag,
        SETTINGS,
        tuple(
            Example(shapes=((30, 8), (12,), (4,), None), attributes={"mode": mode}, dtypes=BAG[0], frozen=frozen)
            for mode in ("sum", "mean", "max")
            for frozen in ((), (0,))[mode == "max" :]
        ),
        "aten/src/ATen/native/EmbeddingBag.cpp",
        facts=EVERYWHERE_CALLS,
        roles=("weight", "indices", "offsets", "per_sample_weights?"),
        oracle="embedding_bag",
    ),
    composite(
        "bilinear",
        _bilinear,
        (),
        (
            Example(shapes=((5, 4), (5, 3), (6, 4, 3), (6,)), attributes={}),
            Example(shapes=((2, 5, 4), (2, 5, 3), (6, 4, 3), None), attributes={}),
        ),
        "aten/src/ATen/native/Linear.cpp",
        facts=EVERYWHERE_CALLS,
        roles=("input1", "input2", "weight", "bias?"),
        torch=FUNCTIONAL,
    ),
)
