"""Backward: nodes in their order, gradients from node to node and into the leaves.

Sources: torch/csrc/autograd/engine.cpp (ready queue by highest sequence number, validate_outputs, release of saved variables),
input_buffer.cpp (accumulation), functions/accumulate_grad.h (stealing or copying into ``.grad``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import count
from typing import Any

from memest.errors import GraphError, UnsupportedError
from memest.machines.target import Target
from memest.network.tensor import Shape, Spec, contiguous_strides, is_contiguous, is_non_overlapping_and_dense, nbytes, same_shape
from memest.ops import reading
from memest.ops.aten.copies import transposed_block, transposes
from memest.ops.aten.iterator import iterator_strides, preserved_strides
from memest.ops.aten.reductions import sum_to
from memest.ops.derivatives.formula import by_derivative
from memest.ops.derivatives.groups import BESIDE
from memest.ops.tape import Tape, Tensor
from memest.runtimes.torch.autograd.asked import Asked
from memest.runtimes.torch.autograd.created import Created
from memest.runtimes.torch.autograd.nodes import AS_STRIDED, PASS, AccumulateGrad, History, Node
from memest.runtimes.torch.autograd.recording import Recorder
from memest.runtimes.torch.autograd.saving import Holder
from memest.runtimes.torch.autograd.stale import ACCUMULATED, written_since
from memest.runtimes.torch.ledger import Ledger, Value

Waits = dict[int, tuple[Any, int, Any]]
"""Nodes and leaves with what a run of the engine has of each: how often it is led to yet, and the gradients that came."""


class Machine(Recorder):
    """Runs calls forward and nodes backward on a ledger."""

    def __init__(self, ledger: Ledger, training: bool, target: Target, *, remember: bool = True) -> None:
        super().__init__(ledger, training, target, remember=remember)
        self._backward = reading.backward if remember else reading.for_symbols(reading.backward)
        self._order = count()
        self.gradients: dict[str, Value] = {}
        self.gradients_stand = False  # from the steps before, zeroed in place
        self.gradients_are_views = False  # of what stands for itself, once a step is done
        self.on_gradient: Callable[[AccumulateGrad], None] | None = None
        self._asked: Asked | None = None
        self._tasks = count(1)
        self.task = 0  # the number of the run of the engine that is under way
        self.selects = False  # it, or one around it, is for the gradients of some tensors alone
        self._creates = False  # what backward computes has a backward of its own
        self.created: Created | None = None

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

    def _apply(self, node: Node, grads: list[Value | None]) -> list[Value | None]:
        ledger = self.ledger
        assert node.row is not None and node.trace is not None
        grads = grads[: len(node.trace.outputs)]
        present = [g for g in grads if g is not None]
        if not present:
            return [None] * len(node.edges)
        saved = node.saved.unpack()
        trace = self._backward(
            node.row,
            node.saved.specs(node.saved_specs),
            node.notes,
            tuple(None if g is None else g.spec for g in grads),
            node.attributes,
            node.needs if self._asked is None else self._asked.needs(node),
            self.training,
            self.target,
            reading.kinds_of(node.attributes),
        )
        storages = self._replay(trace.events, [*saved, *(g.storage for g in present)])
        outputs: list[Value | None] = []
        for out in trace.outputs:
            if out is None:
                outputs.append(None)
            elif out.same_as >= len(saved):
                outputs.append(ledger.hold(present[out.same_as - len(saved)]))
            else:
                value = ledger.hold(Value(out.spec, storages[out.slot]))
                if out.is_view:
                    source = out.slot - len(saved)
                    self._hold_base(value, present[source] if 0 <= source < len(present) else None)
                outputs.append(value)
        node.saved.leave(ledger)
        return outputs

    def _apply_engine_node(self, node: Node, grads: list[Value | None]) -> list[Value | None]:
        ledger = self.ledger
        if node.op == PASS:
            return [None if g is None else ledger.hold(g) for g in grads]
        (grad,) = grads
        assert grad is not None
        facts = dict(node.notes)
        if node.op == AS_STRIDED:
            return [self._as_strided(node.out_specs[0], facts["base"])]
        return self._copy_slices(node, facts["view"])

    def _as_strided(self, view: Spec, base: Spec) -> Value:
        """as_strided_backward: dims that were expanded are summed, from the last on, then it goes into zeros."""
        left, summed = list(view.shape), None
        for d in range(len(left) - 1, -1, -1):
            if left[d] != 1 and type(view.strides[d]) is int and view.strides[d] == 0:
                del left[d]
                before, summed = summed, self._fresh(Spec(tuple(left), contiguous_strides(left), view.dtype))
                if before is not None:
                    self.ledger.let_go(before)
        found = self._fresh(base)
        if summed is not None:
            self.ledger.let_go(summed)
        return found

    def _fresh(self, spec: Spec) -> Value:
        ledger = self.ledger
        return ledger.hold(Value(spec, ledger.allocate(nbytes(spec.shape, spec.dtype))))

    def _copy_slices(self, node: Node, view: Spec) -> list[Value | None]:
        """CopySlices::apply: the gradient of the base is copied, the operator's backward runs on a clone of the slice, and what it gives
        is written back into the copy, which goes with the function where the base wants no gradient."""
        ledger, inner = self.ledger, node.inner
        assert inner is not None
        result = self._fresh(node.out_specs[0])
        clone = self._fresh(Spec(view.shape, contiguous_strides(view.shape), view.dtype))
        inner.saved = node.saved
        outputs = self._apply(inner, [clone])
        inner.saved = Holder([])
        ledger.let_go(clone)
        if outputs[0] is not None:
            ledger.let_go(outputs[0])
        if node.edges[0] is None:  # nobody wants the base's
            ledger.let_go(result)
            return [None, *outputs[1:]]
        return [result, *outputs[1:]]

    @property
    def creates(self) -> bool:
        """Whether what the backward that runs computes has a backward of its own."""
        return self._creates

    @property
    def _recorded(self) -> Created:
        assert self.created is not None
        return self.created

    def _validated(self, gradient: Value | None, edge: tuple[Node | AccumulateGrad, int] | None) -> Value | None:
        """validate_outputs: a gradient of a broadcast shape is summed to the shape its input had."""
        if gradient is None or edge is None:
            return gradient
        target, nr = edge
        wanted = target.value.spec if isinstance(target, AccumulateGrad) else target.out_specs[nr]
        if self._creates:
            return self._recorded.fitted(gradient, wanted)
        if not same_shape(gradient.spec.shape, wanted.shape):
            gradient = self._summed(gradient, wanted.shape)
        if gradient.spec.dtype != wanted.dtype:
            strides = preserved_strides(Tensor(*gradient.spec, 0))
            gradient = self._replaced(gradient, Spec(wanted.shape, strides, wanted.dtype))
        return gradient

    def _summed(self, old: Value, shape: Shape) -> Value:
        tape = Tape(1, (False,), self.training, self.target)
        out = sum_to(tape, Tensor(*old.spec, 0), shape)
        storages = self._replay(tape.finish((), (out,)).events, [old.storage])
        new = self.ledger.hold(Value(out.spec, storages[out.slot]))
        if shape and len(old.spec.shape) > len(shape):  # sum_to: a sum with dims of one, and a view without them, which keeps it
            self._hold_base(new, None)
        self.ledger.let_go(old)
        return new

    def _replaced(self, old: Value, spec: Spec) -> Value:
        ledger = self.ledger
        new = ledger.hold(Value(spec, ledger.allocate(nbytes(spec.shape, spec.dtype))))
        ledger.let_go(old)
        return new

    def _add_to_buffer(self, target: Node | AccumulateGrad, nr: int, gradient: Value, added: list[Value]) -> None:
        if isinstance(target, AccumulateGrad):
            target.buffer = self._accumulated(target.buffer, gradient, added)
            return
        if not target.buffer:
            target.buffer = [None] * len(target.out_specs)
        target.buffer[nr] = self._accumulated(target.buffer[nr], gradient, added)

    def _accumulated(self, old: Value | None, new: Value, added: list[Value]) -> Value:
        """InputBuffer::accumulate: in place when the buffer alone holds a dense tensor, else into a new one. What was ``added`` to another
        is let go of when all gradients of its node have been handed on."""
        if old is None:
            return new
        ledger = self.ledger
        added.append(new)
        if self._creates:
            return self._recorded.total(old, new)
        if old.storage.refs == 1 and is_non_overlapping_and_dense(old.spec.shape, old.spec.strides):
            return old
        operands = [Tensor(v.spec.shape, v.spec.strides, v.spec.dtype, i) for i, v in enumerate((old, new))]
        spec = Spec(old.spec.shape, iterator_strides(old.spec.shape, operands), old.spec.dtype)
        total = ledger.hold(Value(spec, ledger.allocate(nbytes(spec.shape, spec.dtype))))
        ledger.let_go(old)
        return total

    def _accumulate_grad(self, leaf: AccumulateGrad) -> None:
        """The first gradient of a parameter is taken over when nobody else holds it and it lies as the parameter does, else copied; later
        ones (of another backward) are added to it in place."""
        gradient = leaf.buffer
        leaf.buffer = None
        if gradient is None:
            return
        ledger = self.ledger
        if not leaf.value.requires_grad:  # turned off since
            ledger.let_go(gradient)
            return
        if not leaf.after:
            self._keep_gradient(leaf, gradient)
            return
        came = gradient.storage  # the engine's own hold of it, until hooks have run
        came.refs += 1
        self._keep_gradient(leaf, gradient)
        for run in leaf.after:
            run()
        ledger.let_go_storage(came)

    def _keep_gradient(self, leaf: AccumulateGrad, gradient: Value) -> None:
        ledger = self.ledger
        if self.gradients_stand and leaf.name not in self.gradients and not leaf.mortal:
            spec = _kept_spec(gradient.spec, leaf.value.spec)
            standing = ledger.resident(0 if self.gradients_are_views else nbytes(spec.shape, spec.dtype), "gradient", leaf.name)
            standing.reason = f"gradient of {leaf.name}"
            self.gradients[leaf.name] = ledger.hold(Value(spec, standing))
        if leaf.name in self.gradients:
            if self._creates and self.gradients[leaf.name].storage in ledger.residents:
                raise UnsupportedError(
                    f"backward(create_graph=True) into {leaf.name}, whose gradient stands since before the step: set it to None before"
                )
            if self._creates:  # added out of place, by a call that is recorded
                self.gradients[leaf.name] = self._recorded.total(self.gradients[leaf.name], gradient)
            else:
                ledger.wrote(self.gradients[leaf.name], leaf.name, ACCUMULATED)
            self._tell(leaf)
            ledger.let_go(gradient)
            return
        if self._creates:
            kept = self._recorded.copy(gradient, _kept_spec(gradient.spec, leaf.value.spec))
            ledger.let_go(gradient)
        elif gradient.refs == 1 and _obeys_layout(gradient.spec, leaf.value.spec):
            kept = gradient
        else:
            spec = _kept_spec(gradient.spec, leaf.value.spec)
            kept = ledger.hold(Value(spec, ledger.allocate(nbytes(spec.shape, spec.dtype))))
            if not self.target.on_cuda and transposes(gradient.spec, kept.spec):
                side = transposed_block(spec.dtype)
                ledger.release(ledger.allocate(nbytes((side, side), spec.dtype)))
            ledger.let_go(gradient)
        kept.storage.category = "gradient"
        kept.storage.reason = f"gradient of {leaf.name}"
        self.gradients[leaf.name] = kept
        self._tell(leaf)

    def _tell(self, leaf: AccumulateGrad) -> None:
        """The post hooks of a leaf: its gradient is there, or grew."""
        if self.on_gradient is not None and not leaf.mortal:
            self.on_gradient(leaf)


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


def _kept_spec(gradient: Spec, parameter: Spec) -> Spec:
    """What a gradient lies as when it is kept: as it is where that obeys the contract, else as the parameter does, or row-major."""
    if _obeys_layout(gradient, parameter):
        return gradient
    dense = is_non_overlapping_and_dense(parameter.shape, parameter.strides)
    return Spec(parameter.shape, parameter.strides if dense else contiguous_strides(parameter.shape), gradient.dtype)


def _obeys_layout(grad: Spec, parameter: Spec) -> bool:
    """obeys_layout_contract: the parameter's strides (of size-1 dims: any but 0), or row-major when the parameter is not dense."""
    if is_non_overlapping_and_dense(parameter.shape, parameter.strides):
        return all(a == b if n != 1 else a != 0 for n, a, b in zip(grad.shape, grad.strides, parameter.strides, strict=True))
    return is_contiguous(grad.shape, grad.strides)
