"""Observers of quantization-aware training: by channel they begin with tensors of no elements, which get their size in the first call and
keep it. The step that counts finds them so.

Source: torch/ao/quantization/observer.py (``min_val``, ``max_val``), aten/src/ATen/native/quantized/cpu/fused_obs_fake_quant.cpp (resizes).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


def give_sizes(modules: Iterable[nn.Module]) -> None:
    """What the fake quantizers of weights observe, of one element a channel; whoever calls puts back what was there."""
    for m in [m for m in modules if "weight_fake_quant" in m._modules]:
        quantizer, weight = getattr(m, "weight_fake_quant", None), getattr(m, "weight", None)
        observer = getattr(quantizer, "activation_post_process", None)
        if not isinstance(observer, nn.Module) or not isinstance(quantizer, nn.Module) or not isinstance(weight, torch.Tensor):
            continue
        if not bool(getattr(quantizer, "is_per_channel", False)) or not _is_empty(observer, "min_val"):
            continue
        shape = (weight.shape[int(quantizer.ch_axis)],)
        for owner, names in ((observer, ("min_val", "max_val")), (quantizer, ("scale", "zero_point"))):
            for name in names:
                buffer = owner._buffers.get(name)
                if buffer is not None:
                    owner._buffers[name] = torch.empty(shape, dtype=buffer.dtype, device=buffer.device)


def _is_empty(module: nn.Module, name: str) -> bool:
    buffer = module._buffers.get(name)
    return buffer is not None and buffer.numel() == 0
