"""The training part of a step: loss, backward, optimizer, in the order of the measuring protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memest import optimizers
from memest.errors import GraphError, UsageError
from memest.ledger import Value
from memest.tensor import nbytes

if TYPE_CHECKING:
    from memest.timeline.player import Player


def train(player: Player, outputs: list[Value]) -> None:
    """Loss, backward and optimizer step, after the forward pass that gave ``outputs``."""
    recipe, ledger = player.recipe, player.ledger
    if recipe.loss is None or recipe.optimizer is None:
        raise UsageError("training needs a loss and an optimizer")
    ledger.phase, ledger.layer = "loss", "loss"
    prediction = outputs[0]
    if not recipe.hold_output:
        first, *others = player.graph.outputs
        _let_outputs_go(player, tuple(name for name in others if name != first))
    target_spec = recipe.loss.target(prediction.spec)
    target = ledger.hold(Value(target_spec, ledger.resident(nbytes(target_spec.shape, target_spec.dtype), "input", "target")))
    entry = recipe.loss.composite
    absent = [None] * (len(entry.roles) - 2)
    (loss,) = player.caller.run(entry, [prediction, target, *absent], tuple(entry.canonical({}).items()))
    assert loss is not None
    ledger.hold(loss)
    if not recipe.hold_output:
        _let_outputs_go(player, player.graph.outputs[:1])
    if not loss.requires_grad:
        raise GraphError("nothing to train: no trainable parameter reaches the loss")
    ledger.phase, ledger.layer, ledger.op = "backward", "loss", "ones_like"
    gradient = ledger.hold(Value(loss.spec, ledger.allocate(nbytes(loss.shape, loss.spec.dtype), "gradient")))
    player.machine.backward(loss, gradient)
    ledger.let_go(gradient)
    if not recipe.hold_output:
        ledger.let_go(loss)
    _optimize(player, recipe.optimizer)
    if recipe.hold_output:
        ledger.layer, ledger.op = "", ""
        _let_outputs_go(player, player.graph.outputs)
        ledger.let_go(loss)


def _optimize(player: Player, optimizer: optimizers.Optimizer) -> None:
    ledger, number = player.ledger, player.recipe.step
    ledger.phase = "optimizer_step"
    trained = [leaf for leaf in player.leaves if leaf.name in player.machine.gradients]
    for leaf in trained:
        for state in optimizers.resident_states(optimizer, leaf.value.spec, number):
            ledger.resident(nbytes(state.shape, state.dtype), "optimizer_state", leaf.name)
    optimizers.play_step(optimizer, ledger, [leaf.value for leaf in trained], [leaf.name for leaf in trained], number)


def _let_outputs_go(player: Player, names: tuple[str, ...]) -> None:
    """``model(x)`` was an argument only: it dies when the loss is there, and outputs that the loss does not take before that."""
    own = {i.name for i in player.graph.inputs} | {p.name for p in player.graph.parameters}
    for name in dict.fromkeys(names):
        if name in player.env and name not in own:
            player.ledger.let_go(player.env.pop(name))
