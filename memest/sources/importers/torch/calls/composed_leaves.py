"""Constructors that are given ``requires_grad=True``: what they make is a leaf from then on, as after ``requires_grad_()``."""

from __future__ import annotations

from typing import Any

import torch

from memest.sources.importers.torch.calls.composed_losses import Body

CONSTRUCTORS = (
    *("tensor", "scalar_tensor", "zeros", "ones", "empty", "full", "rand", "randn"),
    *("eye", "arange", "range", "linspace", "logspace"),
    *("zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like"),
    *("new_tensor", "new_zeros", "new_ones", "new_empty", "new_full"),
)


def required(name: str, otherwise: Body | None = None) -> Body:
    """The body of a constructor: made without, then required; ``otherwise`` is its body where nothing is required."""

    def composed(*args: Any, requires_grad: bool = False, **named: Any) -> Any:
        if not requires_grad:
            return NotImplemented if otherwise is None else otherwise(*args, **named)
        made = getattr(torch.Tensor if name.startswith("new_") else torch, name)(*args, **named)
        return made.requires_grad_()

    return composed


def _normal(mean: Any, std: Any = 1.0, size: Any = None, **named: Any) -> Any:
    """By two numbers: a shape that is filled."""
    return NotImplemented if size is None else torch.randn(size, **named)


LEAVES: dict[str, Body] = {**{name: required(name) for name in CONSTRUCTORS}, "normal": required("normal", _normal)}
