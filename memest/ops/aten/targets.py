"""What the losses share: how they reduce, and how class indices must lie against a prediction."""

from __future__ import annotations

from typing import Any

from memest.errors import ShapeError
from memest.ops.operator import Attribute, choice

REDUCTION = Attribute(name="reduction", default="mean", check=choice("none", "mean", "sum"))


def check_class_indices(input: Any, target: Any, weight: Any) -> None:
    """Class indices: the prediction's shape without its class dim."""
    shape = tuple(input.shape)
    expected = () if len(shape) == 1 else (*shape[:1], *shape[2:])
    if not shape or tuple(target.shape) != expected:
        raise ShapeError(f"class indices for a prediction of shape {list(shape)} need shape {list(expected)}, got {list(target.shape)}")
    classes = shape[0] if len(shape) == 1 else shape[1]
    if weight is not None and tuple(weight.shape) != (classes,):
        raise ShapeError(f"weight of {classes} classes needs {classes} values, got shape {list(weight.shape)}")
