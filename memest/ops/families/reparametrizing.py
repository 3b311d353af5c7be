"""Weights made anew from other parameters in every forward: weight norm.

Along the first or the last dim one kernel makes the weight and the norms that backward reads; along another the weight is written with
operators that autograd knows. Sources: aten/src/ATen/native/WeightNorm.cpp, cpu/WeightNormKernel.cpp.
"""

from __future__ import annotations

from typing import Any

from memest.errors import ShapeError
from memest.ops.aten.copies import contiguous
from memest.ops.aten.iterator import incoming
from memest.ops.composite import Caller, refuse_on_cuda
from memest.ops.facts import EVERYWHERE_CALLS, EVERYWHERE_FACTS
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import attribute, calls, composite, row

Saved = dict[str, Any]
Grads = list[Tensor | None]


def _fused(k: Tape, v: Tensor, g: Tensor, *, dim: int) -> Tensor:
    """The norms are for backward alone, float32 at least. Along the last dim every thread sums apart."""
    k.save(g=g, v=v)
    out = k.empty(v.shape, v.dtype)
    norms = k.empty(g.shape, "float32" if v.dtype in ("bfloat16", "float16") else g.dtype, g.strides)
    if dim:
        k.free(k.empty((k.target.cpu.threads, v.shape[-1]), norms.dtype))
    k.save(norms=norms)
    return out


def _fused_backward(k: Tape, saved: Saved, grads: Grads, *, dim: int) -> Grads:
    grad = grads[0]
    assert grad is not None
    v, g = saved["v"], saved["g"]
    dense = contiguous(k, grad)
    out, other = k.empty(v.shape, v.dtype), k.empty(g.shape, g.dtype)
    if dim:
        k.free(k.empty((k.target.cpu.threads + 1, v.shape[-1]), saved["norms"].dtype))
    k.free(None if dense is incoming([grad]) else dense)
    return [out, other]


def _weight_norm(c: Caller, v: Any, g: Any, *, dim: int) -> Any:
    refuse_on_cuda(c, "weight norm")
    ndim = len(v.shape)
    if not -1 <= dim < ndim:
        raise ShapeError(f"weight_norm along dim {dim} of a weight of {ndim}")
    weight, size = c.call("contiguous", v), c.call("contiguous", g)
    if dim in (0, ndim - 1):
        return c.call("_weight_norm_interface", weight, size, dim=dim)
    return c.call("mul", weight, c.call("div", size, _norms(c, weight, dim)))


def _norms(c: Caller, v: Any, dim: int) -> Any:
    """``norm_except_dim``."""
    if dim == -1:
        return c.call("norm", v)
    turned = c.call("transpose", v, dim0=0, dim1=dim)
    n = turned.shape[0]
    dense = c.call("contiguous", turned)
    flat = c.call("view", dense, shape=(n, -1))
    norms = c.call("norm", flat, p=2, dim=1)
    c.drop(flat, dense)
    return c.call("transpose", c.call("view", norms, shape=(n, *[1] * (len(v.shape) - 1))), dim0=0, dim1=dim)


DIM = attribute("dim", 0)
KERNEL = (6, 5, 3, 3)
ROWS = (
    row(
        "_weight_norm_interface",
        _fused,
        _fused_backward,
        (DIM,),
        calls(((KERNEL, (6, 1, 1, 1)), {}), (((6, 5), (1, 5)), {"dim": 1})),
        "derivatives.yaml: {}; aten/src/ATen/native/WeightNorm.cpp, cpu/WeightNormKernel.cpp",
        facts=EVERYWHERE_FACTS,
        roles=("v", "g"),
        saves=("v", "g", "norms"),
        oracle="weight_norm_interface",
    ),
)
COMPOSITE_ROWS = (
    composite(
        "_weight_norm",
        _weight_norm,
        (DIM,),
        calls(
            ((KERNEL, (6, 1, 1, 1)), {}),
            ((KERNEL, (1, 5, 1, 1)), {"dim": 1}),
            ((KERNEL, ()), {"dim": -1}),
            ((KERNEL, (1, 1, 1, 3)), {"dim": 3}),
        ),
        "aten/src/ATen/native/WeightNorm.cpp",
        facts=EVERYWHERE_CALLS,
        roles=("v", "g"),
    ),
)
