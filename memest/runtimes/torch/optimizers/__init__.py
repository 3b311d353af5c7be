"""Optimizers: state per parameter, when it appears, and what one step allocates for a moment.

Each row's ``single`` reads like torch.optim's for-loop (torch/optim/*.py, ``_single_tensor_*``), ``foreach`` like ``_multi_tensor_*``.
Python locals matter: a loop's ``denom`` lives until the next parameter's replaces it, so the peak holds two of them. On CPU torch
takes the for-loop unless ``foreach`` or ``fused`` is asked for. States are torch's; scalars (``step``) are real 4-byte tensors.
"""

from memest.runtimes.torch.optimizers.describing import described
from memest.runtimes.torch.optimizers.step import play_step, resident_states
from memest.runtimes.torch.optimizers.table import OPTIMIZERS, Optimizer, optimizer_named

__all__ = ["OPTIMIZERS", "Optimizer", "described", "optimizer_named", "play_step", "resident_states"]
