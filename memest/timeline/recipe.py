"""The recipe: what is done with a network in one step, and on which processor."""

from __future__ import annotations

from dataclasses import dataclass, field

from memest import losses, optimizers
from memest.libraries.cpu import Cpu


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What is done with the network: one training step or one inference call, and how. ``step`` is the number of the step (1: the
    optimizer's state appears during it); None stands for any later one."""

    training: bool
    optimizer: optimizers.Optimizer | None = None
    loss: losses.Loss | None = None
    hold_output: bool = False
    step: int | None = None
    cpu: Cpu = field(default_factory=Cpu)
