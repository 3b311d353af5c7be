"""Inverses of square matrices, and systems of linear equations: by an LU factorization, which is kept for gradients.

Source: aten/src/ATen/native/BatchLinearAlgebra.cpp (``linalg_inv_ex``, ``_linalg_solve_ex``, ``linalg_lu_solve``,
``_linalg_check_errors``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memest.errors import UnsupportedError
from memest.ops.aten.gemm import transpose
from memest.ops.aten.iterator import elementwise, incoming
from memest.ops.aten.lapack import by_columns, check_errors, check_pivots, check_square, factorized, product_of
from memest.ops.aten.views import unsqueezed
from memest.ops.facts import EVERYWHERE_FACTS, FLOAT32
from memest.ops.operator import Example
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import row

Saved = dict[str, Any]
Grads = Sequence[Tensor | None]


def _inv(k: Tape, input: Tensor) -> Tensor:
    """A system whose right sides are those of the identity, written over them."""
    check_square(k, "linalg.inv", input)
    out = by_columns(k, input.shape, input.dtype)
    info = k.empty(input.shape[:-2], "int32")
    factors, pivots = factorized(k, input)
    check_pivots(k, pivots)
    k.free(pivots, factors)
    k.save(result=out)
    check_errors(k, info)
    return out


def _inv_backward(k: Tape, saved: Saved, grads: Grads) -> list[Tensor | None]:
    """-(inverse.mH() @ (grad @ inverse.mH()))."""
    result: Tensor = saved["result"]
    turned = transpose(k, result, result.ndim - 2, result.ndim - 1)
    right = product_of(k, incoming(grads), turned)
    both = product_of(k, turned, right)
    return [elementwise(k, both)]


def _solve(k: Tape, input: Tensor, other: Tensor) -> Tensor:
    """One right side for each matrix: of matrices, or of vectors, which are solved in a copy."""
    check_square(k, "linalg.solve", input)
    vectors = other.ndim == input.ndim - 1
    if other.shape[: input.ndim - 1] != input.shape[:-1] or other.ndim > input.ndim or other.dtype != input.dtype:
        raise UnsupportedError(f"linalg.solve of shapes {list(input.shape)} and {list(other.shape)} has no rule; expand the batches before")
    k.save(input=input)
    out = by_columns(k, other.shape, other.dtype)
    factors, pivots = factorized(k, input)
    info = k.empty(input.shape[:-2], "int32")
    copy = k.empty(other.shape, other.dtype) if vectors else None
    check_pivots(k, pivots)
    k.free(copy)
    k.save(factors=factors, pivots=pivots, result=out)
    k.note(vectors=vectors)
    if not k.grad_enabled:
        k.free(factors, pivots)
    check_errors(k, info)
    return out


def _solve_backward(k: Tape, saved: Saved, grads: Grads) -> list[Tensor | None]:
    """The gradient of the right sides solves the system with the matrix transposed; that of the matrix is -(it @ result.mH())."""
    grad, result = incoming(grads), saved["result"]
    if saved["vectors"]:
        result = unsqueezed(k, result, result.ndim)
    made = by_columns(k, result.shape, grad.dtype)
    check_pivots(k, saved["pivots"])
    first = None
    if k.needs[0]:
        product = product_of(k, made, transpose(k, result, result.ndim - 2, result.ndim - 1))
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
