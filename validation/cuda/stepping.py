"""Whole steps on CUDA, the third of which is recorded.

From an allocator that is empty: the module is moved to the device (``.to``: children first, of each module its parameters, then its
buffers), then the input, then the target; what is cached is given back; step 1, in which the optimizer's state appears and cuBLAS takes
its workspaces; step 2; gradients are dropped; step 3. The shape of the target is found before all that, by a call of the same module on an
allocator that is emptied afterwards. Inference: three calls in eval mode without gradients, whose output is kept until the next has ended.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from functools import cache, lru_cache
from typing import Any

import torch
from torch import nn

from memest.sources import models
from memest.sources.importers.torch_loading import build
from validation.cuda.calling import summary
from validation.cuda.networks import Network, Shape
from validation.cuda.recording import Recorded, clean, peaks_of, record_cuda, start
from validation.execute import GraphModule
from validation.levers import chosen, prepare, wrap
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


def recorded(case: Network) -> tuple[tuple[int, int], Recorded]:
    """The most bytes allocated and reserved up to the end of step 1, and step 3."""
    torch.manual_seed(0)
    if case.mode == "infer":
        return _inference(case)
    target = _target(case.model, case.shape, case.loss)
    clean()
    module, inputs = _module(case), _inputs(case)
    setup = prepare_training(
        module, inputs, case.optimizer, case.loss, hold_output=False, levers=case.levers, target=target.to(DEVICE)
    )  # fmt: skip
    del module, inputs
    clean()
    first = peaks_of(setup.step)
    setup.step()
    setup.optimizer.zero_grad(set_to_none=True)
    return first, record_cuda(setup.step)


def _inference(case: Network) -> tuple[tuple[int, int], Recorded]:
    clean()
    setup = Setup(module=_module(case).eval(), inputs=_inputs(case), training=False, levers=case.levers)
    pulled = chosen(case.levers, training=False)
    prepare(setup, pulled)
    wrap(setup, pulled)
    clean()

    def call() -> Any:
        return setup.forward(setup, setup.inputs)

    with torch.no_grad():
        first = peaks_of(call)
        call()
        return first, record_cuda(call)


def _module(case: Network) -> nn.Module:
    """Made on the CPU, where its numbers are real: constructors read some of them."""
    made = copy.deepcopy(_built(case.model)) if case.external else GraphModule(models.build(case.model))
    return made.to(DEVICE)


@lru_cache(1)
def _built(model: str) -> nn.Module:
    return build(model)


def _inputs(case: Network) -> list[torch.Tensor]:
    return [t.to(DEVICE) for t in inputs_for([case.shape])]


@cache
def _target(model: str, shape: Shape, loss: str) -> torch.Tensor:
    case = Network(model=model, shape=shape)
    with torch.no_grad():
        prediction = prediction_of(_module(case).train()(*_inputs(case)))
    return target_for(loss, prediction.cpu())
