"""nnU-Net's training step in plain torch, in the order of its own code, so that every tensor lives as long; and its measurement.

Sources: nnunetv2 2.8.1, training/loss/deep_supervision.py, training/nnUNetTrainer/nnUNetTrainer.py (train_step).
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from validation.nnunet_losses import dice_and_binary_cross_entropy, dice_and_cross_entropy
from validation.profiling import record
from validation.protocol import Measurement, storage_bytes

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def deep_supervision(loss: Loss, outputs: Sequence[Any], targets: Sequence[Any], weights: Sequence[float]) -> Any:
    """``DeepSupervisionWrapper``."""
    return sum([weights[i] * loss(*pair) for i, pair in enumerate(zip(outputs, targets, strict=True)) if weights[i] != 0.0])


@dataclass
class Trainer:
    """What nnU-Net's trainer holds, on a CPU: no autocast, no gradient scaler."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Callable[[Any, Any], torch.Tensor]

    def train_step(self, data: torch.Tensor, target: Any) -> None:
        """``nnUNetTrainer.train_step``."""
        self.optimizer.zero_grad(set_to_none=True)
        output = self.network(data)
        loss = self.loss(output, target)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 12)
        self.optimizer.step()
        del output, loss


def trainer_for(network: nn.Module, *, regions: bool, batch_dice: bool, ignore_label: int | None) -> Trainer:
    """The trainer of a network with deep supervision: the weight of each output half that of the one before, the last without any."""

    def one(x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        if regions:
            return dice_and_binary_cross_entropy(x, target, batch_dice=batch_dice)
        return dice_and_cross_entropy(x, target, batch_dice=batch_dice, ignore_label=ignore_label)

    def loss(outputs: Any, targets: Any) -> torch.Tensor:
        weights = np.array([1 / (2**i) for i in range(len(outputs))])
        weights[-1] = 0
        total: torch.Tensor = deep_supervision(one, outputs, targets, tuple(weights / weights.sum()))
        return total

    optimizer = torch.optim.SGD(network.parameters(), 0.01, weight_decay=3e-5, momentum=0.99, nesterov=True)
    return Trainer(network=network, optimizer=optimizer, loss=loss)


def targets_for(outputs: Sequence[torch.Tensor], *, regions: bool) -> list[torch.Tensor]:
    """A target for each output, as the data loader gives them: int16 label maps with one channel, or bools a region."""
    if regions:
        return [torch.zeros(o.shape, dtype=torch.bool) for o in outputs]
    return [torch.zeros((o.shape[0], 1, *o.shape[2:]), dtype=torch.int16) for o in outputs]


def measure_step(trainer: Any, step: Callable[[], None], residents: Sequence[torch.Tensor]) -> Measurement:
    """One step after one that is not measured (the momentum is there)."""
    step()
    trainer.optimizer.zero_grad(set_to_none=True)
    gc.collect()
    state = [v for s in trainer.optimizer.state.values() for v in s.values() if isinstance(v, torch.Tensor)]
    resident = storage_bytes([*trainer.network.parameters(), *trainer.network.buffers(), *state, *residents])
    events, _ = record(step)
    return Measurement(resident, events)


def measure_training(network: nn.Module, data: torch.Tensor, **how: Any) -> Measurement:
    """nnU-Net's step with ``network`` and a batch of ``data``."""
    trainer = trainer_for(network, **how)
    with torch.no_grad():
        targets = targets_for(network(data), regions=how["regions"])
    return measure_step(trainer, lambda: trainer.train_step(data, targets), [data, *targets])


def measure_trainer(trainer: Any, shape: Sequence[int], *, regions: bool) -> Measurement:
    """The step of nnU-Net's own trainer with a batch of ``shape``: the parts of it that ``initialize`` makes, without a data set."""
    heads = trainer.label_manager.num_segmentation_heads
    trainer.network = trainer.build_network_architecture(
        trainer.plans_manager, trainer.configuration_manager, shape[1], heads, trainer.enable_deep_supervision
    ).train()
    trainer.optimizer, trainer.lr_scheduler = trainer.configure_optimizers()
    trainer.loss = trainer._build_loss()
    data = torch.rand(tuple(shape))
    with torch.no_grad():
        targets = targets_for(trainer.network(data), regions=regions)

    def step() -> None:
        trainer.train_step({"data": data, "target": targets})

    return measure_step(trainer, step, [data, *targets])
