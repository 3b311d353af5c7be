"""What ``torch.distributed._tools.mem_tracker.MemTracker`` says of a step: the module runs under ``FakeTensorMode``, as the class asks.

It is the step that memest plays (two of them, the second counts: optimizer state is there), in plain torch. Nothing is computed and the
module is left as it was. The class is private to torch, so whatever it raises is a reason and no error.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from memest.errors import MemestError, UnsupportedError
from memest.runtimes.torch.losses import Loss
from memest.runtimes.torch.optimizers import Optimizer
from memest.sources.importers.torch.inputs import ModuleCall
from memest.sources.importers.torch.refusals import text_of
from memest.sources.importers.torch.tensors.described import leaves, spec_of
from memest.sources.importers.torch.tensors.state import as_it_was
from memest.sources.importers.torch.wrappers import unwrapped


def tracked(module: Any, example: Any, optimizer: Optimizer | None, loss: Loss | None) -> dict[str, int]:
    """The bytes at its peak by its own categories (``Parameter``, ``Activation``, …), of a training step or, without a ``loss``, of a call
    in ``eval()`` under ``no_grad``. UnsupportedError where it cannot be asked, with the reason."""
    try:
        from torch._subclasses import FakeTensorMode
        from torch.distributed._tools.mem_tracker import MemTracker
    except (ImportError, AttributeError):
        raise UnsupportedError(f"torch {torch.__version__} has no torch.distributed._tools.mem_tracker") from None
    module, _ = unwrapped(module)
    call = ModuleCall(module, example)
    criterion = None if loss is None else _criterion(loss)
    with warnings.catch_warnings(), as_it_was(module), FakeTensorMode(allow_non_fake_inputs=True):
        if loss is None:
            module.eval()
        _fake(module)
        inputs = {n: torch.empty_strided(t.shape, t.stride(), dtype=t.dtype) for n, t in call.inputs.items()}
        updates = None if optimizer is None else _optimizer(optimizer, module)
        tracker = MemTracker()
        try:
            warnings.simplefilter("ignore")  # of hooks that hear of an exception, which is told below
            step, target = _step(module, call, inputs, updates, loss, criterion)
            tracker.track_external(module, *([updates] if updates is not None else []), *inputs.values(), *target)
            with tracker:
                step()
                if updates is not None:
                    tracker.reset_mod_stats()
                    step()
        except MemestError:
            raise
        except Exception as e:  # of a private class: it is told, not mended
            raise UnsupportedError(f"MemTracker fails: {type(e).__name__}: {text_of(e)}") from None
        found: dict[str, int] = {}
        for snapshot in tracker.get_tracker_snapshot("peak").values():
            for kind, n in snapshot.items():
                found[getattr(kind, "value", kind)] = found.get(getattr(kind, "value", kind), 0) + int(n)
    return found


def _fake(module: nn.Module) -> None:
    """Fake tensors in the places of the module's own, shared ones shared."""
    made: dict[int, torch.Tensor] = {}
    for m in module.modules():
        for table in (m._parameters, m._buffers):
            for name, t in table.items():
                if t is None:
                    continue
                if id(t) not in made:
                    twin = torch.empty_strided(t.shape, t.stride(), dtype=t.dtype)
                    made[id(t)] = nn.Parameter(twin, t.requires_grad) if isinstance(t, nn.Parameter) else twin
                table[name] = made[id(t)]


def _step(
    module: nn.Module, call: ModuleCall, inputs: Mapping[str, torch.Tensor], updates: Any, loss: Loss | None, criterion: Any
) -> tuple[Any, list[torch.Tensor]]:
    """A call of the step, and the target it is given."""
    if loss is None:

        def infer() -> None:
            with torch.no_grad():
                call(inputs)

        return infer, []
    with torch.no_grad():
        prediction = next(leaves(call(inputs)))
    wanted = loss.target(spec_of(prediction))
    target = None if wanted is None else torch.zeros(tuple(map(int, wanted.shape)), dtype=getattr(torch, wanted.dtype))
    del prediction

    def train() -> None:
        updates.zero_grad()
        criterion(next(leaves(call(inputs))), target).backward()
        updates.step()

    return train, [] if target is None else [target]


def _criterion(loss: Loss) -> Any:
    """A loss of torch's; UnsupportedError for one that torch has no function for."""
    if not loss.terms:
        return lambda prediction, target: prediction
    if len(loss.terms) > 1 or loss.weights is not None or loss.terms[0].factor is not None:
        raise UnsupportedError(f"MemTracker is asked about one plain loss, not {loss.name!r}")
    (term,) = loss.terms
    function = getattr(functional, term.op, None)
    if function is None:
        raise UnsupportedError(f"torch has no function for the loss {term.op!r}")
    return lambda prediction, target: function(prediction, target, **dict(term.options))


def _optimizer(optimizer: Optimizer, module: nn.Module) -> torch.optim.Optimizer:
    kinds = {name.lower(): kind for name, kind in vars(torch.optim).items() if isinstance(kind, type)}
    options = {name: value for name, value in optimizer.options if value is not None}
    made: torch.optim.Optimizer = kinds[optimizer.name](module.parameters(), lr=0.01, **options)
    return made
