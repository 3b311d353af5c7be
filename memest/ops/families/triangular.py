"""Systems whose matrix is a triangle, or is known by its Cholesky factor.

Source: aten/src/ATen/native/BatchLinearAlgebra.cpp (``linalg_solve_triangular``, ``_cholesky_solve_helper_cpu``, ``cholesky_inverse``);
torch/csrc/autograd/FunctionsManual.cpp (``linalg_solve_triangular_backward``, ``cholesky_solve_backward``, ``cholesky_inverse_backward``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memest.errors import UnsupportedError
from memest.ops.aten.iterator import elementwise, incoming
from memest.ops.aten.lapack import (
    adjoint,
    by_columns,
    check_errors,
    check_square,
    infos,
    product_of,
    replaced,
    triangle_of,
    triangle_solved,
)
from memest.ops.facts import EVERYWHERE_FACTS, FLOAT32
from memest.ops.operator import Example, flag
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import attribute, row

Saved = dict[str, Any]
Grads = Sequence[Tensor | None]


def _check(k: Tape, what: str, matrix: Tensor, other: Tensor, left: bool) -> None:
    check_square(k, what, matrix)
    fits = other.ndim == matrix.ndim and other.shape[:-2] == matrix.shape[:-2] and other.shape[-2 if left else -1] == matrix.shape[-1]
    if not fits or other.dtype != matrix.dtype:
        raise UnsupportedError(f"{what} of shapes {list(matrix.shape)} and {list(other.shape)} has no rule; expand the batches before")


def _solve(k: Tape, input: Tensor, other: Tensor, *, upper: bool, left: bool, unitriangular: bool) -> Tensor:
    _check(k, "linalg.solve_triangular", input, other, left)
    k.save(input=input)
    out = triangle_solved(k, input, other)
    k.save(result=out)
    return out


def _solve_backward(k: Tape, saved: Saved, grads: Grads, *, upper: bool, left: bool, unitriangular: bool) -> list[Tensor | None]:
    """That of the right sides solves the system turned; that of the matrix is the triangle of -(it @ result.mH())."""
    solved = triangle_solved(k, adjoint(k, saved["input"]), incoming(grads))
    first = None
    if k.needs[0]:
        turned = adjoint(k, saved["result"])
        product = product_of(k, solved, turned) if left else product_of(k, turned, solved)
        negative = replaced(k, product, elementwise(k, product))
        first = replaced(k, negative, triangle_of(k, negative))
    return [first, solved if k.needs[1] else None]


def _factor_solved(k: Tape, other: Tensor, factor: Tensor) -> Tensor:
    """``_cholesky_solve_helper``: copies of both, the factor's dropped."""
    out = by_columns(k, other.shape, other.dtype)
    copy = by_columns(k, factor.shape, factor.dtype)
    check_errors(k, infos(k, factor))
    k.free(copy)
    return out


def _cholesky_solve(k: Tape, input: Tensor, input2: Tensor, *, upper: bool) -> Tensor:
    _check(k, "cholesky_solve", input2, input, True)
    k.save(input2=input2, input=input)
    out = _factor_solved(k, input, input2)
    k.save(result=out)
    return out


def _cholesky_solve_backward(k: Tape, saved: Saved, grads: Grads, *, upper: bool) -> list[Tensor | None]:
    """That of the right sides solves the same system; that of the factor is a product with a symmetric matrix."""
    factor = saved["input2"]
    first = _factor_solved(k, incoming(grads), factor)
    second = None
    if k.needs[1]:
        product = product_of(k, first, adjoint(k, saved["result"]))
        common = replaced(k, product, elementwise(k, product, adjoint(k, product)))
        second = _negative_product(k, factor, common, upper)
        k.free(common)
    return [first if k.needs[0] else None, second]


def _negative_product(k: Tape, factor: Tensor, common: Tensor, upper: bool) -> Tensor:
    product = product_of(k, factor, common) if upper else product_of(k, common, factor)
    return replaced(k, product, elementwise(k, product))


def _cholesky_inverse(k: Tape, input: Tensor, *, upper: bool) -> Tensor:
    check_square(k, "cholesky_inverse", input)
    k.save(input=input)
    info = infos(k, input)
    out = by_columns(k, input.shape, input.dtype)
    check_errors(k, info)
    k.save(result=out)
    return out


def _cholesky_inverse_backward(k: Tape, saved: Saved, grads: Grads, *, upper: bool) -> list[Tensor | None]:
    """The gradient made symmetric, between two inverses."""
    grad, factor, result = incoming(grads), saved["input"], saved["result"]
    both = elementwise(k, grad, adjoint(k, grad))
    part = product_of(k, result, both)
    common = product_of(k, part, result)
    k.free(part, both)
    return [_negative_product(k, factor, common, upper)]


PAIRS = (((4, 4), (4, 2)), ((6, 3, 3), (6, 3, 2)), ((2, 3, 4, 4), (2, 3, 4, 2)))
UPPER = attribute("upper", False, flag)
FACTS = EVERYWHERE_FACTS
SOURCE = "derivatives.yaml: {}; aten/src/ATen/native/BatchLinearAlgebra.cpp"
ROWS = (
    row(
        "linalg_solve_triangular",
        _solve,
        _solve_backward,
        (attribute("upper", check=flag), attribute("left", True, flag), attribute("unitriangular", False, flag)),
        (
            *(Example(shapes=pair, attributes={"upper": True}) for pair in PAIRS),
            Example(shapes=((6, 3, 3), (6, 2, 3)), attributes={"upper": False, "left": False, "unitriangular": True}),
            Example(shapes=PAIRS[1], attributes={"upper": False}, frozen=(0,)),
            Example(shapes=PAIRS[1], attributes={"upper": False}, frozen=(1,)),
            Example(shapes=PAIRS[1], attributes={"upper": False}, layout="transposed"),
        ),
        SOURCE,
        facts=FACTS,
        roles=("input", "other"),
        saves=("input", "result"),
        torch="torch.linalg.solve_triangular",
    ),
    row(
        "cholesky_solve",
        _cholesky_solve,
        _cholesky_solve_backward,
        (UPPER,),
        (
            *(Example(shapes=pair[::-1], attributes={}) for pair in PAIRS),
            Example(shapes=PAIRS[1][::-1], attributes={"upper": True}),
            Example(shapes=PAIRS[1][::-1], attributes={}, frozen=(1,)),
        ),
        SOURCE,
        facts=FACTS.but(autocast=FLOAT32),
        roles=("input", "input2"),
        saves=("input", "input2", "result"),
    ),
    row(
        "cholesky_inverse",
        _cholesky_inverse,
        _cholesky_inverse_backward,
        (UPPER,),
        (*(Example(shapes=pair[:1], attributes={}) for pair in PAIRS), Example(shapes=((6, 3, 3),), attributes={"upper": True})),
        SOURCE,
        facts=FACTS.but(autocast=FLOAT32),
        saves=("input", "result"),
    ),
)
COMPOSITE_ROWS = ()
