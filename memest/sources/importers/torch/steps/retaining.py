"""``tensor.retain_grad()`` in a step: a hook that copies the gradient of a tensor that was computed, or adds to it, for as long as that
lives.

Source: torch/csrc/autograd/variable.cpp (``VariableHooks::retain_grad``).
"""

from __future__ import annotations

import weakref

import torch

from memest.sources.importers.torch.contexts import custom
from memest.sources.importers.torch.contexts.gradients import RETAINED, Gradients


class Retaining:
    """The tensors of one recording that retain their gradient."""

    def __init__(self, recorder: custom.Recorder, gradients: Gradients) -> None:
        self._recorder = recorder
        self._gradients = gradients
        self._known = set[int]()
        self.watched = {
            "retain_grad": lambda f, a, k: self._retain(a[0]),
            "__get__:retains_grad": lambda f, a, k: id(self._recorder.live.known(a[0])) in self._known,
        }

    def _retain(self, t: torch.Tensor) -> None:
        entry = self._recorder.live.known(t)
        if not entry.grad:
            raise RuntimeError("can't retain_grad on Tensor that has requires_grad=False")
        if self._gradients.is_leaf(entry) or id(entry) in self._known:
            return
        if self._recorder.late is None:
            raise self._recorder.refusal("retain_grad() inside a checkpoint, a hook or a custom function: call it outside of that")
        self._known.add(id(entry))
        reference = weakref.ref(t)

        def keep(gradient: torch.Tensor) -> None:
            retaining = reference()
            if retaining is not None:
                before = vars(retaining).get(RETAINED)
                vars(retaining)[RETAINED] = gradient.clone(memory_format=torch.contiguous_format) if before is None else before + gradient

        custom.hook(self._recorder, t, keep)
