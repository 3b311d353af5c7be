"""Inverses of square matrices, and systems of linear equations: by an LU factorization, which is kept for gradients.

Source: aten/src/ATen/native/BatchLinearAlgebra.cpp (``linalg_inv_ex``, ``_linalg_solve_ex``, ``linalg_lu_solve``,
``_linalg_check_errors``).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from memest.errors import ShapeError, UnsupportedError
from memest.network.dtypes import FLOATING, HALVES
from memest.network.tensor import Shape, contiguous_strides
from memest.ops.aten.gemm import batched_product, mm, transpose
from memest.ops.aten.iterator import elementwise, incoming, refuse_dtypes, with_number
from memest.ops.aten.places import refuse_on_cuda
from memest.ops.aten.reductions import judge_into
from memest.ops.aten.views import reshaped, unsqueezed
from memest.ops.facts import EVERYWHERE_FACTS, FLOAT32
from memest.ops.operator import Example
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import row

Saved = dict[str, Any]
Grads = Sequence[Tensor | None]


def _check(k: Tape, what: str, t: Tensor) -> None:
    refuse_on_cuda(k)
    refuse_dtypes(what, t, HALVES)
    if t.dtype not in FLOATING or t.ndim < 2 or t.shape[-1] != t.shape[-2]:
        raise ShapeError(f"{what} takes square matrices of real numbers, got shape {list(t.shape)} of {t.dtype}")


def _by_columns(k: Tape, shape: Shape, dtype: str) -> Tensor:
    """Matrices that LAPACK reads: a column lies side by side (a vector is one)."""
    if len(shape) < 2:
        return k.empty(shape, dtype)
    return k.empty(shape, dtype, (*contiguous_strides(shape)[:-2], 1, shape[-2]))


def _factorized(k: Tape, t: Tensor) -> tuple[Tensor, Tensor]:
    return _by_columns(k, t.shape, t.dtype), k.empty(t.shape[:-1], "int32")


def _check_pivots(k: Tape, pivots: Tensor) -> None:
    """``pivots.gt(0).all()`` and ``pivots.le(n).all()``."""
    for limit in (0, 1):
        mask = with_number(k, pivots, limit, "bool")
        truth = k.empty((), "bool")
        judge_into(k, mask, truth, None)
        k.free(truth, mask)


def _check_errors(k: Tape, info: Tensor) -> None:
    """Whether any factorization failed."""
    truth = k.empty((), "bool")
    judge_into(k, info, truth, None)
    k.free(truth, info)


def _product(k: Tape, a: Tensor, b: Tensor) -> Tensor:
    """``matmul`` of matrices, or of batches of the same sizes."""
    if a.ndim == 2:
        return mm(k, a, b)
    one, other = (reshaped(k, t, (prod(t.shape[:-2]), *t.shape[-2:])) if t.ndim > 3 else t for t in (a, b))
    made = batched_product(k, one, other)
    k.free(*(new for new, old in ((one, a), (other, b)) if new.slot != old.slot))
    return made if a.ndim == 3 else k.alias(made, (*a.shape[:-1], b.shape[-1]))


def _inv(k: Tape, input: Tensor) -> Tensor:
    """A system whose right sides are those of the identity, written over them."""
    _check(k, "linalg.inv", input)
    out = _by_columns(k, input.shape, input.dtype)
    info = k.empty(input.shape[:-2], "int32")
    factors, pivots = _factorized(k, input)
    _check_pivots(k, pivots)
    k.free(pivots, factors)
    k.save(result=out)
    _check_errors(k, info)
    return out


def _inv_backward(k: Tape, saved: Saved, grads: Grads) -> list[Tensor | None]:
    """-(inverse.mH() @ (grad @ inverse.mH()))."""
    result: Tensor = saved["result"]
    turned = transpose(k, result, result.ndim - 2, result.ndim - 1)
    right = _product(k, incoming(grads), turned)
    both = _product(k, turned, right)
    return [elementwise(k, both)]


def _solve(k: Tape, input: Tensor, other: Tensor) -> Tensor:
    """One right side for each matrix: of matrices, or of vectors, which are solved in a copy."""
    _check(k, "linalg.solve", input)
    vectors = other.ndim == input.ndim - 1
    if other.shape[: input.ndim - 1] != input.shape[:-1] or other.ndim > input.ndim or other.dtype != input.dtype:
        raise UnsupportedError(f"linalg.solve of shapes {list(input.shape)} and {list(other.shape)} has no rule; expand the batches before")
    k.save(input=input)
    out = _by_columns(k, other.shape, other.dtype)
    factors, pivots = _factorized(k, input)
    info = k.empty(input.shape[:-2], "int32")
    copy = k.empty(other.shape, other.dtype) if vectors else None
    _check_pivots(k, pivots)
    k.free(copy)
    k.save(factors=factors, pivots=pivots, result=out)
    k.note(vectors=vectors)
    if not k.grad_enabled:
        k.free(factors, pivots)
    _check_errors(k, info)
    return out


def _solve_backward(k: Tape, saved: Saved, grads: Grads) -> list[Tensor | None]:
    """The gradient of the right sides solves the system with the matrix transposed; that of the matrix is -(it @ result.mH())."""
    grad, result = incoming(grads), saved["result"]
    if saved["vectors"]:
        result = unsqueezed(k, result, result.ndim)
    made = _by_columns(k, result.shape, grad.dtype)
    _check_pivots(k, saved["pivots"])
    first = None
    if k.needs[0]:
        product = _product(k, made, transpose(k, result, result.ndim - 2, result.ndim - 1))
        first = elementwise(k, product)
        k.free(product)
    second = k.view(made, made.shape[:-1], made.strides[:-1]) if saved["vectors"] else made
    return [first, second if k.needs[1] else None]


SOURCE = "derivatives.yaml: {}_ex; aten/src/ATen/native/BatchLinearAlgebra.cpp"
FACTS = EVERYWHERE_FACTS.but(autocast=FLOAT32)
ROWS = (
    row(
        "linalg_inv",
        _inv,
        _inv_backward,
        (),
        (
            Example(shapes=((3, 3),), attributes={}),
            Example(shapes=((6, 3, 3),), attributes={}),
            Example(shapes=((6, 3, 3),), attributes={}, layout="transposed"),
            Example(shapes=((2, 3, 4, 4),), attributes={}),
        ),
        SOURCE,
        facts=FACTS,
        saves=("result",),
        torch="torch.linalg.inv",
    ),
    row(
        "linalg_solve",
        _solve,
        _solve_backward,
        (),
        (
            Example(shapes=((6, 3, 3), (6, 3, 2)), attributes={}),
            Example(shapes=((3, 3), (3, 2)), attributes={}),
            Example(shapes=((6, 3, 3), (6, 3)), attributes={}),
            Example(shapes=((3, 3), (3,)), attributes={}),
            Example(shapes=((6, 3, 3), (6, 3, 2)), attributes={}, frozen=(0,)),
            Example(shapes=((6, 3, 3), (6, 3, 2)), attributes={}, frozen=(1,)),
            Example(shapes=((6, 3, 3), (6, 3, 2)), attributes={}, layout="transposed"),
        ),
        SOURCE,
        facts=FACTS,
        roles=("input", "other"),
        saves=("input", "result", "factors", "pivots"),
        torch="torch.linalg.solve",
    ),
)
COMPOSITE_ROWS = ()
