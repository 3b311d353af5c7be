"""The torch twin of every loss ``memest.runtimes.torch.losses`` knows, from the same table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from memest.runtimes.torch.losses import OUTPUT, Term, loss_named
from validation.rows import torch_callable

TorchLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def torch_loss(name: str) -> TorchLoss:
    """``name`` as a function of (prediction, target); intermediates die as they do in ``a(p, t) + b(p, t)``."""
    if name == OUTPUT:
        return lambda output, target: output
    return _sum([_callable(term) for term in loss_named(name).terms])


def _sum(functions: list[TorchLoss]) -> TorchLoss:
    if len(functions) == 1:
        return functions[0]
    before, last = _sum(functions[:-1]), functions[-1]
    return lambda prediction, target: before(prediction, target) + last(prediction, target)


def _callable(term: Term) -> TorchLoss:
    function: Any = torch_callable(term.entry)
    options = dict(term.options)
    if term.factor is None:
        return lambda prediction, target: function(prediction, target, **options)
    factor = term.factor
    return lambda prediction, target: function(prediction, target, **options) * factor
