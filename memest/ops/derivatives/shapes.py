"""Views, parts and what is put together: their gradients are views and parts again. Source: derivatives.yaml, FunctionsManual.cpp."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memest.network.tensor import Shape, same_shape
from memest.ops.aten.views import reduced_dims, wrapped
from memest.ops.derivatives.formula import GRAD, ByRole, Derived, Formula, Grads, Kernel, Saved, only


def restored(f: Formula, t: Any, dim: Any, keepdim: bool, ndim: int) -> Any:
    """``unsqueeze_multiple``: the reduced dims back, as dims of size 1."""
    if keepdim or not ndim or dim is None or dim == ():
        return t
    for d in reduced_dims(dim, ndim):
        t = f.unsqueeze(t, d)
    return t


def _view(f: Formula, saved: Saved, grads: Grads, **_: Any) -> Derived:
    return [f.reshape(only(grads), saved["sizes"])]


def _permute(f: Formula, saved: Saved, grads: Grads, *, dims: Shape) -> Derived:
    order = [wrapped(d, len(dims)) for d in dims]
    return [f.call("permute", only(grads), dims=tuple(order.index(d) for d in range(len(order))))]


def _transpose(f: Formula, saved: Saved, grads: Grads, *, dim0: int, dim1: int) -> Derived:
    return [f.transpose(only(grads), dim0, dim1)]


def _squeeze(f: Formula, saved: Saved, grads: Grads, *, dim: Any) -> Derived:
    sizes: Shape = saved["sizes"]
    dims = range(len(sizes)) if dim is None else reduced_dims(dim, len(sizes))
    grad = only(grads)
    for d in range(len(sizes)):
        if d in dims and sizes[d] == 1:
            grad = f.unsqueeze(grad, d)
    return [grad]


def _part(name: str) -> Kernel:
    """``select_backward``, ``slice_backward``: the same part of what comes back."""

    def double(f: Formula, saved: Saved, grads: Grads, **given: Any) -> ByRole:
        return {GRAD: f.call(name, only(grads), **given)}

    return Kernel((), double)


def _joined(f: Formula, grads: Grads, sizes: Sequence[Shape], dim: int) -> Any:
    """Gradients of parts as one; zeros in the place of those that did not come."""
    dtype = next(g.spec.dtype for g in grads if g is not None)
    return f.call("cat", [f.zeros(s, dtype) if g is None else g for g, s in zip(grads, sizes, strict=True)], dim=dim)


def _split(f: Formula, saved: Saved, grads: Grads, *, dim: int, **given: Any) -> Derived:
    sizes: Shape = saved["sizes"]
    d, size = wrapped(dim, len(sizes)), given["split_size" if "split_size" in given else "split_size_or_sections"]
    parts = size if isinstance(size, tuple) else [min(size, sizes[d] - at) for at in range(0, sizes[d], size)]
    return [_joined(f, grads, [(*sizes[:d], n, *sizes[d + 1 :]) for n in parts], d)]


def _unbind(f: Formula, saved: Saved, grads: Grads, *, dim: int) -> Derived:
    """unbind_backward: a part without a gradient counts as zeros."""
    like = next(g for g in grads if g is not None)
    parts = [f.expand(f.zeros((), like.spec.dtype), like.shape) if g is None else g for g in grads]
    return [f.call("stack", parts, dim=dim)]


def _cat(f: Formula, saved: Saved, grads: Grads, *, dim: int) -> Derived:
    sizes, grad, at = saved["sizes"], only(grads), 0
    d = wrapped(dim, len(grad.shape))
    found = []
    for need, shape in zip(f.needs, sizes, strict=True):
        found.append(f.narrow(grad, d, at, shape[d]) if need else None)
        at = at + shape[d]
    return found


def _stack(f: Formula, saved: Saved, grads: Grads, *, dim: int) -> Derived:
    grad = only(grads)
    return [f.call("select", grad, dim=dim, index=i) if need else None for i, need in enumerate(f.needs)]


def _repeat(f: Formula, saved: Saved, grads: Grads, *, repeats: Shape) -> Derived:
    grad, sizes = only(grads), saved["sizes"]
    lead = len(grad.shape) - len(sizes)
    for _ in range(lead):
        grad = f.sum(grad, 0)
    shape: list[int] = []
    dims: list[int] = []
    for n, r in zip(sizes, repeats[lead:], strict=True):
        if r != 1:
            dims.append(len(shape))
            shape.append(r)
        shape.append(n)
    return [f.sum(f.reshape(grad, tuple(shape)), tuple(dims)) if dims else grad]


def _to_copy(f: Formula, saved: Saved, grads: Grads, *, dtype: str | None, memory_format: str) -> Derived:
    grad = only(grads)
    return [grad if grad.spec.dtype == saved["dtype"] else f.call("_to_copy", grad, dtype=saved["dtype"])]


def _constant_pad(f: Formula, saved: Saved, grads: Grads, *, pad: Shape, value: float | None) -> Derived:
    return [f.call("_constant_pad", only(grads), pad=tuple(-p for p in pad), value=0)]


def _border_pad(f: Formula, saved: Saved, grads: Grads, **given: Any) -> ByRole:
    """reflection_pad2d_backward: padded again."""
    return {GRAD: f.call("_border_pad", only(grads), **given) if f.wants(0) else None, "input": nothing(f, saved)}


def nothing(f: Formula, saved: Saved) -> Any:
    """``zeros_like(self)`` of an input whose sizes alone are kept: contiguous."""
    spec = saved["like"]["input"]
    return f.zeros(spec.shape, spec.dtype) if f.wants(1) else None


def _upsample(f: Formula, saved: Saved, grads: Grads, **given: Any) -> ByRole:
    return {GRAD: f.call("_upsample", only(grads), **given)}


def _expand(f: Formula, saved: Saved, grads: Grads, *, size: Shape) -> Derived:
    grad = only(grads)
    return [grad if saved["sizes"] and same_shape(grad.shape, saved["sizes"]) else f.sum_to(grad, saved["sizes"])]


def _same(f: Formula, saved: Saved, grads: Grads, **_: Any) -> Derived:
    return [only(grads)]


FORMULAS: dict[str, Any] = {
    "view": _view,
    "_unsafe_view": _view,
    "permute": _permute,
    "transpose": _transpose,
    "t": lambda f, saved, grads: [f.call("t", only(grads))],
    "squeeze": _squeeze,
    "unsqueeze": lambda f, saved, grads, *, dim: [f.call("squeeze", only(grads), dim=wrapped(dim, len(only(grads).shape)))],
    "expand": _expand,
    "alias": _same,
    "clone": _same,
    "_to_copy": _to_copy,
    "flip": lambda f, saved, grads, *, dims: [f.call("flip", only(grads), dims=dims)],
    "select": _part("select"),
    "slice": _part("slice"),
    "split": _split,
    "unsafe_split": _split,
    "unbind": _unbind,
    "cat": _cat,
    "stack": _stack,
    "repeat": _repeat,
    "_constant_pad": _constant_pad,
    "_border_pad": Kernel((), _border_pad),
    "_upsample": Kernel((), _upsample),
}
