"""Matrix products, and what is made of them: matmul and linear.

``matmul`` is a composite: it folds its operands into matrices where it can, else into one batch of matrices. ``linear`` is a matrix
product with the transposed weight, with the bias fused in where the input is contiguous.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from memest.errors import ShapeError
from memest.network.tensor import Shape, is_contiguous
from memest.network.tensor import broadcast as broadcast_sizes
from memest.ops.aten.cublas import vector_by_vector
from memest.ops.aten.gemm import batched_product, matrix_vector, mm, transpose
from memest.ops.aten.iterator import broadcast_shape, elementwise, with_number
from memest.ops.aten.products import is_onednn_product, onednn_product
from memest.ops.composite import Caller, Composite
from memest.ops.facts import EVERYWHERE_CALLS, EVERYWHERE_FACTS, LOWER, product_of
from memest.ops.operator import Attribute, Example, Operator, number
from memest.ops.tape import Tape, Tensor

Saved = dict[str, Any]
Grads = Sequence[Tensor | None]


def _incoming(grads: Grads) -> Tensor:
    (grad,) = grads
    assert grad is not None
    return grad


def _multiplied(k: Tape, t: Tensor, factor: float) -> Tensor:
    """``maybe_multiply``: one is free."""
    if factor == 1:
        return t
    out = with_number(k, t, factor)
    k.free(t)
    return out


# matrices --------------------------------------------------------------------------------------------------------------


def _mm(k: Tape, input: Tensor, mat2: Tensor) -> Tensor:
    _keep(k, "mat2", mat2, k.needs[0])
    _keep(k, "input", input, k.needs[1])
    return mm(k, input, mat2)


def _keep(k: Tape, role: str, t: Tensor, needed: bool) -> None:
    """Save an operand for the other one's gradient; its metadata is kept anyway."""
    k.note(**{f"{role}_like": (t.shape, t.strides)})
    if needed:
        k.save(**{role: t})


def _mm_backward(k: Tape, saved: Saved, grads: Grads) -> list[Tensor | None]:
    grad = _incoming(grads)
    second = _second_gradient(k, grad, saved["input"], saved["mat2_like"], 1) if k.needs[1] else None
    first = _first_gradient(k, grad, saved["mat2"], saved["input_like"], 1) if k.needs[0] else None
    return [first, second]


def _first_gradient(k: Tape, grad: Tensor, mat2: Tensor, like: tuple[Shape, Shape], alpha: float) -> Tensor:
    """``mm_mat1_grad``: column-major, by way of the transposed product, where the operand is."""
    if _is_column_major(like):
        return _transposed(k, _multiplied(k, mm(k, mat2, _transposed(k, grad), conjugate=mat2), alpha))
    turned = _transposed(k, mat2)
    return _multiplied(k, mm(k, grad, turned, conjugate=turned), alpha)


def _second_gradient(k: Tape, grad: Tensor, mat1: Tensor, like: tuple[Shape, Shape], alpha: float) -> Tensor:
    """``mm_mat2_grad``: column-major, by way of the transposed product, where the operand is (a transposed weight is)."""
    if _is_column_major(like):
        return _transposed(k, _multiplied(k, mm(k, _transposed(k, grad), mat1, conjugate=mat1), alpha))
    turned = _transposed(k, mat1)
    return _multiplied(k, mm(k, turned, grad, conjugate=turned), alpha)


def _is_column_major(like: tuple[Shape, Shape]) -> bool:
    shape, strides = like
    return strides[0] == 1 and strides[1] == shape[0]


def _transposed(k: Tape, t: Tensor) -> Tensor:
    return transpose(k, t, t.ndim - 2, t.ndim - 1)


def _addmm(k: Tape, input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float, alpha: float) -> Tensor:
    _keep(k, "mat1", mat1, k.needs[2])
    _keep(k, "mat2", mat2, k.needs[1])
    out = mm(k, mat1, mat2, input if beta == 1 else None)
    _check_added(input, out)
    return out


def _check_added(input: Tensor, out: Tensor) -> None:
    if broadcast_shape(input, out) != out.shape:
        raise ShapeError(f"{list(input.shape)} does not broadcast to the product's shape {list(out.shape)}")


def _addmm_backward(k: Tape, saved: Saved, grads: Grads, *, beta: float, alpha: float) -> list[Tensor | None]:
    grad = _incoming(grads)
    first = _first_gradient(k, grad, saved["mat2"], saved["mat1_like"], alpha) if k.needs[1] else None
    second = _second_gradient(k, grad, saved["mat1"], saved["mat2_like"], alpha) if k.needs[2] else None
    added = _multiplied(k, grad, beta) if k.needs[0] else None
    return [added, first, second]


# batches of matrices ---------------------------------------------------------------------------------------------------


def _bmm(k: Tape, input: Tensor, mat2: Tensor) -> Tensor:
    if k.needs[0]:
        k.save(mat2=mat2)
    if k.needs[1]:
        k.save(input=input)
    return batched_product(k, input, mat2)


def _bmm_backward(k: Tape, saved: Saved, grads: Grads) -> list[Tensor | None]:
    grad = _incoming(grads)
    first = second = None
    if k.needs[1]:
        turned = _transposed(k, saved["input"])
        second = batched_product(k, turned, grad, conjugate=turned)
    if k.needs[0]:
        turned = _transposed(k, saved["mat2"])
        first = batched_product(k, grad, turned, conjugate=turned)
    return [first, second]


def _baddbmm(k: Tape, input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float, alpha: float) -> Tensor:
    if k.needs[2]:
        k.save(batch1=batch1)
    if k.needs[1]:
        k.save(batch2=batch2)
    out = batched_product(k, batch1, batch2, added=True)
    _check_added(input, out)
    return out


def _baddbmm_backward(k: Tape, saved: Saved, grads: Grads, *, beta: float, alpha: float) -> list[Tensor | None]:
    grad = _incoming(grads)
    first = _multiplied(k, batched_product(k, grad, _transposed(k, saved["batch2"])), alpha) if k.needs[1] else None
    second = _multiplied(k, batched_product(k, _transposed(k, saved["batch1"]), grad), alpha) if k.needs[2] else None
    added = _multiplied(k, grad, beta) if k.needs[0] else None
    return [added, first, second]


# vectors ---------------------------------------------------------------------------------------------------------------


def _mv(k: Tape, input: Tensor, vec: Tensor) -> Tensor:
    if k.needs[1]:
        k.save(input=input)
    if k.needs[0]:
        k.save(vec=vec)
    return matrix_vector(k, input, vec)


def _mv_backward(k: Tape, saved: Saved, grads: Grads) -> list[Tensor | None]:
    grad = _incoming(grads)
    first = k.empty((grad.shape[0], saved["vec"].shape[0]), grad.dtype) if k.needs[0] else None
    second = matrix_vector(k, _transposed(k, saved["input"]), grad) if k.needs[1] else None
    return [first, second]


def _dot(k: Tape, input: Tensor, tensor: Tensor) -> Tensor:
    if input.ndim != 1 or input.shape != tensor.shape:
        raise ShapeError(f"vectors of shapes {list(input.shape)} and {list(tensor.shape)} cannot be multiplied")
    if k.needs[0]:
        k.save(tensor=tensor)
    if k.needs[1]:
        k.save(input=input)
    if k.target.on_cuda:
        return vector_by_vector(k, input)
    return onednn_product(k, input, tensor) if is_onednn_product(k.target.cpu, input, tensor) else k.empty((), input.dtype)


def _dot_backward(k: Tape, saved: Saved, grads: Grads) -> list[Tensor | None]:
    grad = _incoming(grads)
    first = elementwise(k, grad, saved["tensor"]) if k.needs[0] else None
    second = elementwise(k, grad, saved["input"]) if k.needs[1] else None
    return [first, second]


# composites ------------------------------------------------------------------------------------------------------------


def matmul(c: Caller, input: Any, other: Any) -> Any:
    """``at::matmul`` of any dims."""
    dims = (len(input.shape), len(other.shape))
    if 0 in dims:
        raise ShapeError("both operands need at least one dimension")
    if dims == (1, 1):
        return c.call("dot", input, other)
    if dims == (2, 1):
        return c.call("mv", input, other)
    if dims == (1, 2):
        product = c.call("mm", c.call("unsqueeze", input, dim=0), other)
        return c.call("_unsafe_view", product, shape=other.shape[1:])  # squeeze_, in place
    if dims == (2, 2):
        return c.call("mm", input, other)
    return _folded(c, input, other) if _should_fold(input, other) else _batched(c, input, other)


def _should_fold(a: Any, b: Any) -> bool:
    """True when the larger operand is seen as one matrix: always where the smaller one says that it needs a gradient (a view of a trainable
    tensor does even under ``no_grad``), else only without a copy."""
    first_larger = len(a.shape) >= len(b.shape)
    large, small = (a, b) if first_larger else (b, a)
    if len(large.shape) < 3 or len(small.shape) > 2:
        return False
    if small.says_grad:
        return True
    if len(a.shape) == 2:
        return False
    shape, strides = list(large.shape), list(large.spec.strides)
    if not first_larger:
        shape[-2:], strides[-2:] = reversed(shape[-2:]), reversed(strides[-2:])
    return 0 in shape or all(strides[d] == strides[d + 1] * shape[d + 1] for d in range(len(shape) - 2))


def _folded(c: Caller, a: Any, b: Any) -> Any:
    swap = len(b.shape) > len(a.shape)
    large = c.call("transpose", b, dim0=-2, dim1=-1) if swap else a
    small = (c.call("t", a) if len(a.shape) == 2 else a) if swap else b
    lead, last = large.shape[:-1], large.shape[-1]
    matrix = c.call("reshape", large, shape=(prod(lead), last))
    if len(small.shape) == 1:
        return c.call("_unsafe_view", c.call("mv", matrix, small), shape=lead)
    out = c.call("_unsafe_view", c.call("mm", matrix, small), shape=(*lead, small.shape[1]))
    return c.call("contiguous", c.call("transpose", out, dim0=-2, dim1=-1)) if swap else out


def _batched(c: Caller, a: Any, b: Any) -> Any:
    ndim_a, ndim_b = len(a.shape), len(b.shape)
    if ndim_a == 3 and ndim_b == 3 and a.shape[0] != b.shape[0]:
        if a.shape[0] == 1 and a.says_grad:
            return matmul(c, c.call("squeeze", a, dim=0), b)
        if b.shape[0] == 1 and b.says_grad:
            return matmul(c, a, c.call("squeeze", b, dim=0))
    rows, inner = (a.shape[-2] if ndim_a > 1 else 1), a.shape[-1]
    batch = _common_batch(a.shape[:-2], b.shape[:-2])
    left = _as_batch(c, a, (*batch, rows, inner), (prod(batch), rows, inner))
    if ndim_b == 1:
        vectors = _as_batch(c, b, (*batch, b.shape[0]), (prod(batch), b.shape[0]))
        product = c.call("bmm", left, c.call("unsqueeze", vectors, dim=2))
        return c.call("_unsafe_view", c.call("squeeze", product, dim=-1), shape=(*batch, rows))
    cols = b.shape[-1]
    right = _as_batch(c, b, (*batch, b.shape[-2], cols), (prod(batch), b.shape[-2], cols))
    shape = (*batch, rows, cols) if ndim_a > 1 else (*batch, cols)
    return c.call("_unsafe_view", c.call("bmm", left, right), shape=shape)


def _common_batch(first: Shape, second: Shape) -> Shape:
    try:
        return broadcast_sizes(first, second)
    except ValueError as e:
        raise ShapeError(str(e)) from None


def _as_batch(c: Caller, t: Any, expanded: Shape, shape: Shape) -> Any:
    return c.call("reshape", c.call("expand", t, size=expanded), shape=shape)


def _linear(c: Caller, input: Any, weight: Any, bias: Any) -> Any:
    ndim = len(input.shape)
    if ndim == 0 or len(weight.shape) == 0 or input.shape[-1] != weight.shape[-1]:
        raise ShapeError(f"the weight {list(weight.shape)} does not fit an input of shape {list(input.shape)}")
    if bias is not None and ndim == 2:
        return c.call("addmm", bias, input, c.call("t", weight))
    if bias is not None and len(bias.shape) == 1 and all(is_contiguous(v.shape, v.spec.strides) for v in (bias, input)):
        flat = c.call("view", input, shape=(prod(input.shape[:-1]), input.shape[-1]))
        product = c.call("addmm", bias, flat, c.call("t", weight))
        return c.call("view", product, shape=(*input.shape[:-1], product.shape[1]))
    if bias is not None and c.target.dispatched:  # isTensorSubclassLike: not in place
        return c.call("add", c.call("matmul", input, c.call("t", weight)), bias)
    out = matmul(c, input, c.call("t", weight))
    return out if bias is None else c.call("add", out, bias, inplace=True)


BETA = Attribute(name="beta", default=1, check=number)
ALPHA = Attribute(name="alpha", default=1, check=number)
KERNELS = "aten/src/ATen/native/LinearAlgebra.cpp; torch/csrc/autograd/FunctionsManual.cpp (mm_mat1_grad, mm_mat2_grad)"

ROWS = (
    Operator(
        name="mm",
        torch="torch.mm",
        roles=("input", "mat2"),
        attributes=(),
        forward=_mm,
        saves=("input", "mat2"),
        backward=_mm_backward,
        examples=(
            Example(shapes=((4, 5), (5, 6)), attributes={}),
            Example(shapes=((4, 5), (5, 6)), attributes={}, layout="transposed"),
            Example(shapes=((4, 5), (5, 1)), attributes={}, frozen=(0,)),
            Example(shapes=((200, 50), (50, 60)), attributes={}, dtypes=("bfloat16",) * 2),
            Example(shapes=((40, 50), (50, 60)), attributes={}, dtypes=("float16",) * 2),
        ),
        facts=EVERYWHERE_FACTS.but(autocast=LOWER, flops=product_of(0)),
        source=f"derivatives.yaml: mm; {KERNELS}",
    ),
    Operator(
        name="addmm",
        torch="torch.addmm",
        roles=("input", "mat1", "mat2"),
        attributes=(BETA, ALPHA),
        forward=_addmm,
        saves=("mat1", "mat2"),
        backward=_addmm_backward,
        examples=(
            Example(shapes=((6,), (4, 5), (5, 6)), attributes={}),
            Example(shapes=((4, 6), (4, 5), (5, 6)), attributes={"beta": 0.5, "alpha": 2.0}),
            Example(shapes=((1, 6), (4, 5), (5, 6)), attributes={}, frozen=(1,)),
            Example(shapes=((60,), (40, 50), (50, 60)), attributes={}, dtypes=("bfloat16",) * 3),
        ),
        facts=EVERYWHERE_FACTS.but(autocast=LOWER, flops=product_of(1)),
        source=f"derivatives.yaml: addmm; {KERNELS}",
    ),
    Operator(
        name="bmm",
        torch="torch.bmm",
        roles=("input", "mat2"),
        attributes=(),
        forward=_bmm,
        saves=("input", "mat2"),
        backward=_bmm_backward,
        examples=(
            Example(shapes=((3, 4, 5), (3, 5, 6)), attributes={}),
            Example(shapes=((3, 10, 12), (3, 12, 14)), attributes={}, layout="transposed"),
            Example(shapes=((3, 20, 30), (3, 30, 14)), attributes={}, dtypes=("bfloat16",) * 2),
            Example(shapes=((3, 4, 5), (3, 5, 6)), attributes={}, dtypes=("complex64",) * 2),
            Example(shapes=((3, 10, 12), (3, 12, 14)), attributes={}, dtypes=("complex64",) * 2, layout="transposed"),
        ),
        facts=EVERYWHERE_FACTS.but(autocast=LOWER, flops=product_of(0)),
        source=f"derivatives.yaml: bmm; {KERNELS}",
    ),
    Operator(
        name="baddbmm",
        torch="torch.baddbmm",
        roles=("input", "batch1", "batch2"),
        attributes=(BETA, ALPHA),
        forward=_baddbmm,
        saves=("batch1", "batch2"),
        backward=_baddbmm_backward,
        examples=(
            Example(shapes=((3, 4, 6), (3, 4, 5), (3, 5, 6)), attributes={}),
            Example(shapes=((3, 1, 6), (3, 4, 5), (3, 5, 6)), attributes={"beta": 0.5, "alpha": 2.0}),
        ),
        facts=EVERYWHERE_FACTS.but(autocast=LOWER, flops=product_of(1)),
        source=f"derivatives.yaml: baddbmm; {KERNELS}",
    ),
    Operator(
        name="mv",
        torch="torch.mv",
        roles=("input", "vec"),
        attributes=(),
        forward=_mv,
        saves=("input", "vec"),
        backward=_mv_backward,
        examples=(
            Example(shapes=((4, 5), (5,)), attributes={}),
            Example(shapes=((200, 50), (50,)), attributes={}, dtypes=("bfloat16",) * 2),
        ),
        facts=EVERYWHERE_FACTS.but(flops=product_of(0)),
        source="derivatives.yaml: mv; aten/src/ATen/native/Blas.cpp",
    ),
    *(
        Operator(
            name=name,
            torch=f"torch.{name}",
            roles=("input", "tensor"),
            attributes=(),
            forward=_dot,
            saves=("input", "tensor"),
            backward=_dot_backward,
            examples=(Example(shapes=((5,), (5,)), attributes={}),),
            facts=EVERYWHERE_FACTS.but(flops=product_of(0)),
            source=f"derivatives.yaml: {name}; aten/src/ATen/native/Blas.cpp",
        )
        for name in ("dot", "vdot")
    ),
)

COMPOSITE_ROWS = (
    Composite(
        name="matmul",
        torch="torch.matmul",
        roles=("input", "other"),
        attributes=(),
        compose=matmul,
        examples=(
            Example(shapes=((4, 5), (5, 6)), attributes={}),
            Example(shapes=((3, 4, 5), (5, 6)), attributes={}),
            Example(shapes=((4, 5), (3, 5, 6)), attributes={}),
            Example(shapes=((2, 3, 4, 5), (3, 5, 6)), attributes={}),
            Example(shapes=((2, 3, 4, 5), (2, 3, 5, 6)), attributes={}),
            Example(shapes=((3, 4, 5), (5,)), attributes={}),
            Example(shapes=((5,), (3, 5, 6)), attributes={}),
        ),
        facts=EVERYWHERE_CALLS.but(autocast=LOWER),
        source="aten/src/ATen/native/LinearAlgebra.cpp (_matmul_impl)",
    ),
    Composite(
        name="linear",
        torch="torch.nn.functional.linear",
        roles=("input", "weight", "bias?"),
        attributes=(),
        compose=_linear,
        examples=(
            Example(shapes=((4, 5), (6, 5), (6,)), attributes={}),
            Example(shapes=((4, 5), (6, 5), None), attributes={}),
            Example(shapes=((2, 4, 5), (6, 5), (6,)), attributes={}),
            Example(shapes=((2, 4, 5), (6, 5), (6,)), attributes={}, layout="transposed"),
            Example(shapes=((2, 3, 4, 5), (6, 5), None), attributes={}),
            Example(shapes=((5,), (6, 5), (6,)), attributes={}),
            Example(shapes=((200, 50), (60, 50), (60,)), attributes={}, dtypes=("bfloat16",) * 3),
        ),
        facts=EVERYWHERE_CALLS.but(autocast=LOWER),
        source="aten/src/ATen/native/Linear.cpp",
    ),
)
