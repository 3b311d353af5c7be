"""One step of an optimizer, and the state that is there before it."""

from __future__ import annotations

from collections.abc import Sequence

from memest.errors import UsageError
from memest.machines.target import Target
from memest.network.tensor import Spec
from memest.runtimes.torch.ledger import Ledger, Value
from memest.runtimes.torch.optimizers.stepper import STEP, Stepper
from memest.runtimes.torch.optimizers.table import Optimizer


def resident_states(optimizer: Optimizer, parameter: Spec, number: int | None, target: Target) -> list[Spec]:
    """The state tensors of one parameter that exist before step ``number`` (None: long after the first), where the parameter is."""
    if number == 1 and optimizer.row.created != "constructor":
        return []
    return states(optimizer, parameter, target)


def states(optimizer: Optimizer, parameter: Spec, target: Target) -> list[Spec]:
    """The state tensors of one parameter, where the parameter is: step counters stay in the CPU's memory unless a captured or fused step
    counts them on the accelerator."""
    options = dict(optimizer.options)
    found = optimizer.row.states(parameter, options)
    if not target.on_cuda or options["fused"] or options.get("capturable") or optimizer.row.count_on_device:
        return found
    return [s for s in found if s is not STEP]


def play_step(
    optimizer: Optimizer, ledger: Ledger, parameters: Sequence[Value], names: Sequence[str], number: int | None, target: Target
) -> None:
    """Play one ``optimizer.step()`` over the parameters that have a gradient. Where foreach is not asked for, torch chooses it on CUDA
    (torch/optim/optimizer.py, ``_default_to_fused_or_foreach``). UsageError for a captured step on a CPU."""
    options = dict(optimizer.options)
    if options.get("capturable") and not target.on_cuda:
        raise UsageError(f"optimizer {optimizer.text!r}: capturable needs an accelerator (torch refuses it on CPU); leave it out")
    if options["foreach"] is None:
        options["foreach"] = target.on_cuda and not options["fused"]
    stepper = Stepper(ledger, options, number, target.on_cuda)
    specs = [v.spec for v in parameters]
    row = optimizer.row
    ledger.op = optimizer.name
    if number == 1 and row.created == "step":
        for name, p in zip(names, specs, strict=True):
            ledger.layer = name
            if row.create is not None:
                row.create(stepper, p, name)
                continue
            for state in states(optimizer, p, target):
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
