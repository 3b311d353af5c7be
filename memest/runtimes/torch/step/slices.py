"""The engine's own nodes under ``create_graph=True``: what is written in place into a view.

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
from memest.ops.derivatives.formula import Derived, Formula
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
    count = 1
    for n in base.shape:
        count = count * n
    storage = f.zeros((count,), grad.spec.dtype)
    f.statement(lambda: f.call("copy_", f.call("as_strided", storage, size=tuple(sizes), stride=tuple(strides)), grad))
    return [f.call("as_strided", storage, size=base.shape, stride=base.strides)]
