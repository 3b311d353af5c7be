"""What one measured step is made of, in pieces that levers (``validation.levers``) exchange before it is measured.

A training step is ``zero_grad``, then ``gradients`` (forward, loss, backward), then ``update`` (the optimizer). Nothing here keeps a
tensor in a local for longer than ``loss_fn(model(x), target).backward()`` would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from memest.network.graph import Graph

Inputs = Sequence[torch.Tensor]


def prediction_of(output: Any) -> torch.Tensor:
    """The tensor the loss takes: the output itself, ``"out"`` of a mapping, else the first tensor."""
    if isinstance(output, torch.Tensor):
        return output
    if isinstance(output, Mapping):
        return prediction_of(output["out"] if "out" in output else next(iter(output.values())))
    return prediction_of(output[0])


def call_module(setup: Setup, inputs: Inputs) -> Any:
    """``model(x)``."""
    return setup.module(*inputs)


def compute_loss(setup: Setup, inputs: Inputs, target: torch.Tensor) -> torch.Tensor:
    """``loss_fn(model(x), target)``; with ``hold_output`` the output and the loss stay in variables until the step ends."""
    if not setup.hold_output:
        return setup.loss_fn(prediction_of(setup.forward(setup, inputs)), target)
    setup.held["output"] = setup.forward(setup, inputs)
    setup.held["loss"] = setup.loss_fn(prediction_of(setup.held["output"]), target)
    return setup.held["loss"]


def compute_gradients(setup: Setup, inputs: Inputs, target: torch.Tensor) -> None:
    """``loss.backward()``."""
    setup.loss(setup, inputs, target).backward()


def update_parameters(setup: Setup) -> None:
    """``optimizer.step()``."""
    setup.optimizer.step()


@dataclass(kw_only=True)
class Setup:
    """A module and what is done with it in one step. A lever wraps ``forward``, ``loss``, ``gradients`` or ``update`` (each is called
    with the setup first), changes the module or the inputs, and adds to ``residents`` what exists between steps besides parameters,
    buffers, optimizer state, inputs and target. ``levers`` are all that are pulled, as written; ``graph`` is the module's where
    it cannot be recorded any more. ``optimizer`` (another of its kind: ``make_optimizer(parameters)``), ``loss_fn`` and ``target`` are
    there in training, from ``wrap`` on; so is the ``scaler`` around the optimizer, if there is one."""

    module: nn.Module
    inputs: list[torch.Tensor]
    training: bool
    levers: Sequence[str] = ()
    hold_output: bool = False
    graph: Graph | None = None
    optimizer: Any = None
    make_optimizer: Any = None
    scaler: Any = None
    loss_fn: Any = None
    target: Any = None
    forward: Callable[[Setup, Inputs], Any] = call_module
    loss: Callable[[Setup, Inputs, torch.Tensor], torch.Tensor] = compute_loss
    gradients: Callable[[Setup, Inputs, torch.Tensor], None] = compute_gradients
    update: Callable[[Setup], None] = update_parameters
    residents: list[Callable[[], Iterable[torch.Tensor]]] = field(default_factory=list)
    held: dict[str, Any] = field(default_factory=dict)

    def step(self) -> None:
        """One training step."""
        self.optimizer.zero_grad(set_to_none=True)
        self.gradients(self, self.inputs, self.target)
        self.update(self)
        self.held.clear()

    def resident(self) -> list[torch.Tensor]:
        """Every tensor that is there between steps (the same storage maybe twice)."""
        state = [v for s in self.optimizer.state.values() for v in s.values() if isinstance(v, torch.Tensor)] if self.training else []
        target = [self.target] if self.training else []
        extra = [t for tensors in self.residents for t in tensors()]
        return [*self.module.parameters(), *self.module.buffers(), *state, *self.inputs, *target, *extra]
