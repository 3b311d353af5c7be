"""Distances between the rows of two tensors (``cdist``): element by element, or, euclidean ones between many rows, by a product.

Source: aten/src/ATen/native/Distance.cpp.
"""

from __future__ import annotations

from math import prod
from typing import Any

from memest.errors import ShapeError
from memest.network.dtypes import HALVES
from memest.network.tensor import Shape, broadcast
from memest.ops.aten.copies import cat, contiguous
from memest.ops.aten.gemm import batched_product, mm, transpose
from memest.ops.aten.iterator import elementwise, incoming, refuse_dtypes, with_number
from memest.ops.aten.reductions import sum_into
from memest.ops.aten.views import expanded, reshaped, unsqueezed
from memest.ops.composite import Caller
from memest.ops.facts import EVERYWHERE_CALLS, EVERYWHERE_FACTS, FLOAT32, Attributes
from memest.ops.operator import choice, number
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import attribute, calls, composite, row

Saved = dict[str, Any]
Grads = list[Tensor | None]
MANY_ROWS = 25
MODES = ("use_mm_for_euclid_dist_if_necessary", "use_mm_for_euclid_dist", "donot_use_mm_for_euclid_dist")


def _batch(x1: Any, x2: Any) -> Shape:
    if len(x1.shape) < 2 or len(x2.shape) < 2 or x1.shape[-1] != x2.shape[-1]:
        raise ShapeError(f"cdist of rows of {list(x1.shape)} and {list(x2.shape)}")
    try:
        return broadcast(x1.shape[:-2], x2.shape[:-2])
    except ValueError as e:
        raise ShapeError(str(e)) from None


def _cdist(c: Caller, x1: Any, x2: Any, *, p: float, compute_mode: str) -> Any:
    batch = _batch(x1, x2)
    (rows, width), others = x1.shape[-2:], x2.shape[-2]
    many = MODES.index(compute_mode) == 0 and (rows > MANY_ROWS or others > MANY_ROWS)
    if p != 2 or not (many or MODES.index(compute_mode) == 1):
        return c.call("_cdist_forward", x1, x2, p=float(p))
    one, two = (
        c.call("view", c.call("contiguous", c.call("expand", t, size=(*batch, n, width))), shape=(prod(batch), n, width))
        for t, n in ((x1, rows), (x2, others))
    )
    far = c.call("_euclidean_dist", x1, x2) if prod(batch) == 1 else c.call("_euclidean_dist", one, two)
    return c.call("view", far, shape=(*batch, rows, others))


# element by element ----------------------------------------------------------------------------------------------------


def _forward(k: Tape, x1: Tensor, x2: Tensor, *, p: float) -> Tensor:
    refuse_dtypes("cdist", x1, HALVES)
    batch = _batch(x1, x2)
    k.save(x1=x1, x2=x2)
    copies = _spread(k, x1, x2)
    out = k.empty((*batch, x1.shape[-2], x2.shape[-2]), x1.dtype)
    k.free(*copies)
    k.save(result=out)
    return out


def _spread(k: Tape, x1: Tensor, x2: Tensor) -> list[Tensor]:
    """Copies of what is repeated along the batch, or does not lie row by row."""
    batch = _batch(x1, x2)
    made = [contiguous(k, expanded(k, t, (*batch, *t.shape[-2:]))) for t in (x1, x2)]
    return [t for t, given in zip(made, (x1, x2), strict=True) if t.slot != given.slot]


def _backward(k: Tape, saved: Saved, grads: Grads, *, p: float) -> Grads:
    """The same kernel for both sides, for the second one with gradient and distances transposed."""
    grad, x1, x2, result = incoming(grads), saved["x1"], saved["x2"], saved["result"]
    out: Grads = [None, None]
    if k.needs[0]:
        dense = contiguous(k, grad)
        out[0] = _one_side(k, x1, x2)
        k.free(None if dense is grad else dense)
    if k.needs[1]:
        turned = [contiguous(k, transpose(k, t, t.ndim - 2, t.ndim - 1)) for t in (grad, result)]
        out[1] = _one_side(k, x2, x1)
        k.free(*[t for t in turned if t.slot not in (grad.slot, result.slot)])
    return out


def _one_side(k: Tape, x1: Tensor, x2: Tensor) -> Tensor:
    batch = _batch(x1, x2)
    copies = _spread(k, x1, x2)
    made = k.empty((prod(batch), *x1.shape[-2:]), x1.dtype)
    k.free(*copies)
    return k.alias(made, (*batch, *x1.shape[-2:]))


# by a product ----------------------------------------------------------------------------------------------------------


def _with_norms(k: Tape, t: Tensor) -> tuple[Tensor, Tensor]:
    """Squared norms of the rows, and ones."""
    squares = elementwise(k, t)
    norms = k.empty((*t.shape[:-1], 1), t.dtype)
    sum_into(k, squares, norms, (t.ndim - 1,))
    k.free(squares)
    return norms, k.empty(norms.shape, t.dtype)


def _product(k: Tape, a: Tensor, b: Tensor) -> Tensor:
    if a.ndim == 2:
        return mm(k, a, b)
    one, two = (reshaped(k, t, (prod(t.shape[:-2]), *t.shape[-2:])) for t in (a, b))
    out = batched_product(k, one, two)
    return k.alias(out, (*a.shape[:-1], b.shape[-1]))


def _euclidean(k: Tape, x1: Tensor, x2: Tensor) -> Tensor:
    """``_euclidean_dist``: rows with their norms beside them are multiplied, and the root is taken in place."""
    k.save(x1=x1, x2=x2)
    norms1, ones1 = _with_norms(k, x1)
    norms2, ones2 = _with_norms(k, x2)
    twice = with_number(k, x1, -2)
    left = cat(k, [twice, norms1, ones1], x1.ndim - 1)
    k.free(norms1, ones1, twice)
    right = cat(k, [x2, ones2, norms2], x2.ndim - 1)
    k.free(norms2, ones2)
    out = _product(k, left, transpose(k, right, right.ndim - 2, right.ndim - 1))
    k.free(right, left)
    k.save(result=out)
    return out


def _euclidean_backward(k: Tape, saved: Saved, grads: Grads) -> Grads:
    x1, x2, result = saved["x1"], saved["x2"], saved["result"]
    ratio = elementwise(k, incoming(grads), result)
    k.free(with_number(k, result, 0, dtype="bool"))
    last = ratio.ndim - 1
    first = _product(k, ratio, x2)
    sums = k.empty((*ratio.shape[:-1], 1), ratio.dtype)
    sum_into(k, ratio, sums, (last,))
    one = elementwise(k, elementwise(k, x1, sums), first)
    second = _product(k, transpose(k, ratio, last - 1, last), x1)
    other = k.empty((*ratio.shape[:-2], ratio.shape[-1]), ratio.dtype)
    sum_into(k, ratio, other, (last - 1,))
    two = elementwise(k, elementwise(k, x2, unsqueezed(k, other, other.ndim)), second)
    return [one, two]


def _flops(inputs: Any, made: Any, given: Attributes) -> int:
    """The product of rows with two columns more."""
    (*_, rows, width), (*_, others, _) = inputs[:2]
    product: int = 2 * prod(inputs[0][:-2]) * rows * others * (width + 2)
    return product


SOURCE = "derivatives.yaml: {}; aten/src/ATen/native/Distance.cpp"
SOME = (((4, 6, 3), (4, 7, 3)), ((1, 6, 3), (4, 7, 3)), ((6, 3), (7, 3)))
MANY = (((30, 3), (40, 3)), ((2, 3, 30, 3), (2, 3, 8, 3)), ((30, 3), (5, 8, 3)))
ROWS = (
    row(
        "_cdist_forward",
        _forward,
        _backward,
        (attribute("p", check=number),),
        (*calls(*((s, {"p": p}) for s in SOME for p in (2.0, 1.0))), *calls((SOME[0], {"p": 3.0}), layout="transposed")),
        SOURCE,
        facts=EVERYWHERE_FACTS,
        roles=("x1", "x2"),
        saves=("x1", "x2", "result"),
        torch="torch.cdist",
        oracle="cdist_forward",
    ),
    row(
        "_euclidean_dist",
        _euclidean,
        _euclidean_backward,
        (),
        calls((((30, 3), (40, 3)), {}), (((2, 30, 3), (2, 40, 3)), {})),
        SOURCE,
        facts=EVERYWHERE_FACTS.but(flops=_flops),
        roles=("x1", "x2"),
        saves=("x1", "x2", "result"),
        torch="torch.cdist",
        oracle="euclidean_dist",
    ),
)
COMPOSITE_ROWS = (
    composite(
        "cdist",
        _cdist,
        (attribute("p", 2.0, number), attribute("compute_mode", MODES[0], choice(*MODES))),
        calls(*((s, {}) for s in (*SOME, *MANY)), (SOME[0], {"p": float("inf")}), (SOME[2], {"compute_mode": MODES[1]})),
        "aten/src/ATen/native/Distance.cpp",
        facts=EVERYWHERE_CALLS.but(autocast=FLOAT32),
        roles=("x1", "x2"),
    ),
)
