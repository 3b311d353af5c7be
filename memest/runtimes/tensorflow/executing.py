"""One step of TensorFlow's executor: which node runs when, and which buffers it makes, writes over and lets go.

Source: tensorflow/core/common_runtime/executor.cc (Process, PropagateOutputs, ScheduleReady) and tensorflow/core/framework/op_kernel.cc
(forward_input): a kernel writes over an input that nobody else holds and that is as large; inputs go once it has run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from memest.machines.cpu import Cpu
from memest.memory.stream import Event, Storage
from memest.runtimes.tensorflow.kernels import ASSIGNING, VIEWS, is_view, overwrites, temporaries
from memest.runtimes.tensorflow.nodes import Net, Node, Value, node_of

CATEGORIES = {"forward": "activation", "backward": "gradient", "optimizer": "temporary"}
CHEAP = frozenset({"ReadVariableOp", *VIEWS})
"""Kernels that are never worth a task of their own (``IsExpensive`` is false)."""


def scheduled(nodes: Sequence[Node], *, shallow: bool = False, late: bool = False, filters_last: bool = False, turn: int = 0) -> list[Node]:
    """The order of one thread: variables are read; then what becomes ready goes on at once, and of several nodes the last does, while the
    others wait, the youngest first.

    Which of several is the last differs between processes: the one from which most is still to come (the way to the first layer, while the
    gradients of filters wait), where ``shallow`` the one from which least is, and by chance at each other ``turn``. Variables that nothing
    needs at once may be read when nothing else is left to do (``late``), until when updates wait with their gradients. Gradients of filters
    may all come behind the rest, the oldest first (``filters_last``), until when what they read waits."""
    by_name = {n.name: n for n in nodes}
    pending = {n.name: sum(d in by_name for d in _needs(n)) for n in nodes}
    after: dict[str, list[Node]] = {}
    for node in nodes:
        for name in _needs(node):
            after.setdefault(name, []).append(node)
    still = _still_to_come(nodes, after)
    chance = Random(turn)
    found: list[Node] = []

    def run(node: Node) -> list[Node]:
        found.append(node)
        ready: list[Node] = []
        for other in after.get(node.name, ()):
            pending[other.name] -= 1
            if not pending[other.name]:
                ready.append(other)
        return ready

    first = [n for n in nodes if not pending[n.name]]
    early = [] if late else [n for n in first if n.op in CHEAP]
    tasks = deque([ready for n in early for ready in run(n)] + [n for n in first if late or n.op not in CHEAP])
    while tasks:
        inline = deque([tasks.popleft()])
        while inline:
            ready = run(inline.popleft())
            heavy = [n for n in ready if n.op not in CHEAP]
            if turn:
                chance.shuffle(heavy)
            else:
                heavy.sort(key=lambda n: still[n.name], reverse=shallow)
            waiting = [n for n in heavy if filters_last and "BackpropFilter" in n.op]
            heavy = [n for n in heavy if n not in waiting]
            tasks.extend(waiting)
            inline.extend(n for n in ready if n.op in CHEAP)
            if heavy and not inline:
                inline.append(heavy.pop())
            tasks.extendleft(heavy)
    return found


def ahead(order: Sequence[Node], fed: Iterable[str]) -> list[Node]:
    """An order with all that depends on variables alone before the rest."""
    waiting = set(fed)
    behind: list[Node] = []
    found: list[Node] = []
    for node in order:
        if any(name in waiting for name in node.inputs) or any(name in waiting for name in node.after):
            waiting.update((node.name, *(v.name for v in node.outputs)))
            behind.append(node)
        else:
            found.append(node)
    return found + behind


def _still_to_come(nodes: Sequence[Node], after: Mapping[str, list[Node]]) -> dict[str, int]:
    """How many nodes follow one another from each on, at most."""
    found: dict[str, int] = {}
    for node in reversed(nodes):
        found[node.name] = 1 + max((found[n.name] for n in after.get(node.name, ())), default=0)
    return found


def ordered(nodes: Sequence[Node], names: Iterable[str]) -> list[Node]:
    """The order of ``names``; what is not named (it gives nothing that is logged, or a view) runs as soon as it can, and what a named node
    needs before it in any case."""
    by_name = {name: n for n in nodes for name in (n.name, *n.merged)}
    named = list(dict.fromkeys(by_name[name].name for name in names if name in by_name))
    wanted, found = set(named), dict[str, Node]()
    after: dict[str, list[Node]] = {}
    pending = {n.name: 0 for n in nodes}
    for node in nodes:
        for name in _needs(node):
            if name in pending:
                pending[node.name] += 1
                after.setdefault(name, []).append(node)

    def run(node: Node) -> None:
        stack = [node]
        while stack:
            now = stack.pop()
            if now.name in found:
                continue
            missing = [by_name[n] for n in _needs(now) if n in pending and n not in found]
            if missing:
                stack += [now, *missing]
                continue
            found[now.name] = now
            for other in after.get(now.name, ()):
                pending[other.name] -= 1
                if not pending[other.name] and other.name not in wanted:
                    stack.append(other)

    for start in [n.name for n in nodes if not pending[n.name] and n.name not in wanted] + named:
        run(by_name[start])
    return list(found.values())


def _needs(node: Node) -> list[str]:
    return [*map(node_of, node.inputs), *node.after]


@dataclass(slots=True)
class Run:
    """The buffers of a step: who holds each value, and what was asked for and given back."""

    net: Net
    cpu: Cpu
    onednn: bool
    residents: list[Storage] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    held: dict[str, Storage] = field(default_factory=dict)
    variables: dict[str, Storage] = field(default_factory=dict)
    made: int = 0
    largest_kernel: int = 0

    def stand(self) -> None:
        """Variables and what is fed are there."""
        for variable in self.net.variables.values():
            value = Value(variable.name, variable.shape, variable.dtype)
            self.variables[variable.name] = self._standing(value, variable.category, numpys=variable.reset)
        for value in self.net.inputs.values():
            self.held[value.name] = self._standing(value, "input")

    def play(self, order: Iterable[Node]) -> None:
        """The nodes one after the other."""
        order = list(order)
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
        for node in order:
            self._run(node, values, edges)

    def _run(self, node: Node, values: Mapping[str, Value], edges: Mapping[str, int]) -> None:
        inputs = [self.held[name] for name in node.inputs]
        if node.op == "ReadVariableOp":
            self._hold(node.outputs[0], self.variables[node.variable], edges)
            return
        if node.op in ASSIGNING:
            self._assign(node, inputs[0])
        elif is_view(node, values):
            self._hold(node.outputs[0], inputs[0], edges)
        else:
            self._compute(node, inputs, values, edges)
        for storage in inputs:
            self._let_go(storage, node)

    def _compute(self, node: Node, inputs: list[Storage], values: Mapping[str, Value], edges: Mapping[str, int]) -> None:
        taken = temporaries(node, values, self.cpu, self.onednn)
        scratch = [self._temporary(t.nbytes, t.over, node, inputs) for t in taken if t.before]
        for n, value in enumerate(node.outputs):
            storage = self._over(node, n, inputs, values) or self._allocate(value.nbytes, CATEGORIES[node.phase], node)
            storage.refs += edges.get(value.name, 0)
            self.held[value.name] = storage
        for nbytes in [t.nbytes for t in taken for _ in range(t.passing)]:
            self._release(self._allocate(nbytes, "workspace", node), node)
        scratch += [self._temporary(t.nbytes, t.over, node, inputs) for t in taken if not t.before]
        inside = [s for s in scratch if s is not None]
        outputs = [self.held[v.name] for v in node.outputs]
        there = {s.id: s.nbytes for s in (*inputs, *outputs, *inside) if s.id > len(self.residents)}
        self.largest_kernel = max(self.largest_kernel, sum(there.values()))
        for storage in inside:
            self._release(storage, node)
        for storage in outputs:
            if storage.refs == 0:
                self._release(storage, node)

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

    def _temporary(self, nbytes: int, over: int | None, node: Node, inputs: list[Storage]) -> Storage | None:
        if over is not None and inputs[over].refs == 1:
            return None
        return self._allocate(nbytes, "workspace", node)

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
        if nbytes:
            self.events.append(Event(nbytes, storage, node.phase, node.layer, node.op))
        return storage

    def _let_go(self, storage: Storage, node: Node) -> None:
        storage.refs -= 1
        if not storage.refs:
            self._release(storage, node)

    def _release(self, storage: Storage, node: Node) -> None:
        if storage.nbytes:
            self.events.append(Event(-storage.nbytes, storage, node.phase, node.layer, node.op))
