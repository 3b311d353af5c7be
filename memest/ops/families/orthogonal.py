"""Orthogonal bases and triangles (QR): LAPACK writes reflectors over the matrices, and makes the basis of them.

Source: aten/src/ATen/native/BatchLinearAlgebra.cpp (``linalg_qr_out``), BatchLinearAlgebraKernel.cpp (``apply_geqrf``, ``apply_orgqr``: MKL
says what it works with); torch/csrc/autograd/FunctionsManual.cpp (``linalg_qr_backward``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memest.errors import ShapeError, UnsupportedError
from memest.ops.aten.copies import cat
from memest.ops.aten.iterator import elementwise, with_number_
from memest.ops.aten.lapack import adjoint, by_columns, check_matrices, follow, product_of, replaced, triangle_of, triangle_solved
from memest.ops.facts import EVERYWHERE_FACTS, FLOAT32
from memest.ops.operator import Example, choice
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import attribute, row
from memest.sizes.choices import least

Saved = dict[str, Any]
Grads = Sequence[Tensor | None]
MOST_ROWS, MOST_COLUMNS, MOST_VECTORS = 31, 32, 16
"""Of more, MKL works through reflectors in blocks, whose width it does not tell."""


def _check(rows: int, columns: int) -> None:
    """ShapeError for matrices for which MKL's workspace is not known."""
    if rows > MOST_ROWS or columns > MOST_COLUMNS or least(rows, columns) > MOST_VECTORS:
        known = f"{MOST_ROWS} x {MOST_VECTORS} or {MOST_VECTORS} x {MOST_COLUMNS}"
        raise ShapeError(f"linalg.qr of {rows} x {columns}: MKL's workspace is known up to {known}; svd and eigh are modelled")


def _qr(k: Tape, input: Tensor, *, mode: str) -> tuple[Tensor, Tensor]:
    check_matrices(k, "linalg.qr", input)
    *batch, rows, columns = input.shape
    _check(rows, columns)
    if mode == "r":
        raise UnsupportedError("linalg.qr with mode='r' has no rule: mode='reduced' is modelled")
    if k.grad_enabled and mode == "complete" and rows > columns:
        raise UnsupportedError("linalg.qr with mode='complete' of matrices with more rows than columns has no gradient; torch says so, too")
    vectors = rows if mode == "complete" else least(rows, columns)
    basis = by_columns(k, (*batch, rows, vectors), input.dtype)
    triangle = by_columns(k, (*batch, vectors, columns), input.dtype)
    scales = k.empty((*batch, least(rows, columns)), input.dtype)
    k.free(k.scratch((columns + 1) * input.itemsize))
    if mode == "reduced" and rows > columns and not follow(k.alias(basis, triangle.shape, basis.strides)):
        k.free(k.empty(triangle.shape, triangle.dtype))  # triu of a part of each matrix
    k.free(k.scratch((vectors + 1) * input.itemsize))
    k.free(scales)
    k.save(basis=basis, triangle=triangle)
    return basis, triangle


def _qr_backward(k: Tape, saved: Saved, grads: Grads, *, mode: str) -> list[Tensor | None]:
    """``linalg_qr_backward``, statement by statement."""
    of_basis, of_triangle = grads
    basis, triangle = saved["basis"], saved["triangle"]
    made = _against(k, basis, triangle, of_basis, of_triangle)
    if basis.shape[-2] >= triangle.shape[-1]:
        return [_of_tall(k, basis, triangle, made, of_basis)]
    return [_of_wide(k, basis, triangle, made, of_triangle)]


def _against(k: Tape, basis: Tensor, triangle: Tensor, of_basis: Tensor | None, of_triangle: Tensor | None) -> Tensor:
    """The triangle's gradient against the triangle, less the basis's against the basis."""
    one = None if of_triangle is None else product_of(k, of_triangle, adjoint(k, triangle))
    other = None if of_basis is None else product_of(k, adjoint(k, basis), of_basis)
    if other is None:
        assert one is not None
        return one
    made = elementwise(k, other) if one is None else elementwise(k, one, other)
    k.free(other, one)
    return made


def _of_tall(k: Tape, basis: Tensor, triangle: Tensor, made: Tensor, of_basis: Tensor | None) -> Tensor:
    upper = triangle_of(k, made)
    both = elementwise(k, upper, adjoint(k, upper))
    with_number_(k, both, 0.5)
    product = product_of(k, basis, both)
    k.free(made, both, upper)
    if of_basis is not None:
        product = replaced(k, product, elementwise(k, product, of_basis))
    return replaced(k, product, triangle_solved(k, adjoint(k, triangle), product))


def _of_wide(k: Tape, basis: Tensor, triangle: Tensor, made: Tensor, of_triangle: Tensor | None) -> Tensor:
    turned = elementwise(k, made)
    skewed = elementwise(k, turned, adjoint(k, turned))
    lower = replaced(k, skewed, triangle_of(k, skewed))
    product = product_of(k, basis, lower)
    k.free(made, turned, lower)
    rows, columns = triangle.shape[-2:]
    square = k.view(triangle, (*triangle.shape[:-1], rows), triangle.strides)
    product = replaced(k, product, triangle_solved(k, adjoint(k, square), product))
    rest = k.empty((*triangle.shape[:-1], columns - rows), product.dtype)
    product = replaced(k, product, cat(k, (product, rest), product.ndim - 1))
    k.free(rest)
    if of_triangle is not None:
        more = product_of(k, basis, of_triangle)
        product = replaced(k, product, elementwise(k, product, more))
        k.free(more)
    return product


SHAPES = ((4, 4), (6, 3, 3), (2, 30, 3), (2, 3, 30))
ROWS = (
    row(
        "linalg_qr",
        _qr,
        _qr_backward,
        (attribute("mode", "reduced", choice("reduced", "complete", "r")),),
        (
            *(Example(shapes=(s,), attributes={}) for s in SHAPES),
            Example(shapes=((2, 30, 3),), attributes={"mode": "complete"}, frozen=(0,)),
        ),
        "derivatives.yaml: linalg_qr; aten/src/ATen/native/BatchLinearAlgebra.cpp",
        facts=EVERYWHERE_FACTS.but(autocast=FLOAT32),
        saves=("basis", "triangle"),
        torch="torch.linalg.qr",
    ),
)
COMPOSITE_ROWS = ()
