"""Faces of torch calls for the oracle, where a row's tensors and attributes cannot be handed over as they are."""

from __future__ import annotations

from typing import Any

import torch


def where(condition: torch.Tensor, *tensors: torch.Tensor, input_value: Any = None, other_value: Any = None) -> torch.Tensor:
    """``torch.where`` with numbers in place of absent tensors."""
    given = iter(tensors)
    input = next(given) if input_value is None else input_value
    other = next(given) if other_value is None else other_value
    return torch.where(condition, input, other)


def convolution(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, **keywords: Any) -> torch.Tensor:
    """``torch.convolution``, which has neither defaults nor single numbers."""
    dims = weight.ndim - 2
    given = {"stride": 1, "padding": 0, "dilation": 1, "transposed": False, "output_padding": 0, "groups": 1, **keywords}
    lists = ("stride", "padding", "dilation", "output_padding")
    full = {name: (value,) * dims if name in lists and isinstance(value, int) else value for name, value in given.items()}
    return torch.convolution(input, weight, bias, **full)


def rdiv(input: torch.Tensor, value: float) -> torch.Tensor:
    """A number divided by a tensor."""
    return value / input
