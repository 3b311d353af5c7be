"""Determinants, by an LU factorization that is kept for gradients, and Cholesky factors.

Source: aten/src/ATen/native/LinearAlgebra.cpp (``_linalg_det``, ``_linalg_slogdet``, ``lu_det_P``), BatchLinearAlgebra.cpp
(``linalg_cholesky_ex``); torch/csrc/autograd/FunctionsManual.cpp (``linalg_det_backward``, ``slogdet_backward``, ``cholesky_backward``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memest.ops.aten.gemm import transpose
from memest.ops.aten.iterator import elementwise, incoming, with_number, with_number_
from memest.ops.aten.lapack import by_columns, check_errors, check_pivots, check_square, factorized, follow, product_of
from memest.ops.aten.reductions import product_into, sum_into
from memest.ops.facts import EVERYWHERE_FACTS, FLOAT32
from memest.ops.operator import Example, flag
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import attribute, row

Saved = dict[str, Any]
Grads = Sequence[Tensor | None]


def _parity(k: Tape, pivots: Tensor) -> Tensor:
    """``lu_det_P``: (pivots != arange).sum(-1).fmod_(2).mul_(-2).add_(1)."""
    order = k.empty(pivots.shape[-1:], "int32")
    moved = elementwise(k, order, pivots, dtype="bool")
    count = k.empty(pivots.shape[:-1], "int64")
    sum_into(k, moved, count, (pivots.ndim - 1,))
    for number in (2, -2, 1):
        with_number_(k, count, number)
    k.free(moved, order)
    return count


def _diagonal(k: Tape, t: Tensor) -> Tensor:
    return k.view(t, t.shape[:-1], (*t.strides[:-2], t.strides[-1] + t.strides[-2]))


def _multiplied(k: Tape, diagonal: Tensor) -> Tensor:
    out = k.empty(diagonal.shape[:-1], diagonal.dtype)
    product_into(k, diagonal, out, (diagonal.ndim - 1,))
    return out


def _cast(k: Tape, parity: Tensor, dtype: str) -> None:
    """What ``mul_out`` makes of whole numbers on the way."""
    k.free(k.empty(parity.shape, dtype))


def _det(k: Tape, input: Tensor) -> Tensor:
    check_square(k, "linalg.det", input)
    k.save(input=input)
    out = k.empty(input.shape[:-2], input.dtype)
    factors, pivots = factorized(k, input)
    info = k.empty(input.shape[:-2], "int32")
    product = _multiplied(k, _diagonal(k, factors))
    parity = _parity(k, pivots)
    _cast(k, parity, input.dtype)
    k.free(parity, product, info)
    k.save(factors=factors, pivots=pivots, result=out)
    return out


def _det_backward(k: Tape, saved: Saved, grads: Grads) -> list[Tensor | None]:
    """The system of the factors, of which a diagonal without zeros is made, with grad * det on the diagonal."""
    factors: Tensor = saved["factors"]
    if factors.shape[-1] == 1:
        grad = incoming(grads)
        return [k.view(grad, factors.shape, (*grad.strides, 1, 1))]
    scaled = elementwise(k, incoming(grads), saved["result"])
    right = k.empty(factors.shape, scaled.dtype)
    diagonal = _diagonal(k, factors)
    mask = with_number(k, diagonal, 0.0, "bool")
    numbers = [k.empty((), "float32"), k.empty((), "float32")]
    chosen = k.empty(mask.shape, "float32", mask.strides)
    k.free(*numbers)
    wide = k.empty(factors.shape, "float32")
    moved = elementwise(k, factors, wide)
    k.free(wide, chosen, mask)
    out = by_columns(k, factors.shape, scaled.dtype)
    check_pivots(k, saved["pivots"])
    k.free(moved, right, scaled)
    return [out]


def _slogdet(k: Tape, input: Tensor) -> tuple[Tensor, Tensor]:
    check_square(k, "linalg.slogdet", input)
    k.save(input=input)
    sign, logarithm = k.empty(input.shape[:-2], input.dtype), k.empty(input.shape[:-2], input.dtype)
    factors, pivots = factorized(k, input)
    info = k.empty(input.shape[:-2], "int32")
    diagonal = _diagonal(k, factors)
    parity = _parity(k, pivots)
    signs = elementwise(k, diagonal)
    product = _multiplied(k, signs)
    _cast(k, parity, input.dtype)
    k.free(product, signs, parity)
    sizes = elementwise(k, diagonal)
    sum_into(k, sizes, logarithm, (sizes.ndim - 1,))
    k.free(sizes, info)
    k.save(factors=factors, pivots=pivots, sign=sign)
    return sign, logarithm


def _slogdet_backward(k: Tape, saved: Saved, grads: Grads) -> list[Tensor | None]:
    """The system of the factors with the logarithm's gradient on the diagonal; a sign has none."""
    if grads[1] is None:
        return [None]
    factors: Tensor = saved["factors"]
    right = k.empty(factors.shape, factors.dtype)
    out = by_columns(k, factors.shape, factors.dtype)
    check_pivots(k, saved["pivots"])
    k.free(right)
    return [out]


def _cholesky(k: Tape, input: Tensor, *, upper: bool) -> Tensor:
    check_square(k, "linalg.cholesky", input)
    out = by_columns(k, input.shape, input.dtype)
    info = k.empty(input.shape[:-2], "int32")
    if not follow(input):
        k.free(k.empty(input.shape, input.dtype))
    k.save(result=out)
    check_errors(k, info)
    return out


def _cholesky_backward(k: Tape, saved: Saved, grads: Grads, *, upper: bool) -> list[Tensor | None]:
    """Half of a symmetric product between two triangular systems."""
    result: Tensor = saved["result"]
    turned = transpose(k, result, result.ndim - 2, result.ndim - 1)
    product = product_of(k, turned, incoming(grads))
    lower = k.empty(product.shape, product.dtype)
    k.free(product)
    strict = k.empty(product.shape, product.dtype)
    both = elementwise(k, lower, transpose(k, strict, strict.ndim - 2, strict.ndim - 1))
    half = with_number(k, both, 0.5)
    k.free(both, strict, lower)
    first = by_columns(k, half.shape, half.dtype)
    k.free(half)
    second = by_columns(k, first.shape, first.dtype)
    k.free(first)
    return [second]


SHAPES = ((4, 4), (6, 3, 3), (2, 3, 4, 4))
EXAMPLES = (*(Example(shapes=(s,), attributes={}) for s in SHAPES), Example(shapes=((6, 3, 3),), attributes={}, layout="transposed"))
SOURCE = "derivatives.yaml: {}; aten/src/ATen/native/LinearAlgebra.cpp"
ROWS = (
    row(
        "linalg_det",
        _det,
        _det_backward,
        (),
        EXAMPLES,
        SOURCE,
        facts=EVERYWHERE_FACTS,
        saves=("input", "result", "factors", "pivots"),
        torch="torch.linalg.det",
    ),
    row(
        "linalg_slogdet",
        _slogdet,
        _slogdet_backward,
        (),
        EXAMPLES,
        SOURCE,
        facts=EVERYWHERE_FACTS,
        saves=("input", "sign", "factors", "pivots"),
        torch="torch.linalg.slogdet",
    ),
    row(
        "linalg_cholesky",
        _cholesky,
        _cholesky_backward,
        (attribute("upper", False, flag),),
        EXAMPLES,
        "derivatives.yaml: {}_ex; aten/src/ATen/native/BatchLinearAlgebra.cpp",
        facts=EVERYWHERE_FACTS.but(autocast=FLOAT32),
        saves=("result",),
        torch="torch.linalg.cholesky",
        oracle="cholesky",
    ),
)
COMPOSITE_ROWS = ()
