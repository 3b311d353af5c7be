"""Faces of torch calls whose weights are packed (see :mod:`validation.adapters`)."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch


@cache
def _packed(rows: int, columns: int, dtype: str) -> Any:
    """Weights of ones, as FBGEMM packs them."""
    weight, bias = torch.ones(rows, columns), torch.ones(rows)
    if dtype == "float16":
        return torch.ops.quantized.linear_prepack_fp16(weight, bias)
    return torch.ops.quantized.linear_prepack(torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8), bias)


def linear_dynamic(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """By a weight of int8."""
    return torch.ops.quantized.linear_dynamic(input, _packed(*weight.shape, "int8"), reduce_range=True)


def linear_dynamic_fp16(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """By a weight of float16."""
    return torch.ops.quantized.linear_dynamic_fp16(input, _packed(*weight.shape, "float16"))
