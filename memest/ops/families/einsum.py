"""``einsum``: operands are aligned label by label, then contracted in pairs, left to right, by one batch of matrix products a pair.

Source: aten/src/ATen/native/Linear.cpp (einsum, sumproduct_pair). Labels that repeat within an operand (diagonals) are refused, and so
are contraction paths: torch follows one only when opt_einsum is installed.
"""

from __future__ import annotations

from math import prod
from typing import Any

from memest.errors import ShapeError
from memest.network.dtypes import COMPLEX
from memest.ops.composite import Caller, Composite
from memest.ops.equations import parsed, torch_order
from memest.ops.facts import EVERYWHERE_CALLS
from memest.ops.operator import REQUIRED, Attribute, Example, integers, text


def _einsum(c: Caller, operands: list[Any], *, equation: str) -> Any:
    inputs, output = parsed(equation, [t.shape for t in operands])
    hidden = sorted({label for labels in inputs for label in labels} - set(output), key=torch_order)
    order = [*output, *hidden]
    aligned = [_aligned(c, operand, labels, order) for operand, labels in zip(operands, inputs, strict=True)]
    _check_sizes(aligned, order)
    summed = range(len(output), len(order))
    counts = {d: sum(t.shape[d] != 1 for t in aligned) for d in summed}
    result = aligned[0]
    for other in aligned[1:]:
        done, result = result, c.call("_einsum_pair", result, other, **_dims_to_sum(result, other, summed, counts))
        c.drop(done)
    if not hidden:
        return result
    if len(operands) > 1:
        return c.call("view", result, shape=result.shape[: len(output)])
    return c.call("sum", result, dim=tuple(summed))


def _aligned(c: Caller, operand: Any, labels: list[str], order: list[str]) -> Any:
    """The operand with a dim for every label, in the common order; what it lacks has size 1."""
    at = {label: d for d, label in enumerate(labels)}
    for label in order:
        if label not in at:
            at[label] = len(at)
            operand = c.call("unsqueeze", operand, dim=at[label])
    return c.call("permute", operand, dims=tuple(at[label] for label in order))


def _check_sizes(aligned: list[Any], order: list[str]) -> None:
    for d, label in enumerate(order):
        sizes = {t.shape[d] for t in aligned} - {1}
        if len(sizes) > 1:
            raise ShapeError(f"label {label!r} stands for sizes {sorted(sizes)}")


def _dims_to_sum(a: Any, b: Any, summed: range, counts: dict[int, int]) -> dict[str, tuple[int, ...]]:
    """The dims that no later operand has: those of one of the two can be summed at once, those of both by the product."""
    alone: dict[str, list[int]] = {"left_dims": [], "right_dims": [], "shared_dims": []}
    for d in summed:
        in_a, in_b = a.shape[d] != 1, b.shape[d] != 1
        if in_a and in_b:
            counts[d] -= 1
        if counts[d] == 1 and (in_a or in_b):
            alone["shared_dims" if in_a and in_b else "left_dims" if in_a else "right_dims"].append(d)
            counts[d] = 0
    return {name: tuple(dims) for name, dims in alone.items()}


def _pair(
    c: Caller, left: Any, right: Any, *, left_dims: tuple[int, ...], right_dims: tuple[int, ...], shared_dims: tuple[int, ...]
) -> Any:
    if left_dims:
        left = c.call("sum", left, dim=left_dims, keepdim=True)
    if right_dims:
        right = c.call("sum", right, dim=right_dims, keepdim=True)
    return _sumproduct_pair(c, left, right, shared_dims)


def _sumproduct_pair(c: Caller, left: Any, right: Any, summed: tuple[int, ...]) -> Any:
    """``(left * right).sum(summed)`` as a batch of matrix products: dims of both, of one, of the other, and those summed."""
    if not summed:
        return c.call("complex_mul" if COMPLEX & {left.spec.dtype, right.spec.dtype} else "mul", left, right)
    both, only_left, only_right = _sorted_dims(left, right, summed)
    if only_left and only_right and only_right[-1] < only_left[0]:
        left, right, only_left, only_right = right, left, only_right, only_left
    batch, rows, cols = (
        prod(left.shape[d] for d in both),
        prod(left.shape[d] for d in only_left),
        prod(right.shape[d] for d in only_right),
    )
    inner = prod(left.shape[d] for d in summed)
    shape = [left.shape[d] for d in (*both, *only_left)] + [1] * len(summed) + [right.shape[d] for d in only_right]
    a = c.call("permute", left, dims=(*both, *only_left, *summed, *only_right))
    a = c.call("reshape", a, shape=(batch, rows, inner))
    b = c.call("permute", right, dims=(*both, *summed, *only_right, *only_left))
    b = c.call("reshape", b, shape=(batch, inner, cols))
    order = [*both, *only_left, *summed, *only_right]
    product = c.call("view", c.call("bmm", a, b), shape=tuple(shape))
    return c.call("permute", product, dims=tuple(order.index(d) for d in range(len(order))))


def _sorted_dims(left: Any, right: Any, summed: tuple[int, ...]) -> tuple[list[int], list[int], list[int]]:
    both: list[int] = []
    only_left: list[int] = []
    only_right: list[int] = []
    for d, (m, n) in enumerate(zip(left.shape, right.shape, strict=True)):
        if d not in summed:
            (both if m != 1 and n != 1 else only_left if m != 1 else only_right).append(d)
    return both, only_left, only_right


ROWS = ()
COMPOSITE_ROWS = (
    Composite(
        name="_einsum_pair",
        torch="torch.einsum",
        oracle="einsum_pair",
        roles=("left", "right"),
        attributes=tuple(Attribute(name=name, default=(), check=integers) for name in ("left_dims", "right_dims", "shared_dims")),
        compose=_pair,
        examples=(Example(shapes=((2, 3, 4), (2, 1, 4)), attributes={"shared_dims": (2,)}),),
        facts=EVERYWHERE_CALLS,
        source="aten/src/ATen/native/Linear.cpp (sumproduct_pair)",
    ),
    Composite(
        name="einsum",
        torch="torch.einsum",
        oracle="einsum",
        roles=("operands*",),
        attributes=(Attribute(name="equation", default=REQUIRED, check=text),),
        compose=_einsum,
        examples=(
            Example(shapes=([(2, 3, 4, 5), (2, 3, 6, 5)],), attributes={"equation": "bhid,bhjd->bhij"}),
            Example(shapes=([(2, 8, 5, 6), (4, 8)],), attributes={"equation": "nchw,oc->nohw"}),
            Example(shapes=([(2, 3, 4), (4, 5)],), attributes={"equation": "...i,ij"}),
            Example(shapes=([(3, 4)],), attributes={"equation": "ij->j"}),
        ),
        facts=EVERYWHERE_CALLS,
        source="aten/src/ATen/native/Linear.cpp (einsum, sumproduct_pair)",
    ),
)
