"""Pooling: averages are pooled again, maxima gathered from where they were. Source: derivatives.yaml; FunctionsManual.cpp
(max_pool_double_backward)."""

from __future__ import annotations

from math import prod
from typing import Any

from memest.ops.aten.copies import suggests_channels_last
from memest.ops.derivatives.formula import GRAD, ByRole, Formula, Grads, Kernel, Saved, only
from memest.ops.derivatives.shapes import nothing
from memest.ops.tape import Tensor


def _average(name: str) -> Kernel:
    def double(f: Formula, saved: Saved, grads: Grads, **given: Any) -> ByRole:
        return {
            GRAD: f.call(name, only(grads), **given) if f.wants(0) else None,
            "input": nothing(f, saved),
        }

    return Kernel((), double)


def _maximum(dims: int) -> Kernel:
    def double(f: Formula, saved: Saved, grads: Grads, **given: Any) -> ByRole:
        return {
            GRAD: _gathered(f, only(grads), saved["indices"], dims) if f.wants(0) else None,
            "input": nothing(f, saved),
        }

    return Kernel(("indices",), double)


def _gathered(f: Formula, grad: Any, indices: Any, dims: int) -> Any:
    lead = indices.shape[: len(indices.shape) - dims]
    places = f.view(indices, (*lead, prod(indices.shape[-dims:])))
    shape, strides, dtype = indices.spec
    last = suggests_channels_last(Tensor(shape, strides, dtype, 0))
    dense = f.contiguous(grad, ("channels_last" if dims == 2 else "channels_last_3d") if last else "contiguous_format")
    flat = f.view(dense, (*lead, prod(grad.shape[-dims:])))
    return f.view(f.call("gather", flat, places, dim=-1), indices.shape)


FORMULAS: dict[str, Any] = {
    "avg_pool2d": _average("avg_pool2d"),
    "avg_pool3d": _average("avg_pool3d"),
    "_adaptive_avg_pool": _average("_adaptive_avg_pool"),
    "max_pool2d": _maximum(2),
    "max_pool3d": _maximum(3),
    "adaptive_max_pool2d": _maximum(2),
    "adaptive_max_pool3d": _maximum(3),
}
