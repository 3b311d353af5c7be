"""Singular values, with or without their vectors: LAPACK works on a copy of the matrices.

Vectors are computed where gradients are wanted, as the values' gradient needs them, too.
Source: aten/src/ATen/native/BatchLinearAlgebra.cpp (``_linalg_svd``, ``linalg_svdvals``); torch/csrc/autograd/FunctionsManual.cpp
(``svd_backward``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memest.network.tensor import Shape
from memest.ops.aten.iterator import elementwise
from memest.ops.aten.lapack import adjoint, decomposed, product_of, replaced
from memest.ops.aten.views import unsqueezed
from memest.ops.facts import EVERYWHERE_FACTS, FLOAT32
from memest.ops.operator import Example, flag
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import attribute, row

Saved = dict[str, Any]
Grads = Sequence[Tensor | None]


def _svd(k: Tape, input: Tensor, *, full_matrices: bool) -> tuple[Tensor, ...]:
    left, values, right = decomposed(k, "linalg.svd", input, full_matrices, True)
    assert left is not None and right is not None
    k.save(values=values, left=left, right=right)
    return left, values, right


def _first(k: Tape, t: Tensor, shape: Shape) -> Tensor:
    """The first rows or columns."""
    return k.view(t, shape, t.strides)


def _svd_backward(k: Tape, saved: Saved, grads: Grads, *, full_matrices: bool) -> list[Tensor | None]:
    """Of all vectors, those that the reduced decomposition has."""
    left, values, right = saved["left"], saved["values"], saved["right"]
    of_left, of_values, of_right = grads
    if full_matrices:
        few, narrow = (*left.shape[:-1], values.shape[-1]), (*right.shape[:-2], values.shape[-1], right.shape[-1])
        left, right = _first(k, left, few), _first(k, right, narrow)
        of_left = None if of_left is None else _first(k, of_left, few)
        of_right = None if of_right is None else _first(k, of_right, narrow)
    return [_gradient(k, (left, values, right), of_left, of_values, of_right)]


def _svdvals(k: Tape, input: Tensor) -> Tensor:
    left, values, right = decomposed(k, "linalg.svdvals", input, False, k.grad_enabled)
    k.save(values=values, left=left, right=right)
    return values


def _svdvals_backward(k: Tape, saved: Saved, grads: Grads) -> list[Tensor | None]:
    return [_gradient(k, (saved["left"], saved["values"], saved["right"]), None, grads[0], None)]


def _gradient(
    k: Tape, parts: tuple[Tensor, Tensor, Tensor], of_left: Tensor | None, of_values: Tensor | None, of_right: Tensor | None
) -> Tensor:
    """``svd_backward``, statement by statement."""
    left, values, right = parts
    rows, columns = left.shape[-2], right.shape[-1]
    if of_left is None and of_right is None:
        assert of_values is not None
        return _of_values(k, left, of_values, right)
    both = [
        None if of_left is None else _skew(k, product_of(k, adjoint(k, left), of_left)),
        None if of_right is None else _skew(k, product_of(k, right, adjoint(k, of_right))),
    ]
    inner = _off_diagonal(k, values, *both)
    if of_values is not None:
        on_diagonal = k.empty(inner.shape, inner.dtype)
        inner = replaced(k, inner, elementwise(k, inner, on_diagonal))
        k.free(on_diagonal)
    if rows > columns and of_left is not None:
        inner = replaced(k, inner, product_of(k, left, inner))
        scaled = elementwise(k, of_left, unsqueezed(k, values, values.ndim - 1))
        inner = replaced(k, inner, _projected(k, inner, scaled, (left, adjoint(k, left), scaled), False))
        made = product_of(k, inner, right)
    elif rows < columns and of_right is not None:
        inner = replaced(k, inner, product_of(k, inner, right))
        scaled = elementwise(k, of_right, unsqueezed(k, values, values.ndim))
        inner = replaced(k, inner, _projected(k, inner, scaled, (scaled, adjoint(k, right), right), True))
        made = product_of(k, left, inner)
    elif rows >= columns:
        part = product_of(k, inner, right)
        made = product_of(k, left, part)
    else:
        part = product_of(k, left, inner)
        made = product_of(k, part, right)
    return made


def _of_values(k: Tape, left: Tensor, grad: Tensor, right: Tensor) -> Tensor:
    """U @ (grad * V transposed), or (U * grad) @ V transposed of matrices with more columns than rows."""
    if left.shape[-2] >= right.shape[-1]:
        scaled = elementwise(k, unsqueezed(k, grad, grad.ndim), right)
        return product_of(k, left, scaled)
    scaled = elementwise(k, left, unsqueezed(k, grad, grad.ndim - 1))
    return product_of(k, scaled, right)


def _skew(k: Tape, product: Tensor) -> Tensor:
    """A product less its own transpose."""
    return replaced(k, product, elementwise(k, product, adjoint(k, product)))


def _off_diagonal(k: Tape, values: Tensor, of_left: Tensor | None, of_right: Tensor | None) -> Tensor:
    """What stands beside the diagonal, divided by the differences of squared values."""
    across, down = unsqueezed(k, values, values.ndim - 1), unsqueezed(k, values, values.ndim)
    squares = elementwise(k, values, values)
    apart = elementwise(k, unsqueezed(k, squares, values.ndim - 1), unsqueezed(k, squares, values.ndim))
    k.free(squares)
    if of_left is not None and of_right is not None:
        one, other = elementwise(k, of_left, across), elementwise(k, down, of_right)
        total = elementwise(k, one, other)
        made = elementwise(k, total, apart)
        k.free(total, other, one)
    elif of_left is not None:
        part = elementwise(k, of_left, apart)
        made = elementwise(k, part, across)
        k.free(part)
    else:
        assert of_right is not None
        part = elementwise(k, of_right, apart)
        made = elementwise(k, down, part)
        k.free(part)
    k.free(apart)
    return made


def _projected(k: Tape, inner: Tensor, scaled: Tensor, chain: tuple[Tensor, Tensor, Tensor], from_left: bool) -> Tensor:
    """The sum, less what lies within the space of the vectors: a ``chain`` of products, which comes first."""
    one, two, three = chain
    part = product_of(k, one, two) if from_left else product_of(k, two, three)
    lost = product_of(k, part, three) if from_left else product_of(k, one, part)
    total = elementwise(k, inner, scaled)
    made = elementwise(k, total, lost)
    k.free(total, lost, part)
    return made


SHAPES = ((2, 3, 50), (50, 3), (4, 4), (2, 50, 3), (2, 3, 3, 50))
FACTS = EVERYWHERE_FACTS.but(autocast=FLOAT32)
SOURCE = "derivatives.yaml: _linalg_svd; aten/src/ATen/native/BatchLinearAlgebra.cpp"
SAVES = ("left", "values", "right")
ROWS = (
    row(
        "linalg_svd",
        _svd,
        _svd_backward,
        (attribute("full_matrices", True, flag),),
        (
            *(Example(shapes=(s,), attributes={"full_matrices": False}) for s in SHAPES),
            Example(shapes=((4, 4),), attributes={}),
            *(Example(shapes=(s,), attributes={"full_matrices": full}, frozen=(0,)) for s in SHAPES[:2] for full in (True, False)),
        ),
        SOURCE,
        facts=FACTS,
        saves=SAVES,
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
        saves=SAVES,
        torch="torch.linalg.svdvals",
    ),
)
COMPOSITE_ROWS = ()
