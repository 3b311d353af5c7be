"""One step of TensorFlow's executor: which buffers its kernels make, write over and let go.

Source: tensorflow/core/common_runtime/executor.cc (Process, PropagateOutputs) and tensorflow/core/framework/op_kernel.cc (forward_input): a
kernel writes over an input that nobody else holds and that is as large; inputs go once it has run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from memest.machines.cpu import Cpu
from memest.memory.stream import Event, Storage
from memest.runtimes.tensorflow.kernels import ASSIGNING, Temporary, is_view, overwrites, temporaries
from memest.runtimes.tensorflow.nodes import Net, Node, Value
from memest.runtimes.tensorflow.scheduling import Moment

CATEGORIES = {"forward": "activation", "backward": "gradient", "optimizer": "temporary"}
MISSING = 0.25
"""The share of what a kernel fills over its time that is not there when another one's, begun before it, is let go: any share from none to
all, of which the least of three steps is expected to be a quarter."""


@dataclass(slots=True)
class Run:
    """The buffers of a step: who holds each value, and what was asked for and given back."""

    net: Net
    cpu: Cpu
    onednn: bool
    residents: list[Storage] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    workers: list[int] = field(default_factory=list)  # who asks for each
    held: dict[str, Storage] = field(default_factory=dict)
    variables: dict[str, Storage] = field(default_factory=dict)
    inside: dict[str, list[Storage]] = field(default_factory=dict)
    filling: set[Storage] = field(default_factory=set)
    worker: int = 0
    made: int = 0
    largest_kernel: int = 0

    def stand(self) -> None:
        """Variables and what is fed are there."""
        for variable in self.net.variables.values():
            value = Value(variable.name, variable.shape, variable.dtype)
            self.variables[variable.name] = self._standing(value, variable.category, numpys=variable.reset)
        for value in self.net.inputs.values():
            self.held[value.name] = self._standing(value, "input")

    def play(self, moments: Iterable[Moment]) -> None:
        """Kernels begin and end."""
        moments = list(moments)
        order = [m.node for m in moments if not m.ends]
        edges: dict[str, int] = {}
        for node in order:
            for name in node.inputs:
                edges[name] = edges.get(name, 0) + 1
        for name in self.net.fetched:
            if name in self.net.values:
                edges[name] = edges.get(name, 0) + 1
        values = {**self.net.values, **{v.name: v for node in order for v in node.outputs}}
        for name, storage in self.held.items():
            storage.refs += edges.get(name, 0)
        read: dict[str, list[Storage]] = {}
        for node, ends, worker in moments:
            self.worker = worker
            if ends:
                self._end(node, read.pop(node.name))
            else:
                read[node.name] = [self.held[name] for name in node.inputs]
                self._begin(node, read[node.name], values, edges)

    def _begin(self, node: Node, inputs: list[Storage], values: Mapping[str, Value], edges: Mapping[str, int]) -> None:
        if node.op == "ReadVariableOp":
            self._hold(node.outputs[0], self.variables[node.variable], edges)
        elif node.op in ASSIGNING:
            self._assign(node, inputs[0])
        elif is_view(node, values):
            self._hold(node.outputs[0], inputs[0], edges)
        else:
            self._compute(node, inputs, values, edges)

    def _end(self, node: Node, inputs: list[Storage]) -> None:
        for storage in self.inside.pop(node.name, ()):
            self._release(storage, node)
        for storage in inputs:
            self._let_go(storage, node)

    def _compute(self, node: Node, inputs: list[Storage], values: Mapping[str, Value], edges: Mapping[str, int]) -> None:
        taken = temporaries(node, values, self.cpu, self.onednn)
        scratch = [self._temporary(t, node, inputs) for t in taken if t.before]
        for n, value in enumerate(node.outputs):
            storage = self._over(node, n, inputs, values) or self._allocate(value.nbytes, CATEGORIES[node.phase], node)
            storage.refs += edges.get(value.name, 0)
            self.held[value.name] = storage
        for nbytes in [t.nbytes for t in taken for _ in range(t.passing)]:
            self._release(self._allocate(nbytes, "workspace", node), node)
        scratch += [self._temporary(t, node, inputs) for t in taken if not t.before]
        inside = [s for s in scratch if s is not None]
        outputs = [self.held[v.name] for v in node.outputs]
        there = {s.id: s.nbytes for s in (*inputs, *outputs, *inside) if s.id > len(self.residents)}
        self.largest_kernel = max(self.largest_kernel, sum(there.values()))
        self.inside[node.name] = [*inside, *(s for s in outputs if s.refs == 0)]

    def _over(self, node: Node, number: int, inputs: list[Storage], values: Mapping[str, Value]) -> Storage | None:
        """The input that an output is written over."""
        value = node.outputs[number]
        for n in overwrites(node, number, values, self.onednn):
            if n < len(inputs) and inputs[n].refs == 1:
                given = values[node.inputs[n]]
                if (given.nbytes, given.dtype) == (value.nbytes, value.dtype) and given.nbytes and inputs[n].category != "input":
                    return inputs[n]
        return None

    def _assign(self, node: Node, given: Storage) -> None:
        """A variable takes the value's buffer, or is changed in place; where somebody still reads it, it becomes another first."""
        old = self.variables[node.variable]
        if node.op == "AssignVariableOp":
            given.refs += 1
            self.variables[node.variable] = given
        elif old.refs > 1:
            fresh = self.variables[node.variable] = self._allocate(old.nbytes, old.category, node)
            fresh.refs = 1
        else:
            return
        self._let_go(old, node)

    def _temporary(self, wanted: Temporary, node: Node, inputs: list[Storage]) -> Storage | None:
        if wanted.over is not None and inputs[wanted.over].refs == 1:
            return None
        made = self._allocate(wanted.nbytes, "workspace", node)
        made.unwritten = wanted.unwritten
        if wanted.once:
            written = made.nbytes - made.unwritten
            if any(s in self.filling for of in self.inside.values() for s in of):
                made.unwritten += round(MISSING * written)
            self.filling.add(made)
        return made

    def _hold(self, value: Value, storage: Storage, edges: Mapping[str, int]) -> None:
        storage.refs += edges.get(value.name, 0)
        self.held[value.name] = storage

    def _standing(self, value: Value, category: str, *, numpys: bool = False) -> Storage:
        self.made += 1
        storage = Storage(self.made, 0 if numpys else value.nbytes, category, value.name, "", "")
        storage.refs = 1
        self.residents.append(storage)
        return storage

    def _allocate(self, nbytes: int, category: str, node: Node) -> Storage:
        self.made += 1
        storage = Storage(self.made, nbytes, category, node.layer, node.op, f"of {node.name}")
        self._note(nbytes, storage, node)
        return storage

    def _let_go(self, storage: Storage, node: Node) -> None:
        storage.refs -= 1
        if not storage.refs:
            self._release(storage, node)

    def _release(self, storage: Storage, node: Node) -> None:
        self._note(-storage.nbytes, storage, node)

    def _note(self, delta: int, storage: Storage, node: Node) -> None:
        if delta:
            self.events.append(Event(delta, storage, node.phase, node.layer, node.op))
            self.workers.append(self.worker)
