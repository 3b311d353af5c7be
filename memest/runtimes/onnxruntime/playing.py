"""One call of a network as the requests that ONNX Runtime's kernels and executor make of their allocator.

Source: onnxruntime/core/framework/sequential_executor.cc: a kernel's outputs are made when it runs, its temporaries come after them and
go with it, buffers go after the last node that reads them, in the order of the plan.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from memest.memory.planners.blocks import aligned
from memest.memory.stream import Event, Storage, Stream
from memest.network.tensor import Spec
from memest.runtimes.onnxruntime.kernels import RESULT_LAST, temporaries
from memest.runtimes.onnxruntime.lowering.nodes import Net
from memest.runtimes.onnxruntime.planning import ALIGNMENT, Buffer, planned
from memest.runtimes.onnxruntime.weights import weights_of

RETURNED = "returned to the caller"


@dataclass(frozen=True, slots=True, kw_only=True)
class Session(Stream):
    """A call of a network that has so many ``nodes`` in its file; ``other`` is the same with late reorders the other way round, where a
    session may take either order (None: it may not)."""

    nodes: int
    other: Stream | None = None


PHASE = "forward"


def played(net: Net, threads: int, values: dict[str, Spec], other: Stream | None = None) -> Session:
    """The first call at these sizes: a buffer for each that the plan has, and temporaries."""
    plan = planned(net)
    residents = [_standing(n, *held) for n, held in enumerate(_held(net))]
    ends: dict[int, list[Buffer]] = defaultdict(list)
    for buffer in plan.buffers:
        if buffer.last is not None:
            ends[buffer.last].append(buffer)
    events: list[Event] = []
    storages: dict[Buffer, Storage] = {}
    made = len(residents)
    for step, (node, fresh) in enumerate(zip(plan.order, plan.made, strict=True)):
        results: list[Storage] = []
        for buffer in fresh:
            made += 1
            storages[buffer] = Storage(made, buffer.nbytes, "activation", node.layer, node.op, "" if buffer.traced else RETURNED)
            results.append(storages[buffer])
        scratch: list[Storage] = []
        for nbytes in temporaries(node, threads):
            made += 1
            scratch.append(Storage(made, aligned(nbytes, ALIGNMENT), "workspace", node.layer, node.op, f"scratch inside {node.op}"))
        asked = [*scratch, *results] if node.op in RESULT_LAST else [*results, *scratch]
        events += [Event(s.nbytes, s, PHASE, node.layer, node.op) for s in asked]
        gone = [*scratch, *(storages[buffer] for buffer in ends[step])]
        events += [Event(-s.nbytes, s, PHASE, node.layer, node.op) for s in gone]
    asked_for = tuple([e for e in events if e.storage.nbytes])
    return Session(residents=tuple(residents), events=asked_for, values=values, nodes=net.written, other=other)


def _held(net: Net) -> Iterable[tuple[str, int, str, str]]:
    yield from weights_of(net)
    for value in net.inputs:
        yield value.name, value.nbytes, "input", ""


def _standing(number: int, name: str, nbytes: int, category: str, reason: str) -> Storage:
    storage = Storage(number, nbytes, category, name, "", reason)
    storage.refs = 1
    return storage
