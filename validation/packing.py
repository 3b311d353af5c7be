"""When a row's tensors are saved: how many allocations a call makes before torch packs each of them, and before ours does.

A recomputation ends with the last tensor packed, and hooks work where each is, so the place of a save among the allocations is memory.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from math import prod
from typing import Any

import torch

from memest.machines.cpu import Cpu
from memest.machines.target import Target
from memest.machines.versions import nearest
from memest.memory.stream import Storage
from memest.ops.composite import Composite
from memest.ops.operator import Example, Operator
from memest.ops.tape import Trace
from memest.runtimes.runtime import AS_DESCRIBED, Rows
from memest.runtimes.torch.autograd import AccumulateGrad, Machine, Node, Part, numbers_of
from memest.runtimes.torch.ledger import Ledger, Value
from memest.runtimes.torch.step import Caller
from validation.profiling import Measured, record
from validation.rows import _fresh, call_torch, example_tensors, spec_of, torch_callable

MARK = 7777  # bytes that no row asks for


Recording = Callable[[Callable[[], Any]], tuple[list[Measured], Any]]
Saves = list[tuple[int, int]]
"""The elements of what is saved, and the allocations before each."""


def measure_packing(row: Operator | Composite, example: Example, device: str = "cpu", record: Recording = record) -> Saves:
    """Torch's; NotInstalledError where torchvision's operators are not there."""
    torch_callable(row)
    tensors, attributes = example_tensors(example, device=device), dict(example.attributes)
    sizes: list[int] = []
    there: AbstractContextManager[Any] = nullcontext() if device == "cpu" else torch.device(device)

    def marked(t: torch.Tensor) -> torch.Tensor:
        sizes.append(t.numel())
        torch.empty(MARK, dtype=torch.uint8, device=device)
        return t

    def once(hook: Any) -> None:
        with there, torch.autograd.graph.saved_tensors_hooks(hook, lambda t: t):
            call_torch(row, _fresh(tensors, attributes, row), attributes)

    once(lambda t: t)
    sizes.clear()
    events, _ = record(lambda: once(marked))
    allocated = [e.delta for e in events if e.delta > 0]
    at = [i for i, delta in enumerate(allocated) if delta == MARK]
    return [(size, i - nth) for nth, (size, i) in enumerate(zip(sizes, at, strict=True))]


class _Noting(Machine):
    """A machine that knows how many allocations precede each save."""

    def __init__(self, ledger: Ledger, target: Target) -> None:
        super().__init__(ledger, True, target)
        self.saves: Saves = []

    def save(self, node: Node, trace: Trace, storages: list[Storage], parts: list[Part]) -> None:
        made = sum(s.delta > 0 for s in self.ledger.events)
        for s, number in zip(trace.saved, numbers_of(trace), strict=True):
            if not number:
                after = sum(e.nbytes > 0 and not e.keep for e in trace.events[s.at :])  # (what a library keeps is there already)
                self.saves.append((prod(s.spec.shape), made - after))
        super().save(node, trace, storages, parts)


def predict_packing(row: Operator | Composite, example: Example, on: Cpu | Target, rows: Rows = AS_DESCRIBED) -> Saves:
    """Ours, on a processor for the torch that is installed, or on a target by its ``rows``."""
    ledger = Ledger()
    machine = _Noting(ledger, on if isinstance(on, Target) else Target(version=nearest(torch.__version__), machine=on))

    def value(t: torch.Tensor) -> Value:
        v = ledger.hold(Value(spec_of(t), ledger.resident(0, "input", "x")))
        if t.requires_grad:
            v.node, v.requires_grad = AccumulateGrad(v, "x"), True
        return v

    arguments = [None if t is None else [value(u) for u in t] if isinstance(t, list) else value(t) for t in example_tensors(example)]
    Caller(machine, True, None, rows).run(row, arguments, tuple(row.canonical(example.attributes).items()))
    return machine.saves
