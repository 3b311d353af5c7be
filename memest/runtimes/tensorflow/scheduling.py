"""Which node runs when: on one thread or on several, between which the nodes that are ready are dealt out.

Source: tensorflow/core/common_runtime/executor.cc (ScheduleReady) and Eigen's NonBlockingThreadPool.h: who runs a node goes on with what
becomes ready last and lays the rest in front of its own queue, of which it takes the first; who has nothing takes another's last.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from random import Random
from typing import NamedTuple

from memest.runtimes.tensorflow.kernels import VIEWS
from memest.runtimes.tensorflow.nodes import Node, node_of

CHEAP = frozenset({"ReadVariableOp", *VIEWS})
"""Kernels that are never worth a task of their own (``IsExpensive`` is false)."""


class Moment(NamedTuple):
    """A node begins, or ``ends``, on a ``worker``."""

    node: Node
    ends: bool
    worker: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """What differs between processes. Of several nodes that become ready at once the last is the one from which most is still to come (the
    way to the first layer, while the gradients of filters wait), where ``shallow`` the one from which least is, and by chance at each
    other ``turn``. Variables that nothing needs at once may be read when nothing else is left to do (``late``), until when updates wait
    with their gradients. Gradients of filters may all come behind the rest, the oldest first (``filters_last``), until when what they
    read waits."""

    shallow: bool = False
    late: bool = False
    filters_last: bool = False
    turn: int = 0


USUAL = Way()


def scheduled(nodes: Sequence[Node], way: Way = USUAL) -> list[Node]:
    """The order of one thread."""
    return [m.node for m in dealt(nodes, way, 1, lambda node: 0.0) if not m.ends]


def dealt(nodes: Sequence[Node], way: Way, workers: int, takes: Callable[[Node], float]) -> list[Moment]:
    """What each of the workers does, one moment after another; ``takes`` is the time of a node."""
    table = _Table(nodes, way, workers)
    found: list[Moment] = []
    running: list[tuple[float, int, int, Node]] = []
    idle, now = list(range(workers)), 0.0
    for node in table.begin():
        found += (Moment(node, False), Moment(node, True))
    while True:
        for worker in list(idle):
            node_or_none = table.next(worker)
            if node_or_none is None:
                continue
            idle.remove(worker)
            found.append(Moment(node_or_none, False, worker))
            heappush(running, (now + takes(node_or_none), len(found), worker, node_or_none))
        if not running:
            return found
        now, _, worker, node = heappop(running)
        found.append(Moment(node, True, worker))
        table.done(node, worker)
        idle = sorted([*idle, worker])


class _Table:
    """The nodes that are ready, in the queues of those who work."""

    def __init__(self, nodes: Sequence[Node], way: Way, workers: int) -> None:
        self.nodes, self.way = nodes, way
        names = {n.name for n in nodes}
        self.pending = {n.name: sum(d in names for d in needs(n)) for n in nodes}
        self.after: dict[str, list[Node]] = {}
        for node in nodes:
            for name in needs(node):
                self.after.setdefault(name, []).append(node)
        self.still = _still_to_come(nodes, self.after)
        self.chance = Random(way.turn)
        self.queues: list[deque[Node]] = [deque() for _ in range(workers)]
        self.inline: list[deque[Node]] = [deque() for _ in range(workers)]

    def begin(self) -> Iterator[Node]:
        """Variables are read."""
        first = [n for n in self.nodes if not self.pending[n.name]]
        for node in [] if self.way.late else [n for n in first if n.op in CHEAP]:
            yield node
            self.queues[0].extend(self._ready(node))
        self.queues[0].extend(n for n in first if self.way.late or n.op not in CHEAP)

    def next(self, worker: int) -> Node | None:
        """What a worker does now."""
        for mine in (self.inline[worker], self.queues[worker]):
            if mine:
                return mine.popleft()
        others = (self.queues[(worker + n) % len(self.queues)] for n in range(1, len(self.queues)))
        return next((queue.pop() for queue in others if queue), None)

    def done(self, node: Node, worker: int) -> None:
        """What becomes ready is dealt out."""
        ready, inline, tasks = self._ready(node), self.inline[worker], self.queues[worker]
        heavy = [n for n in ready if n.op not in CHEAP]
        if self.way.turn:
            self.chance.shuffle(heavy)
        else:
            heavy.sort(key=lambda n: self.still[n.name], reverse=self.way.shallow)
        if self.way.filters_last:
            tasks.extend(n for n in heavy if "BackpropFilter" in n.op)
            heavy = [n for n in heavy if "BackpropFilter" not in n.op]
        inline.extend(n for n in ready if n.op in CHEAP)
        if heavy and not inline:
            inline.append(heavy.pop())
        tasks.extendleft(heavy)

    def _ready(self, node: Node) -> list[Node]:
        found = []
        for other in self.after.get(node.name, ()):
            self.pending[other.name] -= 1
            if not self.pending[other.name]:
                found.append(other)
        return found


def one_by_one(order: Iterable[Node]) -> Iterator[Moment]:
    """Nodes in an order, each once the one before has ended."""
    for node in order:
        yield Moment(node, False)
        yield Moment(node, True)


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
        for name in needs(node):
            if name in pending:
                pending[node.name] += 1
                after.setdefault(name, []).append(node)

    def run(node: Node) -> None:
        stack = [node]
        while stack:
            now = stack.pop()
            if now.name in found:
                continue
            missing = [by_name[n] for n in needs(now) if n in pending and n not in found]
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


def needs(node: Node) -> list[str]:
    """The nodes that have to run before it."""
    return [*map(node_of, node.inputs), *node.after]
