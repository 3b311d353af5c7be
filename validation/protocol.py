"""The measuring protocol: what one training step or inference call takes from torch's CPU allocator.

Training: build, one unmeasured warm-up step (the optimizer's state exists), ``zero_grad(set_to_none=True)``, collect garbage, count what
is resident, then one step under the profiler: zero_grad → forward → loss → backward → step. Inference: ``eval()``, ``no_grad()``, one
warm-up call, then one call whose output is kept. Peak = resident + the highest running sum.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

import torch
from torch import nn

from memest.network.tensor import spec
from memest.runtimes.torch.losses import loss_named
from memest.runtimes.torch.optimizers import optimizer_named
from validation.levers import chosen, prepare, wrap
from validation.losses import torch_loss
from validation.profiling import Measured, record, watched
from validation.setup import Setup, prediction_of


@dataclass(frozen=True)
class Measurement:
    """What torch took: bytes resident before the step, the stream of events, and the peak."""

    standing_bytes: int
    events: list[Measured]

    @property
    def peak_bytes(self) -> int:
        """The most bytes alive at one moment."""
        return self.standing_bytes + max(accumulate((e.delta for e in self.events), initial=0))


def storage_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of the distinct storages behind ``tensors``."""
    seen = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors if t.untyped_storage().nbytes()}
    return sum(seen.values())


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
    "asgd": torch.optim.ASGD,
    "rprop": torch.optim.Rprop,
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
    """A valid target for a prediction: class indices, or numbers in the prediction's dtype; without elements where there is none."""
    wanted = loss_named(loss).target(spec(tuple(prediction.shape), str(prediction.dtype).removeprefix("torch.")))
    if wanted is None:
        return torch.empty(0)
    if wanted.dtype == "int64":
        return torch.zeros(wanted.shape, dtype=torch.int64)
    return torch.rand(wanted.shape).to(prediction.dtype)


def measure_training(
    module: nn.Module,
    inputs: Sequence[torch.Tensor],
    optimizer: str,
    loss: str,
    *,
    hold_output: bool = False,
    first_step: bool = False,
    levers: Sequence[str] = (),
) -> Measurement:
    """One training step of ``module`` as it stands (its train/eval flags are kept), with ``levers`` pulled."""
    setup = prepare_training(module, inputs, optimizer, loss, hold_output=hold_output, levers=levers)
    if not first_step:
        watched(setup.step)
    setup.optimizer.zero_grad(set_to_none=True)
    gc.collect()
    resident = storage_bytes(setup.resident())
    events, _ = record(setup.step)
    return Measurement(resident, events)


def prepare_training(
    module: nn.Module,
    inputs: Sequence[torch.Tensor],
    optimizer: str,
    loss: str,
    *,
    hold_output: bool,
    levers: Sequence[str],
    target: torch.Tensor | None = None,
) -> Setup:
    """All a training step is made of, with ``levers`` pulled. Without a ``target`` the module is called once to make one."""
    setup = Setup(module=module, inputs=list(inputs), training=True, levers=levers, hold_output=hold_output)
    pulled = chosen(levers, training=True)
    prepare(setup, pulled)
    setup.make_optimizer = partial(torch_optimizer, optimizer)
    setup.optimizer = setup.make_optimizer([p for p in setup.module.parameters() if p.requires_grad])
    setup.loss_fn = torch_loss(loss)
    setup.target = _target_of(setup, loss) if target is None else target
    wrap(setup, pulled)
    return setup


def _target_of(setup: Setup, loss: str) -> torch.Tensor:
    flags = [(m, m.training) for m in setup.module.modules()]
    with torch.no_grad():
        made = target_for(loss, prediction_of(setup.module(*setup.inputs)))
    for m, was in flags:
        m.training = was
    return made


def measure_inference(module: nn.Module, inputs: Sequence[torch.Tensor], *, levers: Sequence[str] = ()) -> Measurement:
    """One call of ``module.eval()`` under ``no_grad`` whose output is kept, with ``levers`` pulled."""
    setup = Setup(module=module.eval(), inputs=list(inputs), training=False, levers=levers)
    pulled = chosen(levers, training=False)
    prepare(setup, pulled)
    wrap(setup, pulled)
    with torch.no_grad():
        watched(lambda: setup.forward(setup, setup.inputs))
        gc.collect()
        resident = storage_bytes(setup.resident())
        events, _ = record(lambda: setup.forward(setup, setup.inputs))
    return Measurement(resident, events)
