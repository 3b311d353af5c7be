"""The losses a training step can end in: which composite, and what target it expects for a prediction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from memest.errors import UnknownNameError, did_you_mean
from memest.ops.composite import Composite
from memest.ops.operator import Operator
from memest.ops.table import COMPOSITES, OPERATORS
from memest.tensor import Spec, spec


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """A loss by its torch.nn.functional name; ``target`` gives the target's metadata for a prediction."""

    name: str
    target: Callable[[Spec], Spec]

    @property
    def composite(self) -> Composite | Operator:
        """What computes it."""
        return COMPOSITES.get(self.name) or OPERATORS[self.name]


def _class_indices(prediction: Spec) -> Spec:
    return spec((prediction.shape[0], *prediction.shape[2:]), "int64")


def _like_prediction(prediction: Spec) -> Spec:
    return spec(prediction.shape, prediction.dtype)


LOSSES = {name: Loss(name=name, target=target) for name, target in {"cross_entropy": _class_indices, "mse_loss": _like_prediction}.items()}


def loss_named(name: str) -> Loss:
    """The loss called ``name`` (torch.nn.functional's name, with or without ``_loss``)."""
    for candidate in (name, f"{name}_loss"):
        if candidate in LOSSES:
            return LOSSES[candidate]
    raise UnknownNameError(f"unknown loss {name!r}{did_you_mean(name, LOSSES)}")
