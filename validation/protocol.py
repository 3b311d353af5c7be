"""The measuring protocol: what one training step or inference call takes from torch's CPU allocator.

Training: build, one unmeasured warm-up step (the optimizer's state exists), ``zero_grad(set_to_none=True)``, collect garbage, count what
is resident, then one step under the profiler: zero_grad → forward → loss → backward → step. Inference: ``eval()``, ``no_grad()``, one
warm-up call, then one call whose output is kept. Peak = resident + the highest running sum.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import nn

from memest.losses import loss_named
from memest.optimizers import optimizer_named
from memest.tensor import spec
from validation.losses import torch_loss
from validation.profiling import Measured, record


@dataclass(frozen=True)
class Measurement:
    """What torch took: bytes resident before the step, the stream of events, and the peak."""

    resident_bytes: int
    events: list[Measured]

    @property
    def peak_bytes(self) -> int:
        """The most bytes alive at one moment."""
        return self.resident_bytes + max(accumulate((e.delta for e in self.events), initial=0))


def storage_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of the distinct storages behind ``tensors``."""
    seen = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors if t.untyped_storage().nbytes()}
    return sum(seen.values())


def prediction_of(output: Any) -> torch.Tensor:
    """The tensor the loss takes: the output itself, ``"out"`` of a mapping, else the first tensor."""
    if isinstance(output, torch.Tensor):
        return output
    if isinstance(output, Mapping):
        return prediction_of(output["out"] if "out" in output else next(iter(output.values())))
    return prediction_of(output[0])


OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
    "adamax": torch.optim.Adamax,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "adadelta": torch.optim.Adadelta,
}


def torch_optimizer(text: str, parameters: Iterable[torch.Tensor]) -> torch.optim.Optimizer:
    """torch's own optimizer for memest's name and options."""
    chosen = optimizer_named(text)
    given = {k: v for k, v in chosen.options if v != chosen.row.options[k]}
    given.setdefault("lr", 0.01)
    return OPTIMIZERS[chosen.name](parameters, **given)


def inputs_for(shapes: Sequence[Sequence[int]], channels_last: bool = False, dtype: str = "float32") -> list[torch.Tensor]:
    """Random inputs."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d} if channels_last else {}
    made = [torch.rand(tuple(s)).to(getattr(torch, dtype)) for s in shapes]
    return [t.contiguous(memory_format=formats.get(t.ndim, torch.contiguous_format)) for t in made]


def target_for(loss: str, prediction: torch.Tensor) -> torch.Tensor:
    """A valid target for a prediction: class indices, or numbers in the prediction's dtype."""
    wanted = loss_named(loss).target(spec(tuple(prediction.shape), str(prediction.dtype).removeprefix("torch.")))
    if wanted.dtype == "int64":
        return torch.zeros(wanted.shape, dtype=torch.int64)
    return torch.rand(wanted.shape).to(prediction.dtype)


def measure_training(
    module: nn.Module, inputs: Sequence[torch.Tensor], optimizer: str, loss: str, *, hold_output: bool = False, first_step: bool = False
) -> Measurement:
    """One training step of ``module`` as it stands (its train/eval flags are kept)."""
    chosen = torch_optimizer(optimizer, [p for p in module.parameters() if p.requires_grad])
    loss_fn = torch_loss(loss)
    with torch.no_grad():
        flags = [(m, m.training) for m in module.modules()]
        target = target_for(loss, prediction_of(module(*inputs)))
        for m, was in flags:
            m.training = was
    one_step = _holding_step if hold_output else _step
    run: Callable[[], Any] = lambda: one_step(module, inputs, target, chosen, loss_fn)  # noqa: E731
    if not first_step:
        run()
    chosen.zero_grad(set_to_none=True)
    gc.collect()
    state = [v for s in chosen.state.values() for v in s.values() if isinstance(v, torch.Tensor)]
    resident = storage_bytes([*module.parameters(), *module.buffers(), *state, *inputs, target])
    events, _ = record(run)
    return Measurement(resident, events)


def _step(module: nn.Module, inputs: Sequence[torch.Tensor], target: torch.Tensor, optimizer: torch.optim.Optimizer, loss_fn: Any) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss_fn(prediction_of(module(*inputs)), target).backward()
    optimizer.step()


def _holding_step(
    module: nn.Module, inputs: Sequence[torch.Tensor], target: torch.Tensor, optimizer: torch.optim.Optimizer, loss_fn: Any
) -> None:
    optimizer.zero_grad(set_to_none=True)
    out = module(*inputs)
    loss = loss_fn(prediction_of(out), target)
    loss.backward()
    optimizer.step()


def measure_inference(module: nn.Module, inputs: Sequence[torch.Tensor]) -> Measurement:
    """One call of ``module.eval()`` under ``no_grad`` whose output is kept."""
    module.eval()
    with torch.no_grad():
        module(*inputs)
        gc.collect()
        resident = storage_bytes([*module.parameters(), *module.buffers(), *inputs])
        events, _ = record(lambda: module(*inputs))
    return Measurement(resident, events)
