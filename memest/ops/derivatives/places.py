"""Elements picked and put by an index, along a dim or anywhere: gradients are put and picked the same way.

Source: derivatives.yaml, FunctionsManual.cpp (index_backward, value_selecting_reduction_backward, embedding_dense_double_backward),
aten/src/ATen/native/TensorAdvancedIndexing.cpp (index_select_backward, gather_backward).
"""

from __future__ import annotations

from math import prod
from typing import Any

from memest.network.tensor import Shape
from memest.ops.aten.views import wrapped
from memest.ops.derivatives.formula import GRAD, ByRole, Derived, Formula, Grads, Kernel, Saved, only


def _index_select(f: Formula, saved: Saved, grads: Grads, *, dim: int) -> Derived:
    grad = only(grads)
    into = f.zeros(saved["sizes"], grad.spec.dtype)
    return [f.call("index_add", into, saved["index"], grad, dim=dim, inplace=True), None]


def _index(f: Formula, saved: Saved, grads: Grads, *, dims: Shape, host: bool, counts: Shape) -> Derived:
    """index_backward: zeros, put into by _index_put_impl_, which adds."""
    grad = only(grads)
    into = f.zeros(saved["sizes"], grad.spec.dtype)
    indices = [saved[f"index{i}"] for i in range(len(dims))]
    found = f.call("index_put_", into, indices, grad, dims=dims, counts=counts, accumulate=True)
    return [found, *[None] * len(indices)]


def _index_put(f: Formula, saved: Saved, grads: Grads, *, dims: Shape, counts: Shape, value: Any, accumulate: bool) -> Derived:
    """self: grad, with zeros put in unless it was added to; values: what stands at the indices."""
    grad = only(grads)
    indices = [saved[f"index{i}"] for i in range(len(dims))]
    first = grad if f.wants(0) else None
    if f.wants(0) and not accumulate:

        def emptied() -> Any:
            zeros = f.zeros(saved["given"], grad.spec.dtype)
            return f.call("index_put_", f.call("clone", grad), indices, zeros, dims=dims, counts=counts)

        first = f.statement(emptied)
    if not saved["written"]:
        return [first, *[None] * len(indices)]
    found = f.sum_to(f.call("index", grad, indices, dims=dims, counts=counts), saved["given"]) if f.wants(len(f.needs) - 1) else None
    return [first, *[None] * len(indices), found]


def _gather(f: Formula, saved: Saved, grads: Grads, *, dim: int, **_: Any) -> Derived:
    grad = only(grads)
    into = f.zeros(saved["input"].shape, grad.spec.dtype)
    return [f.call("scatter_add", into, saved["index"], grad, dim=dim, inplace=True), None]


def _scatter(f: Formula, saved: Saved, grads: Grads, *, dim: int, value: float | None, inplace: bool) -> Derived:
    grad, index = only(grads), saved["index"]
    first = f.call("scatter", grad, index, None, dim=dim, value=0) if f.wants(0) else None
    if not saved["given"]:
        return [first, None]
    return [first, None, f.call("gather", grad, index, dim=dim) if f.wants(2) else None]


def _scatter_add(f: Formula, saved: Saved, grads: Grads, *, dim: int, inplace: bool) -> Derived:
    grad = only(grads)
    return [grad if f.wants(0) else None, None, f.call("gather", grad, saved["index"], dim=dim) if f.wants(2) else None]


def _slices(f: Formula, grad: Any, saved: Saved, dim: int) -> Any:
    """``grad.index_select(dim, index).expand_as(source)``."""
    return f.expand(f.call("index_select", grad, saved["index"], dim=dim), saved["source"].shape)


def _index_add(f: Formula, saved: Saved, grads: Grads, *, dim: int, alpha: float, inplace: bool) -> Derived:
    grad = only(grads)
    source = f.maybe_multiply(_slices(f, grad, saved, dim), alpha) if f.wants(2) else None
    return [grad if f.wants(0) else None, None, source]


def _index_copy(f: Formula, saved: Saved, grads: Grads, *, dim: int, inplace: bool) -> Derived:
    grad = only(grads)
    first = f.call("index_fill", grad, saved["index"], dim=dim, value=0) if f.wants(0) else None
    return [first, None, _slices(f, grad, saved, dim) if f.wants(2) else None]


def _index_fill(f: Formula, saved: Saved, grads: Grads, *, dim: int, value: float, inplace: bool) -> Derived:
    return [f.call("index_fill", only(grads), saved["index"], dim=dim, value=0), None]


def _selected(f: Formula, saved: Saved, grads: Grads, *, dim: int, keepdim: bool = True, **_: Any) -> Derived:
    """value_selecting_reduction_backward: zeros, the gradient scattered into them."""
    grad, places, sizes = grads[0], saved["indices"], saved["sizes"]
    if not keepdim and sizes:
        d = wrapped(dim, len(sizes))
        grad, places = f.unsqueeze(grad, d), f.unsqueeze(places, d)
    into = f.zeros(sizes, grad.spec.dtype)
    return [f.call("scatter", into, places, grad, dim=dim, inplace=True)]


def _embedding(f: Formula, saved: Saved, grads: Grads, *, padding_idx: int, **_: Any) -> ByRole:
    """embedding_dense_double_backward: the rows picked again, those of the padding emptied."""
    grad, indices = only(grads), saved["indices"]
    flat = (prod(indices.shape),)
    rows = f.statement(lambda: f.call("index_select", grad, f.reshape(indices, flat), dim=0))

    def emptied() -> Any:
        mask = f.reshape(f.call("eq", indices, None, value=padding_idx), (*flat, 1))
        return f.call("masked_fill", rows, mask, value=0, inplace=True)

    if padding_idx >= 0:
        f.statement(emptied)
    return {GRAD: f.view(rows, (*indices.shape, grad.shape[1]))}


FORMULAS: dict[str, Any] = {
    "index_select": _index_select,
    "index": _index,
    "index_put_": _index_put,
    "gather": _gather,
    "scatter": _scatter,
    "scatter_add": _scatter_add,
    "index_add": _index_add,
    "index_copy": _index_copy,
    "index_fill": _index_fill,
    **dict.fromkeys(("_max_dim", "_min_dim", "topk", "sort", "kthvalue", "median_dim", "nanmedian_dim", "mode"), _selected),
    "embedding": Kernel(("indices",), _embedding),
}
