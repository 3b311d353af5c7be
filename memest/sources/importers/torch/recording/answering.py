"""Calls of torch that are no rows: what is asked of tensors, and what is done in place of a call."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import nn

from memest.errors import UnsupportedError
from memest.network.tensor import nbytes
from memest.sizes.dims import Dim, recording
from memest.sources.importers.torch.calls.arrays import ANSWERS as ARRAY_ANSWERS
from memest.sources.importers.torch.calls.queries import PASSIVE, TELLS_SIZES
from memest.sources.importers.torch.calls.table import ANSWERS
from memest.sources.importers.torch.contexts import constructors
from memest.sources.importers.torch.contexts.custom import Handle, hook
from memest.sources.importers.torch.recording.writing import Writing
from memest.sources.importers.torch.tensors.described import dtype_of
from memest.sources.importers.torch.tensors.numbers import Answer
from memest.sources.importers.torch.tensors.places import CARD

GRADIENTS = (
    "_set_grad_enabled",
    "__get__:requires_grad",
    "__get__:is_leaf",
    "__get__:grad_fn",
    "requires_grad_",
)  # calls that a training step answers otherwise
GRAPH = (
    "tensor.grad_fn in the forward of a training step (register_multi_grad_hook asks for it, too): autograd's graph is not there while it"
    " is recorded; Tensor.register_hook is modelled"
)
DECIDES_SEEN = str(nn.functional.__file__)  # code of torch's that decides by sizes only as comparisons show


class Answering(Writing):
    """Answers calls that leave no layer of their own."""

    @cached_property
    def watched(self) -> Mapping[str, Answer]:
        """Calls of torch that are no rows: what is done instead."""
        return {
            **self.numbers.answers,
            "__bool__": self.assumed.decide,
            "__index__": lambda f, a, k: self.assumed.size(a[0]) if a[0].ndim == 0 else NotImplemented,
            "_is_all_true": self._check,
            **{name: partial(self._placed, answer, self) for name, answer in {**ANSWERS, **ARRAY_ANSWERS, **constructors.ANSWERS}.items()},
            **self.inner.watched,
            "register_hook": self._hooked,
            "__deepcopy__": self._deep_copied,
            "__contains__": self._contains,
            "numpy": self._numpy,
        }

    def _placed(self, answer: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """What ``answer`` gives; where it refuses, with the place."""
        try:
            return answer(*args, **kwargs)
        except UnsupportedError as e:
            raise e.at(self._place()) from None

    def _hooked(self, func: Any, args: Any, kwargs: Any) -> Any:
        """``t.register_hook(function)``."""
        self.asked_for_gradients = True
        with self:
            name = hook(self, args[0], args[1] if len(args) > 1 else kwargs["hook"])
        return Handle(self, name)

    def _deep_copied(self, func: Any, args: Any, kwargs: Any) -> Any:
        """``copy.deepcopy(t)`` of a tensor that requires no gradient (``state_dict()``): its storage is copied, then a tensor without
        elements, made as it is, is given that. A parameter is made anew of a clone, in a step.
        (torch/_tensor.py and torch/nn/parameter.py, __deepcopy__; a tensor that others gave its gradient is refused.)"""
        t, memo = args[0], args[1] if len(args) > 1 else kwargs["memo"]
        entry = self.live.known(t)
        storage = entry.value.storage
        lying = [e for e in self.live.tracked.values() if e.value.storage is storage]
        own = nbytes(entry.value.spec.shape, entry.value.spec.dtype)
        whole = (not storage.nbytes or storage.nbytes == own) and all(of.numel() == t.numel() for e in lying if (of := e.ref()) is not None)
        one = whole and memo.setdefault(("memest", id(storage)), t) is t
        if one and any(p.name == entry.names[0] and not p.buffer for p in self.live.parameters):
            return self._parameter_copied(t, entry.grad)
        if entry.grad or not one:
            return NotImplemented
        with self:
            copied = t.clone()
            t.new_empty(())
        return copied

    def _parameter_copied(self, t: torch.Tensor, grad: bool) -> Any:
        """Where it requires a gradient the copy does, too, which is modelled where that is the step's."""
        if grad:
            return NotImplemented
        with self:
            return t.data.clone()

    def _check(self, func: Any, args: Any, kwargs: Any) -> torch.Tensor:
        """What ``torch._check_tensor_all`` asks."""
        with self:
            return self.constants.holds(args[0].all())

    def _contains(self, func: Any, args: Any, kwargs: Any) -> Any:
        """``x in t``, where it follows which way it goes."""
        with self:
            found = (args[0] == args[1]).any()
        return self.assumed.decide(func, (found,), kwargs)

    def _numpy(self, func: Any, args: Any, kwargs: Any) -> Any:
        """``t.numpy()`` of what is known, to go by it."""
        found = self.constants.numbers(args[0], self._place())
        if found is None:
            return self._placed(ARRAY_ANSWERS["numpy"], self, func, args, kwargs)
        self.assumed.asked = True
        return np.array(found, dtype=dtype_of(args[0]))

    def _passive(self, name: str, func: Any, args: Any, kwargs: Any) -> Any:
        answer = PASSIVE[name]
        if name in TELLS_SIZES and sys._getframe(3).f_code.co_filename != DECIDES_SEEN:
            self.sizes_told = True
        if name == "__get__:device" and not self.live.known(args[0]).host:
            return CARD
        if name == "__get__:dtype":
            self.asked_dtype = weakref.ref(args[0])
        if name in GRADIENTS:
            return self._gradients(name, func, args)
        if answer is None:
            return func(*args, **kwargs)
        found = answer(self.live.known(args[0]).value.spec, args[1:], kwargs, func)
        if name == "__len__" and isinstance(found, Dim):
            self.taken(found)
        elif name == "stride":
            with recording(None):
                theirs = func(*args, **kwargs)
                return found if found == theirs else theirs
        return found

    def _gradients(self, name: str, func: Any, args: Any) -> Any:
        """What is asked or said about gradients, as a step would answer."""
        self.asked_for_gradients = True
        if name == "_set_grad_enabled":
            return func(*args)
        entry = self.live.known(args[0])
        if name == "__get__:requires_grad":
            return entry.grad
        if name in ("__get__:is_leaf", "__get__:grad_fn"):
            computed = entry.grad and not any(p.name == entry.names[0] for p in self.live.parameters)
            if name == "__get__:is_leaf":
                return not computed
            if computed and self.gradients:
                raise self.refusal(GRAPH)
            return None
        return NotImplemented
