"""Eigenvalues of symmetric matrices, with or without their vectors: LAPACK writes the vectors over a copy of the matrices.

Source: aten/src/ATen/native/BatchLinearAlgebra.cpp (``_linalg_eigh``, ``linalg_eigh_out_info``), BatchLinearAlgebraKernel.cpp
(``apply_lapack_eigh``); LAPACK's ssyevd says how much it works with; torch/csrc/autograd/FunctionsManual.cpp (``linalg_eig_backward``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memest.ops.aten.copies import copy_into
from memest.ops.aten.iterator import elementwise, elementwise_, with_number
from memest.ops.aten.lapack import adjoint, by_columns, check_errors, check_square, infos, product_of
from memest.ops.aten.views import unsqueezed
from memest.ops.facts import EVERYWHERE_FACTS, FLOAT32
from memest.ops.operator import Example, choice
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import attribute, row

Saved = dict[str, Any]
Grads = Sequence[Tensor | None]
UNBLOCKED = 11
"""From this order on MKL reduces a matrix to three diagonals in blocks, whose width nobody documents."""
WIDEST_BLOCK = 32
"""That of LAPACK itself (ilaenv)."""


def _decomposed(k: Tape, what: str, input: Tensor, vectors: bool) -> tuple[Tensor, Tensor]:
    """The values, and what the vectors stand in."""
    check_square(k, what, input)
    basis = by_columns(k, input.shape, input.dtype) if vectors else None
    values = k.empty(input.shape[:-1], input.dtype)
    if basis is None:
        basis = by_columns(k, input.shape, input.dtype)
    info = infos(k, input)
    copy_into(k, input, basis)
    _work(k, input, vectors)
    check_errors(k, info)
    return values, basis


def _work(k: Tape, input: Tensor, vectors: bool) -> None:
    """The numbers, and the whole numbers, that ``ssyevd`` asks for."""
    order = input.shape[-1]
    if order == 1:
        floats, integers = k.scratch(2 * input.itemsize), k.scratch(4)
    elif vectors:
        floats, integers = k.scratch((2 * order * order + 6 * order + 2) * input.itemsize), k.scratch((5 * order + 3) * 4)
    else:
        fewest, most = (3 * order + 1) * input.itemsize, ((WIDEST_BLOCK + 2) * order + 1) * input.itemsize
        floats = k.scratch(fewest) if order < UNBLOCKED else k.scratch(most, spread=(fewest, most))
        integers = k.scratch(4)
    k.free(integers, floats)


def _eigh(k: Tape, input: Tensor, **triangle: str) -> tuple[Tensor, Tensor]:
    values, vectors = _decomposed(k, "linalg.eigh", input, True)
    k.save(values=values, vectors=vectors)
    return values, vectors


def _eigvalsh(k: Tape, input: Tensor, **triangle: str) -> Tensor:
    values, vectors = _decomposed(k, "linalg.eigvalsh", input, k.grad_enabled)
    k.save(values=values, vectors=vectors)
    return values


def _eigh_backward(k: Tape, saved: Saved, grads: Grads, **triangle: str) -> list[Tensor | None]:
    """``linalg_eig_backward`` of a symmetric matrix, statement by statement."""
    of_values, of_vectors = grads
    values, vectors = saved["values"], saved["vectors"]
    if of_vectors is None:
        return _eigvalsh_backward(k, saved, [of_values], **triangle)
    turned = product_of(k, adjoint(k, vectors), of_vectors)
    skewed = elementwise(k, turned, adjoint(k, turned))
    half = with_number(k, skewed, 0.5)
    k.free(skewed)  # not the product itself: a view of its diagonal is in a variable until the end
    apart = elementwise(k, unsqueezed(k, values, values.ndim - 1), unsqueezed(k, values, values.ndim))
    elementwise_(k, half, apart)
    k.free(apart)
    part = product_of(k, half, adjoint(k, vectors))
    return [product_of(k, vectors, part)]


def _eigvalsh_backward(k: Tape, saved: Saved, grads: Grads, **triangle: str) -> list[Tensor | None]:
    """(V * grad) @ V transposed."""
    (grad,) = grads
    vectors = saved["vectors"]
    assert grad is not None
    scaled = elementwise(k, vectors, unsqueezed(k, grad, grad.ndim - 1))
    return [product_of(k, scaled, adjoint(k, vectors))]


SHAPES = ((4, 4), (6, 3, 3), (2, 3, 4, 4), (40, 40), (1, 1))
TRIANGLE = (attribute("UPLO", "L", choice("L", "U")),)
FACTS = EVERYWHERE_FACTS.but(autocast=FLOAT32)
SOURCE = "derivatives.yaml: _linalg_eigh; aten/src/ATen/native/BatchLinearAlgebra.cpp"
ROWS = (
    row(
        "linalg_eigh",
        _eigh,
        _eigh_backward,
        TRIANGLE,
        (
            *(Example(shapes=(s,), attributes={}) for s in SHAPES),
            Example(shapes=((6, 3, 3),), attributes={"UPLO": "U"}, layout="transposed"),
        ),
        SOURCE,
        facts=FACTS,
        saves=("values", "vectors"),
        torch="torch.linalg.eigh",
    ),
    row(
        "linalg_eigvalsh",
        _eigvalsh,
        _eigvalsh_backward,
        TRIANGLE,
        (*(Example(shapes=(s,), attributes={}) for s in SHAPES), Example(shapes=((6, 3, 3),), attributes={}, frozen=(0,))),
        SOURCE,
        facts=FACTS,
        saves=("values", "vectors"),
        torch="torch.linalg.eigvalsh",
    ),
)
COMPOSITE_ROWS = ()
