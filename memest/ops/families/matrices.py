"""Matrices and vectors: sums with products, blocks along a diagonal, and distances of two tensors.

Source: aten/src/ATen/native/Blas.cpp (``addmv``), LinearAlgebra.cpp (``addr``), TensorShape.cpp
(``block_diag``); torch/csrc/autograd/FunctionsManual.cpp (``block_diag_backward``).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from math import prod
from typing import Any

from memest.errors import ShapeError, UnsupportedError
from memest.network.dtypes import promote
from memest.ops.aten.gemm import matrix_vector, transpose
from memest.ops.aten.iterator import broadcast_shape, elementwise, incoming, wants, with_number
from memest.ops.aten.places import refuse_on_cuda
from memest.ops.facts import EVERYWHERE_FACTS
from memest.ops.operator import Example, number
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import DERIVED, attribute, calls, row

Saved = dict[str, Any]
Grads = Sequence[Tensor | None]


def _scaled(k: Tape, t: Tensor, factor: float) -> Tensor:
    """``maybe_multiply``: one is free."""
    if factor == 1:
        return t
    out = with_number(k, t, factor)
    k.free(t)
    return out


def _outer(k: Tape, one: Tensor, other: Tensor) -> Tensor:
    """A column times a row."""
    return elementwise(k, k.view(one, (one.shape[0], 1), (one.strides[0], 1)), other)


def _addmv(k: Tape, input: Tensor, mat: Tensor, vec: Tensor, *, beta: float, alpha: float) -> Tensor:
    refuse_on_cuda(k)
    k.save(mat=mat if k.needs[2] else None, vec=vec if k.needs[1] else None)
    out = matrix_vector(k, mat, vec)
    if broadcast_shape(input, out) != out.shape:
        raise ShapeError(f"{list(input.shape)} does not broadcast to the product's shape {list(out.shape)}")
    return out


def _addmv_backward(k: Tape, saved: Saved, grads: Grads, *, beta: float, alpha: float) -> list[Tensor | None]:
    """The matrix's first, the vector's last."""
    grad = incoming(grads)
    of_mat = _scaled(k, _outer(k, grad, saved["vec"]), alpha) if k.needs[1] else None
    added = _scaled(k, grad, beta) if k.needs[0] else None
    of_vec = _scaled(k, matrix_vector(k, transpose(k, saved["mat"], 0, 1), grad), alpha) if k.needs[2] else None
    return [added, of_mat, of_vec]


def _addr(k: Tape, input: Tensor, vec1: Tensor, vec2: Tensor, *, beta: float, alpha: float) -> Tensor:
    """One kernel of three operands."""
    refuse_on_cuda(k)
    if vec1.ndim != 1 or vec2.ndim != 1:
        raise ShapeError(f"addr takes two vectors, got shapes {list(vec1.shape)} and {list(vec2.shape)}")
    k.save(vec1=vec1 if k.needs[2] else None, vec2=vec2 if k.needs[1] else None)
    return k.empty((vec1.shape[0], vec2.shape[0]), reduce(promote, (input.dtype, vec1.dtype, vec2.dtype)))


def _addr_backward(k: Tape, saved: Saved, grads: Grads, *, beta: float, alpha: float) -> list[Tensor | None]:
    grad = incoming(grads)
    added = _scaled(k, grad, beta) if k.needs[0] else None
    of_first = _scaled(k, matrix_vector(k, grad, saved["vec2"]), alpha) if k.needs[1] else None
    of_second = _scaled(k, matrix_vector(k, transpose(k, grad, 0, 1), saved["vec1"]), alpha) if k.needs[2] else None
    return [added, of_first, of_second]


def _block_diag(k: Tape, tensors: list[Tensor]) -> Tensor:
    refuse_on_cuda(k)
    if any(t.ndim > 2 for t in tensors):
        raise ShapeError("block_diag takes tensors of two dims at most")
    shapes = [(1,) * (2 - t.ndim) + t.shape for t in tensors]
    k.note(sizes=tuple(t.shape for t in tensors))
    rows, columns = (sum((s[d] for s in shapes[1:]), shapes[0][d]) for d in (0, 1))
    return k.empty((rows, columns), reduce(promote, (t.dtype for t in tensors)))


def _block_diag_backward(k: Tape, saved: Saved, grads: Grads) -> list[Tensor | None]:
    """Views of the gradient, of two dims each but for those of one number."""
    grad = incoming(grads)
    shapes = [sizes if prod(sizes) == 1 else (1,) * (2 - len(sizes)) + sizes for sizes in saved["sizes"]]
    return [k.view(grad, s, grad.strides[2 - len(s) :]) if wants(k, at) else None for at, s in enumerate(shapes)]


def _dist(k: Tape, input: Tensor, other: Tensor, *, p: float) -> Tensor:
    """The norm of a difference."""
    refuse_on_cuda(k)
    if k.grad_enabled and p != 2:
        raise UnsupportedError(f"the gradient of torch.dist with p={p} has no rule: torch.linalg.vector_norm(x - y, p) has")
    k.save(other=other, input=input)
    apart = elementwise(k, input, other)
    out = k.empty((), apart.dtype)
    k.save(result=out)
    k.free(apart)
    return out


def _dist_backward(k: Tape, saved: Saved, grads: Grads, *, p: float) -> list[Tensor | None]:
    """norm_backward(grad, self - other, p, result) for each, that of ``other`` first and negated."""
    grad, result = incoming(grads), saved["result"]
    out: list[Tensor | None] = [None, None]
    for at in (1, 0):
        if wants(k, at):
            apart = elementwise(k, saved["input"], saved["other"])
            ratio = elementwise(k, apart, result)
            mask = with_number(k, result, 0, "bool")
            made = elementwise(k, ratio, grad)
            k.free(mask, ratio)
            if at:
                turned = elementwise(k, made)
                k.free(made)
                made = turned
            k.free(apart)
            out[at] = made
    return out


BETA, ALPHA = attribute("beta", 1, number), attribute("alpha", 1, number)
ROWS = (
    row(
        "addmv",
        _addmv,
        _addmv_backward,
        (BETA, ALPHA),
        calls((((3,), (3, 4), (4,)), {}), (((3,), (3, 4), (4,)), {"beta": 0.5, "alpha": 2.0}), (((1,), (3, 4), (4,)), {})),
        f"{DERIVED}/Blas.cpp",
        facts=EVERYWHERE_FACTS,
        roles=("input", "mat", "vec"),
        saves=("mat", "vec"),
    ),
    row(
        "addr",
        _addr,
        _addr_backward,
        (BETA, ALPHA),
        calls((((3, 4), (3,), (4,)), {}), (((3, 4), (3,), (4,)), {"beta": 0.5, "alpha": 2.0}), (((4,), (3,), (4,)), {})),
        f"{DERIVED}/LinearAlgebra.cpp",
        facts=EVERYWHERE_FACTS,
        roles=("input", "vec1", "vec2"),
        saves=("vec1", "vec2"),
    ),
    row(
        "block_diag",
        _block_diag,
        _block_diag_backward,
        (),
        (Example(shapes=([(3, 4), (2, 5)],), attributes={}), Example(shapes=([(3, 4), (2,), ()],), attributes={})),
        f"{DERIVED}/TensorShape.cpp",
        facts=EVERYWHERE_FACTS,
        roles=("tensors*",),
        oracle="block_diag",
    ),
    row(
        "dist",
        _dist,
        _dist_backward,
        (attribute("p", 2, number),),
        calls((((3, 4), (3, 4)), {}), (((3, 4), (4,)), {})),
        f"{DERIVED}/Distance.cpp",
        facts=EVERYWHERE_FACTS,
        roles=("input", "other"),
        saves=("input", "other", "result"),
    ),
)
COMPOSITE_ROWS = ()
