"""Whole steps on CUDA, the third of which is recorded.

From an allocator that is empty: the module is moved to the device (``.to``: children first, of each module its parameters, then its
buffers), then the input, then the target; what is cached is given back; step 1, in which the optimizer's state appears and cuBLAS takes
its workspaces; step 2; gradients are dropped; step 3. In channels_last a module that is there is converted, tensor by tensor in the same
order, and so is the input. The shape of the target is found before all that, by a call of the same module on an allocator that is emptied
afterwards. Inference: three calls in eval mode without gradients, of which the last keeps its output.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import nn

from memest.sources import models
from memest.sources.importers.torch.loading import build
from validation.cuda.calling import summary
from validation.cuda.networks import Network, Shape
from validation.cuda.ranks import among
from validation.cuda.recording import Recorded, clean, peaks_of, record_cuda, start
from validation.execute import GraphModule
from validation.levers import FORMATS, chosen, prepare, wrap
from validation.protocol import inputs_for, prepare_training, target_for
from validation.setup import Setup, prediction_of

DEVICE = "cuda"


def measure_networks(cases: Iterable[Network], wanted: Callable[[str], bool]) -> Iterator[dict[str, Any]]:
    """What the third step of each case did; or the ``error`` with which torch refuses it."""
    start()
    for case in cases:
        if wanted(case.name):
            yield {"case": case.name, "settings": case.settings, **_measured(case)}


def _measured(case: Network) -> dict[str, Any]:
    try:
        first, found = recorded(case)
    except Exception as error:  # whatever torch refuses a case with
        return {"error": f"{type(error).__name__}: {error}".partition("\n")[0][:200]}
    return {"first_peak": first[0], "first_reserved": first[1], **summary(found)}


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is done with a module that ``make`` gives on the CPU."""

    make: Callable[[], nn.Module]
    shape: Shape
    mode: str
    optimizer: str = ""
    loss: str = ""
    levers: tuple[str, ...] = ()
    hold_output: bool = False
    target: torch.Tensor | None = None

    def module(self) -> nn.Module:
        """The module on the device, and there in channels_last where that lever is pulled."""
        made = self.make().train(self.mode == "train").to(DEVICE)
        return made.to(memory_format=FORMATS[len(self.shape)]) if "channels_last" in self.levers else made

    def inputs(self) -> list[torch.Tensor]:
        """Its input, likewise."""
        made = [t.to(DEVICE) for t in inputs_for([self.shape])]
        return [t.to(memory_format=FORMATS[t.ndim]) for t in made] if "channels_last" in self.levers else made


def recorded(case: Network) -> tuple[tuple[int, int], Recorded]:
    """The most bytes allocated and reserved up to the end of step 1, and step 3."""
    make = partial(_copy, case.model) if case.external else partial(_described, case.model)
    given: dict[str, Any] = {"make": make, "shape": case.shape, "mode": case.mode, "levers": case.levers}
    if case.mode == "infer":
        return third_step(Work(**given))
    target = _target(case.model, case.shape, case.loss, make)
    return third_step(Work(**given, optimizer=case.optimizer, loss=case.loss, target=target))


def third_step(work: Work) -> tuple[tuple[int, int], Recorded]:
    """The same of any work."""
    torch.manual_seed(0)
    if work.mode == "infer":
        return _inference(work)
    target = target_of(work) if work.target is None else work.target
    clean()
    with among(work.levers):
        return _training(work, target)


def _training(work: Work, target: torch.Tensor) -> tuple[tuple[int, int], Recorded]:
    module, inputs = work.module(), work.inputs()
    setup = prepare_training(
        module,
        inputs,
        work.optimizer,
        work.loss,
        hold_output=work.hold_output,
        levers=work.levers,
        target=target.to(DEVICE),
    )
    del module, inputs
    clean()
    first = peaks_of(setup.step)
    for _ in range(2, steady(work.levers)):
        setup.step()
    setup.optimizer.zero_grad(set_to_none=True)
    return first, record_cuda(setup.step)


def steady(levers: Sequence[str]) -> int:
    """The number of the step that is recorded: the third, or the one after a reducer's buckets of a static graph have been rebuilt."""
    pulled = {s.name: dict(s.options) for s in chosen(levers, training=True)}
    return 4 if pulled.get("ddp", {}).get("static_graph") else 3


def target_of(work: Work) -> torch.Tensor:
    """A target for what the module gives, found by a call of it."""
    clean()
    with torch.no_grad():
        prediction = prediction_of(work.module()(*work.inputs()))
    return target_for(work.loss, prediction.cpu())


def _inference(work: Work) -> tuple[tuple[int, int], Recorded]:
    clean()
    setup = Setup(module=work.module(), inputs=work.inputs(), training=False, levers=work.levers)
    pulled = chosen(work.levers, training=False)
    prepare(setup, pulled)
    wrap(setup, pulled)
    clean()

    def call() -> Any:
        return setup.forward(setup, setup.inputs)

    with torch.no_grad():
        first = peaks_of(call)
        call()
        return first, record_cuda(call)


def _copy(model: str) -> nn.Module:
    return copy.deepcopy(_built(model))


def _described(model: str) -> nn.Module:
    return GraphModule(models.build(model))


@lru_cache(1)
def _built(model: str) -> nn.Module:
    """Made on the CPU, where its numbers are real: constructors read some of them."""
    return build(model)


_TARGETS: dict[tuple[str, Shape, str], torch.Tensor] = {}


def _target(model: str, shape: Shape, loss: str, make: Callable[[], nn.Module]) -> torch.Tensor:
    key = (model, shape, loss)
    if key not in _TARGETS:
        _TARGETS[key] = target_of(Work(make=make, shape=shape, mode="train", loss=loss))
    return _TARGETS[key]
