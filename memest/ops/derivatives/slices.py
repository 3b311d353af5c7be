"""What is written over, and into a view, under ``create_graph=True``: the engine's own nodes among it.

The gradient of the base is copied, the operator's backward runs on a clone of the view's part of it, and what it gives is written back into
the copy: into a view again, so that the copy has such a node of its own. The view hangs since behind one that puts its gradient into
zeros as large as the base.

Sources: torch/csrc/autograd/functions/tensor.cpp (``CopySlices::apply``), FunctionsManual.cpp (``as_strided_backward``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from memest.errors import UnsupportedError
from memest.network.tensor import Shape, Spec, is_non_overlapping_and_dense
from memest.ops.aten.views import overlap
from memest.ops.derivatives.formula import Derived, Formula, Grads, Saved, only
from memest.ops.facts import EVERYWHERE_FACTS
from memest.ops.operator import REQUIRED, Attribute, Operator
from memest.ops.tape import Tape, Tensor


def _empty(k: Tape, *, spec: Spec) -> Tensor:
    return k.empty(spec.shape, spec.dtype, spec.strides)


EMPTY_STRIDED = Operator(
    name="empty_strided",
    torch="",
    roles=(),
    attributes=(Attribute(name="spec", default=REQUIRED, check=lambda value: value),),
    forward=_empty,
    saves=(),
    backward=None,
    examples=(),
    facts=EVERYWHERE_FACTS,
    source="aten/src/ATen/native/TensorFactories.cpp (new_empty_strided)",
)


def sliced(f: Formula, grad: Any, base: Spec, view: Spec, inner: Callable[[Any], Derived]) -> Derived:
    """The gradients of what was written into the ``view`` of a ``base``: ``inner`` gives those of the operator."""
    made = f.call(EMPTY_STRIDED, spec=base)
    result = f.call("copy_", made, grad)
    part = f.call("as_strided", result, size=view.shape, stride=view.strides)
    found = inner(f.call("clone", part))
    if found[0] is None:
        return found
    f.statement(lambda: f.call("copy_", part, found[0]))
    return [result, *found[1:]]


def strided_back(f: Formula, grad: Any, base: Spec, size: Shape, stride: Shape) -> Derived:
    """``as_strided_backward``, of places that do not overlap."""
    if not is_non_overlapping_and_dense(base.shape, base.strides):
        raise UnsupportedError("create_graph=True through a view of a tensor that has gaps or overlaps: make it contiguous() before")
    sizes: list[int] = []
    strides: list[int] = []
    for d in range(len(size) - 1, -1, -1):
        if size[d] == 1:
            grad = f.call("squeeze", grad, dim=d)
        elif stride[d] == 0:
            grad = f.sum(grad, d)
        else:
            sizes.insert(0, size[d])
            strides.insert(0, stride[d])
    if overlap(tuple(sizes), tuple(strides)):
        raise UnsupportedError("create_graph=True through as_strided of places that overlap has no rule: Tensor.unfold has one")
    count = 1
    for n in base.shape:
        count = count * n
    storage = f.zeros((count,), grad.spec.dtype)
    f.statement(lambda: f.call("copy_", f.call("as_strided", storage, size=tuple(sizes), stride=tuple(strides)), grad))
    return [f.call("as_strided", storage, size=base.shape, stride=base.strides)]


def _as_strided(f: Formula, saved: Saved, grads: Grads, *, size: Shape, stride: Shape) -> Derived:
    grad = only(grads)
    return strided_back(f, grad, Spec(saved["base"], saved["strides"], grad.spec.dtype), size, stride)


def _fill(f: Formula, saved: Saved, grads: Grads, **_: Any) -> Derived:
    return [f.zeros_like(only(grads))]


def _copy(f: Formula, saved: Saved, grads: Grads) -> Derived:
    """CopyBackwards: zeros for what was written over, the gradient for what was written."""
    grad = only(grads)
    first = f.zeros(grad.shape, grad.spec.dtype) if f.wants(0) else None
    if not f.wants(1):
        return [first, None]
    return [first, grad if grad.spec.dtype == saved["dtype"] else f.call("_to_copy", grad, dtype=saved["dtype"])]


def _setitem(f: Formula, saved: Saved, grads: Grads, **_: Any) -> Derived:
    """A number or a tensor written into a view (of everything: into the tensor itself)."""
    grad = only(grads)

    def inner(part: Any) -> Derived:
        if saved["given"] is None:
            return [f.zeros_like(part) if f.wants(0) else None]
        first = f.zeros(part.shape, part.spec.dtype) if f.wants(0) else None
        if not f.wants(1):
            return [first, None]
        return [first, part if part.spec.dtype == saved["given"] else f.call("_to_copy", part, dtype=saved["given"])]

    if saved["whole"]:
        return inner(grad)
    base = Spec(saved["sizes"], saved["strides"], grad.spec.dtype)
    return sliced(f, grad, base, saved["part"], inner)


FORMULAS: dict[str, Any] = {
    "as_strided": _as_strided,
    **dict.fromkeys(("fill_", "zero_", "bernoulli_", "uniform_", "normal_"), _fill),
    "copy_": _copy,
    "setitem": _setitem,
}
