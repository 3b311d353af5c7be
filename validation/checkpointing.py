"""Checkpointing by torch itself, as the oracle: modules of a network wrapped in ``torch.utils.checkpoint.checkpoint`` by name."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint


def checkpoint_modules(module: nn.Module, names: Iterable[str]) -> nn.Module:
    """``module`` itself, the forward of each named submodule now run under a non-reentrant checkpoint."""
    for name in names:
        part = module.get_submodule(name)
        part.forward = partial(_checkpointed, part.forward)
    return module


def _checkpointed(forward: Any, *args: Any) -> Any:
    return checkpoint(forward, *args, use_reentrant=False)
