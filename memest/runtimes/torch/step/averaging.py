"""``torch.optim.swa_utils.AveragedModel`` with ``get_ema_multi_avg_fn``: a second set of weights, updated after the optimizer's step.

Floating tensors are averaged in place (``_foreach_lerp_``); whole-number buffers, when averaged, go through temporaries in float32. The
counter of updates lies in the CPU's memory: on CUDA a copy of it goes to the device for each dtype that is averaged, which nobody reads.
"""

from __future__ import annotations

from collections.abc import Sequence

from memest.machines.target import Target
from memest.network.graph import Graph, Parameter
from memest.network.tensor import nbytes
from memest.runtimes.torch.ledger import Ledger
from memest.runtimes.torch.step.recipe import Average

NAME = "ema"
COUNTER_BYTES = 8  # n_averaged, int64


def hold_average(ledger: Ledger, graph: Graph, target: Target) -> None:
    """The averaged model: a deep copy, and its counter."""
    for p in graph.parameters:
        ledger.resident(nbytes(p.shape, p.dtype), "buffer" if p.buffer else "parameter", f"{NAME}.{p.name}")
    if not target.on_cuda:
        ledger.resident(COUNTER_BYTES, "buffer", f"{NAME}.n_averaged")


def play_average(ledger: Ledger, graph: Graph, average: Average, first: bool, target: Target) -> None:
    """``update_parameters``; the first time everything is copied instead."""
    ledger.phase, ledger.layer, ledger.op = "optimizer_step", NAME, "update_parameters"
    if target.on_cuda:
        if not first:
            _average_on_cuda(ledger, [p for p in graph.parameters if average.buffers or not p.buffer])
        return
    for _ in ("n_averaged == 0", "n_averaged > 0"):
        number, answer = ledger.allocate(8), ledger.allocate(1)
        ledger.release(number)
        ledger.release(answer)
    if average.buffers and not first:
        for p in graph.parameters:
            if p.dtype == "int64":
                _average_integers(ledger, p)
    ledger.release(ledger.allocate(8))  # n_averaged += 1


def _average_on_cuda(ledger: Ledger, averaged: Sequence[Parameter]) -> None:
    """Dtype by dtype, the last first (``_group_tensors_by_device_and_dtype`` walks a hash map, which gives back first what came last).
    Numbers and casts are no device memory."""
    for dtype in reversed(dict.fromkeys(p.dtype for p in averaged)):
        counter = ledger.allocate(COUNTER_BYTES)
        for p in averaged:
            if p.dtype == dtype == "int64":
                size = nbytes(p.shape, "float32")
                for s in [ledger.allocate(size) for _ in range(3)]:
                    ledger.release(s)
        ledger.release(counter)


def _average_integers(ledger: Ledger, p: Parameter) -> None:
    """``p_ema.copy_(p_ema * decay + p_model * (1 - decay))`` in float32."""
    size = nbytes(p.shape, "float32")
    products = []
    for _ in range(2):
        number, cast, cast_number = ledger.allocate(8), ledger.allocate(size), ledger.allocate(4)
        products.append(ledger.allocate(size))
        for s in (cast_number, cast, number):
            ledger.release(s)
    total = ledger.allocate(size)
    for s in (*products, total):
        ledger.release(s)
