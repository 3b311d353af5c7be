"""Pseudo-inverses, by singular values.

Source: aten/src/ATen/native/LinearAlgebra.cpp (``linalg_pinv``); torch/csrc/autograd/FunctionsManual.cpp (``pinv_backward``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memest.ops.aten.iterator import elementwise, incoming, where
from memest.ops.aten.lapack import adjoint, decomposed, product_of
from memest.ops.aten.views import unsqueezed
from memest.ops.facts import EVERYWHERE_FACTS, REFUSED
from memest.ops.operator import Example
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import row

Saved = dict[str, Any]
Grads = Sequence[Tensor | None]


def _pinv(k: Tape, input: Tensor) -> Tensor:
    """V times the inverses of those values that are above a tolerance, times U transposed."""
    k.save(input=input)
    absolute, relative = k.empty((), "float64"), k.empty((), "float64")
    left, values, right = decomposed(k, "linalg.pinv", input, False, True)
    assert left is not None and right is not None
    greatest = k.view(values, (*values.shape[:-1], 1), values.strides)
    scaled = elementwise(k, unsqueezed(k, relative, 0), greatest)
    tolerance = elementwise(k, unsqueezed(k, absolute, 0), scaled)
    k.free(scaled)
    zero = k.empty((), values.dtype)
    inverse = elementwise(k, values)
    above = elementwise(k, values, tolerance, dtype="bool")
    kept = where(k, above, inverse, zero)
    k.free(above, inverse, zero)
    weighed = elementwise(k, adjoint(k, right), unsqueezed(k, kept, kept.ndim - 1))
    out = product_of(k, weighed, adjoint(k, left))
    k.free(weighed, kept, tolerance, left, values, right, absolute, relative)
    k.save(result=out)
    return out


def _gradient(k: Tape, grad: Tensor, inverse: Tensor, matrix: Tensor) -> Tensor:
    """``pinv_backward``: four terms of one expression, whose parts live until its end."""
    turned, back = adjoint(k, inverse), adjoint(k, grad)
    if matrix.shape[-2] <= matrix.shape[-1]:
        inner = product_of(k, back, inverse)
        outer = product_of(k, inner, turned)
        spread = product_of(k, turned, inverse)
        within = product_of(k, inner, matrix)
        rest = elementwise(k, back, within)
        last = product_of(k, spread, rest)
        square = product_of(k, matrix, inverse)
        third = product_of(k, square, outer)
        first = product_of(k, inverse, inner)
        total = elementwise(k, elementwise(k, elementwise(k, adjoint(k, first)), outer), third)
        return elementwise(k, total, last)
    inner = product_of(k, inverse, back)
    outer = product_of(k, turned, inner)
    square = product_of(k, outer, inverse)
    last = product_of(k, square, matrix)
    within = product_of(k, matrix, inner)
    rest = elementwise(k, back, within)
    part = product_of(k, rest, inverse)
    second = product_of(k, part, turned)
    first = product_of(k, inner, inverse)
    total = elementwise(k, elementwise(k, elementwise(k, adjoint(k, first)), second), outer)
    return elementwise(k, total, last)


def _pinv_backward(k: Tape, saved: Saved, grads: Grads) -> list[Tensor | None]:
    return [_gradient(k, incoming(grads), saved["result"], saved["input"])]


SHAPES = ((4, 4), (6, 3, 3), (50, 3), (2, 50, 3), (2, 3, 50), (2, 3, 4, 4))
FACTS = EVERYWHERE_FACTS.but(autocast=REFUSED)
ROWS = (
    row(
        "linalg_pinv",
        _pinv,
        _pinv_backward,
        (),
        tuple(Example(shapes=(s,), attributes={}) for s in SHAPES),
        "derivatives.yaml: {}.atol_rtol_tensor; aten/src/ATen/native/LinearAlgebra.cpp",
        facts=FACTS,
        saves=("input", "result"),
        torch="torch.linalg.pinv",
    ),
)
COMPOSITE_ROWS = ()
