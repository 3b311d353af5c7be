"""One step of an optimizer, and the state that is there before it."""

from __future__ import annotations

from collections.abc import Sequence

from memest.network.tensor import Spec
from memest.runtimes.torch.ledger import Ledger, Value
from memest.runtimes.torch.optimizers.stepper import Stepper
from memest.runtimes.torch.optimizers.table import Optimizer


def resident_states(optimizer: Optimizer, parameter: Spec, number: int | None) -> list[Spec]:
    """The state tensors of one parameter that exist before step ``number`` (None: long after the first)."""
    if number == 1 and optimizer.row.created != "constructor":
        return []
    return optimizer.row.states(parameter, dict(optimizer.options))


def play_step(optimizer: Optimizer, ledger: Ledger, parameters: Sequence[Value], names: Sequence[str], number: int | None) -> None:
    """Play one ``optimizer.step()`` over the parameters that have a gradient."""
    options = dict(optimizer.options)
    stepper = Stepper(ledger, options, number)
    specs = [v.spec for v in parameters]
    row = optimizer.row
    ledger.op = optimizer.name
    if number == 1 and row.created == "step":
        for name, p in zip(names, specs, strict=True):
            ledger.layer = name
            for state in row.states(p, options):
                stepper.state(state, name)
    ledger.layer = "optimizer"
    if options["foreach"]:
        row.foreach(stepper, specs)
    elif options["fused"] and row.fused is not None:
        row.fused(stepper, specs)
    else:
        for name, p in zip(names, specs, strict=True):
            ledger.layer = name
            row.single(stepper, p)
    stepper.end()
