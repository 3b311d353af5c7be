"""The torch module of a case."""

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
