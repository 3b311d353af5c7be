"""Backward: nodes in their order, gradients from node to node and into the leaves.

Source: torch/csrc/autograd/engine.cpp (ready queue by highest sequence number, reentrant runs, release of saved variables).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import count
from typing import Any

from memest.errors import GraphError
from memest.machines.target import Target
from memest.ops.derivatives.formula import by_derivative
from memest.ops.derivatives.groups import BESIDE
from memest.runtimes.torch.autograd.asked import Asked
from memest.runtimes.torch.autograd.handing import Handing
from memest.runtimes.torch.autograd.nodes import AccumulateGrad, History, Node
from memest.runtimes.torch.autograd.stale import written_since
from memest.runtimes.torch.ledger import Ledger, Value

Waits = dict[int, tuple[Any, int, Any]]
"""Nodes and leaves with what a run of the engine has of each: how often it is led to yet, and the gradients that came."""


class Machine(Handing):
    """Runs calls forward and nodes backward on a ledger."""

    def __init__(self, ledger: Ledger, training: bool, target: Target, *, remember: bool = True) -> None:
        super().__init__(ledger, training, target, remember=remember)
        self._order = count()
        self._tasks = count(1)
        self.task = 0  # the number of the run of the engine that is under way
        self.selects = False  # it, or one around it, is for the gradients of some tensors alone

    def backward(self, root: Value, gradient: Value) -> None:
        """``root.backward(gradient)``: every node that ``root`` depends on runs, highest sequence number first."""
        self.backward_of([(root, gradient)])

    def backward_of(
        self, roots: Sequence[tuple[Value, Value]], *, keep: bool = False, create: bool = False, wanted: Sequence[Value] = ()
    ) -> list[Value | None]:
        """``torch.autograd.backward`` of several roots, each with its gradient; ``keep`` is ``retain_graph``, ``create`` is
        ``create_graph``. With values that are ``wanted`` it is ``torch.autograd.grad``: only nodes on the way to them run, and their
        gradients (held; None where nothing leads there) are given back instead of going into the leaves. GraphError for a node whose saved
        tensors are gone, UnsupportedError for one without a rule for what its backward's own graph keeps."""
        for value in (*(root for root, _ in roots), *wanted):
            self.renew(value)
        starts = [_edge_of(root) for root, _ in roots]
        outer, asked = (self._asked, self.task, self.selects), Asked(keep, create, [_edge_of(value) for value in wanted])
        if wanted:
            asked.mark([target for target, _ in starts])
        self._asked, self._creates, self.task, self.selects = asked, create, next(self._tasks), self.selects or asked.selects
        try:
            self._run_from(starts, [gradient for _, gradient in roots], asked, amid=outer[0] is not None)
        finally:
            self._asked, self.task, self.selects = outer
            self._creates = self._asked is not None and self._asked.create
        return asked.captured

    def _run_from(self, starts: Sequence[History], gradients: Sequence[Value], asked: Asked, *, amid: bool) -> None:
        """One run of the engine from where roots hang, ``amid`` another or not."""
        ledger = self.ledger
        waits: Waits | None = {} if amid else None
        reached = self._count_dependencies([target for target, _ in starts], waits)
        added: list[Value] = []
        given = [self._fitting(gradient, start) for start, gradient in zip(starts, gradients, strict=True)]
        for (target, nr), gradient in zip(starts, given, strict=True):
            self._add_to_buffer(target, nr, ledger.hold(gradient), added)
        for gradient in added:
            ledger.let_go(gradient)
        ready: list[Node | AccumulateGrad] = []
        for target, _ in starts:
            target.waiting -= 1
            if target.waiting == 0:
                ready.append(target)
        with self.numbers.backward(asked.create):
            self._run_all(ready)
        for gradient in given:
            ledger.let_go(gradient)
        for other in reached if asked.selects else ():  # those that did not run, or that nothing was handed to
            other.waiting = 0
            if isinstance(other, Node):
                other.buffer = []
        for other, waiting, buffer in () if waits is None else waits.values():
            other.waiting, other.buffer = waiting, buffer

    def _fitting(self, gradient: Value, start: tuple[Node | AccumulateGrad, int]) -> Value:
        """A root's gradient, held as long as the engine runs; one of another dtype or of a broadcast shape is cast or summed before."""
        found = self._validated(self.ledger.hold(gradient), start)
        assert found is not None
        return found

    def _run_all(self, ready: list[Node | AccumulateGrad]) -> None:
        """What is ready, and what that makes ready, the highest number first."""
        queue: list[tuple[int, int, Node]] = []
        while True:
            for target in ready:
                if isinstance(target, AccumulateGrad):
                    self._reach(target)
                else:
                    heappush(queue, (-target.sequence, next(self._order), target))
            if not queue:
                return
            _, _, node = heappop(queue)
            self.ledger.layer, self.ledger.op = node.layer, node.op
            ready = self._run(node)

    def _count_dependencies(self, starts: Sequence[Node | AccumulateGrad], waits: Waits | None) -> list[Node | AccumulateGrad]:
        """How often each node is led to; the nodes. Inside another backward, what they have of that is put into ``waits``: each run of the
        engine counts for itself."""
        seen: dict[int, Node | AccumulateGrad] = {}
        stack: list[Node] = []

        def lead_to(target: Node | AccumulateGrad) -> None:
            if waits is not None and id(target) not in waits:
                waits[id(target)] = target, target.waiting, target.buffer
                target.waiting, target.buffer = 0, [] if isinstance(target, Node) else None
            target.waiting += 1
            if id(target) not in seen:
                seen[id(target)] = target
                if isinstance(target, Node):
                    stack.append(target)

        for start in starts:
            lead_to(start)
        while stack:
            for edge in stack.pop().edges:
                if edge is not None:
                    lead_to(edge[0])
        return list(seen.values())

    def _reach(self, leaf: AccumulateGrad) -> None:
        """A leaf's turn: its gradient is given back where it is wanted, else it stays with the leaf."""
        assert self._asked is not None
        leaf.buffer = self._changed(leaf.buffer, leaf.changes)
        if not self._asked.selects:
            self._accumulate_grad(leaf)
            return
        gradient, leaf.buffer = leaf.buffer, None
        if gradient is not None:
            self._asked.capture(self.ledger, leaf, [gradient])
            self.ledger.let_go(gradient)

    def _run(self, node: Node) -> list[Node | AccumulateGrad]:
        """One node: its kernel, the release of its inputs and saved tensors, the handing on of its gradients."""
        ledger, asked = self.ledger, self._asked
        assert asked is not None
        grads = node.buffer
        node.buffer = []
        outputs: list[Value | None]
        if asked.selects:
            asked.capture(ledger, node, grads)
            if not asked.runs(node):
                for g in grads:
                    if g is not None:
                        ledger.let_go(g)
                return []
        for run in node.before:
            run()
        for nr, changes in node.on_gradient.items():
            grads[nr] = self._changed(grads[nr], changes)
        freed, present = node.saved.freed, any(g is not None for g in grads)
        if freed and node.unpacks:
            raise GraphError(
                f"backward a second time through {node.op} ({node.layer}), whose saved tensors were freed by the first:"
                " give the first retain_graph=True"
            )
        stale = node.saved.stale()
        if stale is not None and node.unpacks:
            raise written_since(node, stale, self.line_of)
        if node.body is not None and not asked.create:
            outputs = node.body(node, grads)
        elif present or node.body is not None:
            ledger.layer, ledger.op = node.layer, node.op
            if asked.create or _by_formula(node, grads):
                outputs = self._recorded.backward_of(node, grads, asked.needs(node), asked.create)
            else:
                outputs = self._apply(node, grads) if node.row is not None else self._apply_engine_node(node, grads)
        else:
            node.saved.unpack()
            node.saved.leave(ledger)
            outputs = [None] * len(node.edges)
        outputs = [self._validated(g, e) for g, e in zip(outputs, node.edges, strict=True)]
        for g in grads:
            if g is not None:
                ledger.let_go(g)
        if not asked.keep:
            node.saved.release(ledger)
        ready: list[Node | AccumulateGrad] = []
        added: list[Value] = []
        for gradient, edge in zip(outputs, node.edges, strict=True):
            if edge is None:
                if gradient is not None:
                    ledger.let_go(gradient)
                continue
            target, nr = edge
            target.waiting -= 1
            if gradient is not None and not asked.leads_on(target):
                ledger.let_go(gradient)
            elif gradient is not None:
                self._add_to_buffer(target, nr, gradient, added)
            elif isinstance(target, Node) and not target.buffer:
                target.buffer = [None] * len(target.out_specs)
            if target.waiting == 0 and asked.leads_on(target):
                ready.append(target)
        for gradient in added:
            ledger.let_go(gradient)
        return ready

    def _changed(self, gradient: Value | None, changes: Sequence[Callable[[Value], Value]]) -> Value | None:
        """What the hooks of a tensor make of its gradient, which stays until the last has run (python_hook.cpp, _call_hooks)."""
        if gradient is None:
            return None
        found = self.ledger.hold(gradient)
        for change in changes:
            found = change(found)
        self.ledger.let_go(gradient)
        return found


def _by_formula(node: Node, grads: Sequence[Value | None]) -> bool:
    """Whether a node's backward is known as calls of operators alone: that of a backward, and that of what a call gives beside its
    result (group norm's statistics)."""
    if node.row is None or node.trace is None:
        return False
    beside = any(g is not None for g in grads[len(node.trace.outputs) :])
    return node.row.backward is by_derivative or (beside and node.row.name in BESIDE)


def _edge_of(value: Value) -> tuple[Node | AccumulateGrad, int]:
    """Where the gradient of a tensor goes (gradient_edge); GraphError for one that requires none."""
    if not value.requires_grad or value.node is None:
        raise GraphError("backward of a tensor that does not require a gradient and was not computed from one that does")
    assert isinstance(value.node, Node | AccumulateGrad)
    return value.node, value.output_nr
