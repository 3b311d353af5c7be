"""The torch module of a case; and modules whose numbers are as training leaves them."""

from __future__ import annotations

from typing import Any

from validation.cases import Case


def build_module(case: Case) -> Any:
    """The torch module of a case: imported, or the built-in graph run call by call."""
    import torch

    from memest.sources import models
    from memest.sources.importers.torch.loading import build
    from validation.execute import GraphModule

    external = ":" in case.model and "." in case.model.partition(":")[0]
    module = build(case.model) if external else GraphModule(models.build(case.model))
    module = module.to(getattr(torch, case.dtype))
    if case.channels_last:
        module = module.to(memory_format=torch.channels_last if len(case.shape) == 4 else torch.channels_last_3d)
    return module


def trained(module: Any) -> Any:
    """The module with norms and biases as training leaves them: what is 1 or 0 is folded away by exporters."""
    import torch

    for key, p in module.named_parameters():
        if p.ndim == 1 and key.endswith("weight"):
            p.data.uniform_(0.5, 1.5)
        if key.endswith("bias") or "layer_scale" in key or "class_token" in key:
            p.data.uniform_(-0.1, 0.1)
    for m in module.modules():
        if isinstance(m, torch.nn.modules.batchnorm._BatchNorm) and m.running_mean is not None:
            m.running_mean.uniform_(-0.1, 0.1)
            m.running_var.uniform_(0.5, 1.5)
    return module
