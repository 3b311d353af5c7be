"""When a row's tensors are saved: how many allocations a call makes before torch packs the last of them, and before ours does.

A recomputation ends with the last tensor packed, so the place of a save among the allocations is memory.
"""

from __future__ import annotations

from typing import Any

import torch

from memest.machines.cpu import Cpu
from memest.machines.target import Target
from memest.machines.versions import nearest
from memest.memory.stream import Storage
from memest.ops.composite import Composite
from memest.ops.operator import Example, Operator
from memest.ops.tape import Trace
from memest.runtimes.torch.autograd import AccumulateGrad, Machine, Node, numbers_of
from memest.runtimes.torch.ledger import Ledger, Value
from memest.runtimes.torch.step import Caller
from validation.profiling import record
from validation.rows import _fresh, call_torch, example_tensors, spec_of

MARK = 7777  # bytes that no row asks for


def measure_packing(row: Operator | Composite, example: Example) -> int | None:
    """Torch's allocations before the last tensor is packed; None when nothing is."""
    tensors, attributes = example_tensors(example), dict(example.attributes)

    def marked(t: torch.Tensor) -> torch.Tensor:
        torch.empty(MARK, dtype=torch.uint8)
        return t

    def once(hook: Any) -> None:
        with torch.autograd.graph.saved_tensors_hooks(hook, lambda t: t):
            call_torch(row, _fresh(tensors, attributes, row), attributes)

    once(lambda t: t)
    events, _ = record(lambda: once(marked))
    allocated = [e.delta for e in events if e.delta > 0]
    if MARK not in allocated:
        return None
    last = len(allocated) - 1 - allocated[::-1].index(MARK)
    return last - allocated[:last].count(MARK)


class _Noting(Machine):
    """A machine that knows how many allocations precede the last save."""

    last: int | None = None

    def save(self, node: Node, trace: Trace, storages: list[Storage]) -> None:
        packed = [s.at for s, number in zip(trace.saved, numbers_of(trace), strict=True) if not number]
        if packed:
            made = sum(s.delta > 0 for s in self.ledger.events)
            self.last = made - sum(e.nbytes > 0 for e in trace.events[max(packed) :])
        super().save(node, trace, storages)


def predict_packing(row: Operator | Composite, example: Example, cpu: Cpu) -> int | None:
    """Our allocations before the last tensor is saved."""
    ledger = Ledger()
    machine = _Noting(ledger, True, Target(version=nearest(torch.__version__), machine=cpu))

    def value(t: torch.Tensor) -> Value:
        v = ledger.hold(Value(spec_of(t), ledger.resident(0, "input", "x")))
        if t.requires_grad:
            v.node, v.requires_grad = AccumulateGrad(v, "x"), True
        return v

    arguments = [None if t is None else [value(u) for u in t] if isinstance(t, list) else value(t) for t in example_tensors(example)]
    Caller(machine, True).run(row, arguments, tuple(row.canonical(example.attributes).items()))
    return machine.last
