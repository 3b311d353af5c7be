"""Singular values, with or without their vectors: LAPACK works on a copy of the matrices.

Vectors are computed where gradients are wanted, as the values' gradient needs them; a gradient of vectors themselves has no rule.
Source: aten/src/ATen/native/BatchLinearAlgebra.cpp (``_linalg_svd``, ``linalg_svdvals``); torch/csrc/autograd/FunctionsManual.cpp
(``svd_backward``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memest.errors import ShapeError, UnsupportedError
from memest.network.dtypes import FLOATING, HALVES
from memest.ops.aten.iterator import elementwise, incoming, refuse_dtypes
from memest.ops.aten.lapack import by_columns, check_errors, product_of
from memest.ops.aten.places import refuse_on_cuda
from memest.ops.aten.views import unsqueezed
from memest.ops.facts import EVERYWHERE_FACTS, FLOAT32
from memest.ops.operator import Example, flag
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import attribute, row

Parts = tuple[Tensor | None, Tensor, Tensor | None]


def _decomposed(k: Tape, what: str, input: Tensor, full: bool, vectors: bool) -> tuple[Parts, Tensor]:
    """U, the values and V transposed, and what says whether it failed."""
    refuse_on_cuda(k)
    refuse_dtypes(what, input, HALVES)
    if input.dtype not in FLOATING or input.ndim < 2:
        raise ShapeError(f"{what} takes matrices of real numbers, got shape {list(input.shape)} of {input.dtype}")
    *batch, rows, columns = input.shape
    least = min(rows, columns)
    left = by_columns(k, (*batch, rows, rows if full else least), input.dtype) if vectors else None
    right = by_columns(k, (*batch, columns if full else least, columns), input.dtype) if vectors else None
    values = k.empty((*batch, least), input.dtype)
    info = k.empty(tuple(batch), "int32")
    k.free(by_columns(k, input.shape, input.dtype))
    return (left, values, right), info


def _svd(k: Tape, input: Tensor, *, full_matrices: bool) -> tuple[Tensor, ...]:
    if k.grad_enabled:
        raise UnsupportedError("the gradient of torch.linalg.svd has no rule; that of torch.linalg.svdvals has")
    (left, values, right), info = _decomposed(k, "linalg.svd", input, full_matrices, True)
    check_errors(k, info)
    assert left is not None and right is not None
    return left, values, right


def _svdvals(k: Tape, input: Tensor) -> Tensor:
    (left, values, right), info = _decomposed(k, "linalg.svdvals", input, False, k.grad_enabled)
    check_errors(k, info)
    k.save(values=values, left=left, right=right)
    return values


def _svdvals_backward(k: Tape, saved: dict[str, Any], grads: Sequence[Tensor | None]) -> list[Tensor | None]:
    """U @ (grad * V transposed), or (U * grad) @ V transposed of matrices with more columns than rows."""
    grad, left, right = incoming(grads), saved["left"], saved["right"]
    if left.shape[-2] >= right.shape[-1]:
        scaled = elementwise(k, unsqueezed(k, grad, grad.ndim), right)
        return [product_of(k, left, scaled)]
    scaled = elementwise(k, left, unsqueezed(k, grad, grad.ndim - 1))
    return [product_of(k, scaled, right)]


SHAPES = ((2, 3, 50), (50, 3), (4, 4), (2, 50, 3), (2, 3, 3, 50))
FACTS = EVERYWHERE_FACTS.but(autocast=FLOAT32)
SOURCE = "derivatives.yaml: _linalg_svd; aten/src/ATen/native/BatchLinearAlgebra.cpp"
ROWS = (
    row(
        "linalg_svd",
        _svd,
        None,
        (attribute("full_matrices", True, flag),),
        tuple(Example(shapes=(s,), attributes={"full_matrices": full}, frozen=(0,)) for s in SHAPES[:2] for full in (True, False)),
        SOURCE,
        facts=FACTS,
        torch="torch.linalg.svd",
    ),
    row(
        "linalg_svdvals",
        _svdvals,
        _svdvals_backward,
        (),
        (
            *(Example(shapes=(s,), attributes={}) for s in SHAPES),
            Example(shapes=((5, 3),), attributes={}, layout="transposed"),
            Example(shapes=((5, 3),), attributes={}, frozen=(0,)),
        ),
        SOURCE,
        facts=FACTS,
        saves=("left", "values", "right"),
        torch="torch.linalg.svdvals",
    ),
)
COMPOSITE_ROWS = ()
