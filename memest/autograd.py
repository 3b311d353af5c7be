"""Torch's autograd engine, on metadata: nodes, saved tensors, gradient buffers, the order in which all of it runs and dies.

Sources: torch/csrc/autograd/engine.cpp (ready queue by highest sequence number, validate_outputs, release of saved variables),
input_buffer.cpp (accumulation), functions/accumulate_grad.h (stealing or copying into ``.grad``).
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Protocol

from memest.ledger import Ledger, Storage, Value
from memest.libraries.cpu import Cpu
from memest.ops import evaluate
from memest.ops.kernels import preserved_strides, sum_to, transposed_block, transposes
from memest.ops.tape import Event, Tape, Tensor, Trace
from memest.tensor import Shape, Spec, contiguous_strides, is_contiguous, is_non_overlapping_and_dense, nbytes, same_shape

Items = evaluate.Items


AS_STRIDED, COPY_SLICES, PASS = "AsStridedBackward", "CopySlices", "Pass"  # names no row has
_ENGINE_NODES = frozenset({AS_STRIDED, COPY_SLICES, PASS})


class AccumulateGrad:
    """The leaf node of a parameter (or of an input whose gradient is wanted): the end of a gradient's way."""

    __slots__ = ("buffer", "name", "value", "waiting")

    def __init__(self, value: Value, name: str) -> None:
        self.value = value
        self.name = name
        self.waiting = 0
        self.buffer: Value | None = None

    def drop(self, ledger: Ledger) -> None:
        """A leaf saves nothing."""


class Promise(Protocol):
    """Whoever makes a node's saved tensors again when they are wanted."""

    def fulfil(self) -> None:
        """See to it that every holder that waits has its storages."""

    def forget(self) -> None:
        """One holder less waits."""


class Holder:
    """The saved tensors of a node: storages kept since forward, and gaps that a promise fills when backward asks for them."""

    __slots__ = ("_gaps", "_promise", "storages")

    def __init__(self, storages: list[Storage | None], promise: Promise | None = None) -> None:
        self.storages = storages
        self._promise = promise
        self._gaps = [i for i, s in enumerate(storages) if s is None]
        for s in storages:
            if s is not None:
                s.refs += 1

    @property
    def waits(self) -> bool:
        """True until its node has run or died, when its tensors are promised."""
        return self._promise is not None

    def fill(self, storages: list[Storage | None]) -> None:
        """What was promised."""
        for i in self._gaps:
            found = self.storages[i] = storages[i]
            assert found is not None
            found.refs += 1

    def unpack(self) -> list[Storage]:
        """The storages, made again where they were promised."""
        if self._promise is not None:
            self._promise.fulfil()
        return [s for s in self.storages if s is not None]

    def leave(self, ledger: Ledger) -> None:
        """The kernel has run: tensors made again die with its locals, the others wait for :meth:`release`."""
        for i in self._gaps:
            _let_go(ledger, self.storages[i])
            self.storages[i] = None

    def release(self, ledger: Ledger) -> None:
        """The node has run, or is dead (release_variables)."""
        for s in self.storages:
            _let_go(ledger, s)
        self.storages, self._gaps = [], []
        if self._promise is not None:
            promise, self._promise = self._promise, None
            promise.forget()


def _let_go(ledger: Ledger, storage: Storage | None) -> None:
    if storage is not None:
        ledger.let_go_storage(storage)


class Keeping:
    """What is done with the tensors a call saves: they are kept. Others do otherwise (torch.autograd.graph.saved_tensors_hooks)."""

    def ends(self) -> bool:
        """True when the call ends with the next tensors that are saved."""
        return False

    def pack(self, storages: list[Storage | None], numbers: list[bool]) -> Holder:
        """The holder of what one call saves; ``numbers`` marks Python numbers wrapped for the call, which no hook sees."""
        return Holder(storages)

    def promised(self, storage: Storage) -> bool:
        """True when backward wants what is in ``storage`` now, though no node holds it."""
        return False


class EndOfRecomputation(Exception):  # noqa: N818
    """The last tensor to be saved is there; the call goes no further. ``ran`` says whether its kernel ran before that."""

    def __init__(self, ran: bool) -> None:
        super().__init__()
        self.ran = ran


class Node:
    """One differentiable call: what it kept, and where the gradients of its inputs go."""

    __slots__ = (
        "attributes",
        "before",
        "buffer",
        "edges",
        "inner",
        "layer",
        "needs",
        "notes",
        "op",
        "out_specs",
        "refs",
        "saved",
        "saved_specs",
        "sequence",
        "waiting",
    )

    def __init__(self, sequence: int, op: str, layer: str, attributes: Items, needs: tuple[bool, ...]) -> None:
        self.sequence = sequence
        self.op = op
        self.layer = layer
        self.attributes = attributes
        self.needs = needs
        self.saved = Holder([])
        self.saved_specs: tuple[tuple[str, Spec], ...] = ()
        self.notes: Items = ()
        self.edges: list[tuple[Node | AccumulateGrad, int] | None] = []
        self.out_specs: list[Spec] = []
        self.waiting = 0
        self.buffer: list[Value | None] = []
        self.refs = 0
        self.inner: Node | None = None
        self.before: list[Callable[[], None]] = []

    def drop(self, ledger: Ledger) -> None:
        """One holder (a value, or a node that leads here) less; without any the node dies, and all that only it leads to."""
        stack = [self]
        while stack:
            node = stack.pop()
            node.refs -= 1
            if node.refs:
                continue
            node.saved.release(ledger)
            stack.extend(edge[0] for edge in node.edges if edge is not None and isinstance(edge[0], Node))


class Machine:
    """Runs calls forward and nodes backward on a ledger."""

    def __init__(self, ledger: Ledger, training: bool, cpu: Cpu, *, remember: bool = True) -> None:
        """``remember=False`` reads every row anew: traces of symbolic sizes must not be shared with those of plain ones."""
        self.ledger = ledger
        self.training = training
        self.cpu = cpu
        self._forward = evaluate.forward if remember else evaluate.forward.__wrapped__
        self._backward = evaluate.backward if remember else evaluate.backward.__wrapped__
        self._sequence = count()
        self._order = count()
        self.gradients: dict[str, Value] = {}
        self.on_gradient: Callable[[AccumulateGrad], None] | None = None
        self.keeping = Keeping()

    # forward -----------------------------------------------------------------------------------------------------------

    def call(
        self, op: str, arguments: list[Value | list[Value] | None], attributes: Items, grad: bool, differentiable: bool
    ) -> list[Value | None]:
        """One row's forward: storages move, a node appears when a gradient is wanted. New outputs come unheld."""
        flat: list[Value] = []
        specs: list[Spec | tuple[Spec, ...] | None] = []
        for a in arguments:
            if a is None:
                specs.append(None)
            elif isinstance(a, Value):
                flat.append(a)
                specs.append(a.spec)
            else:
                flat.extend(a)
                specs.append(tuple(v.spec for v in a))
        needs = tuple(v.requires_grad for v in flat) if grad else (False,) * len(flat)
        trace = self._forward(op, tuple(specs), attributes, needs, self.training, self.cpu, evaluate.kinds_of(attributes))
        wants = differentiable and any(needs) and not trace.is_noop
        if wants and self.keeping.ends() and last_save(trace) is not None:
            self._end(trace, [v.storage for v in flat])
        storages = self._replay(trace.events, [v.storage for v in flat])
        node = None
        if wants:
            node = Node(next(self._sequence), op, self.ledger.layer, attributes, needs)
            node.edges = [self._edge(v) if n else None for v, n in zip(flat, needs, strict=True)]
            for edge in node.edges:
                if edge is not None and isinstance(edge[0], Node):
                    edge[0].refs += 1
            node.notes = trace.notes
            node.saved_specs = tuple((s.role, s.spec) for s in trace.saved)
            if trace.saved:
                self.save(node, trace, storages)
        outputs: list[Value | None] = []
        for nr, out in enumerate(trace.outputs):
            if out is None:
                outputs.append(None)
                continue
            if out.same_as >= 0:
                value = flat[out.same_as]
                value.spec = out.spec
                value.storage.version += not trace.is_noop
            else:
                value = Value(out.spec, storages[out.slot])
                if out.is_view and out.slot < len(flat):
                    self._hold_base(value, flat[out.slot])
            if node is not None and out.same_as >= 0 and value.base is not None:
                self._rebase(value, node)
            elif node is not None and out.spec.dtype in _DIFFERENTIABLE:
                self._hang(value, node)
                value.output_nr = nr
            elif out.same_as < 0:
                value.requires_grad = False
            outputs.append(value)
            if node is not None:
                node.out_specs.append(out.spec)
        return outputs

    def save(self, node: Node, trace: Trace, storages: list[Storage]) -> None:
        """What the call saves goes to whoever keeps it now; what nobody keeps and nobody is given dies."""
        node.saved = self.keeping.pack([storages[s.slot] for s in trace.saved], numbers_of(trace))
        given = {o.slot for o in trace.outputs if o is not None}
        for s in trace.saved:
            storage = storages[s.slot]
            if storage.refs == 0:
                if s.slot not in given:
                    given.add(s.slot)
                    self.ledger.release(storage)
                continue
            if storage.category == "temporary":
                storage.category = "activation"
            if storage.reason == "":
                storage.reason = f"{s.role} of {node.op} ({self.ledger.layer}) kept for backward"

    def _end(self, trace: Trace, inputs: list[Storage]) -> None:
        """The call up to the last tensor it saves; then its locals die."""
        cut = last_save(trace)
        assert cut is not None
        storages = self._replay(trace.events[:cut], inputs)
        holder = self.keeping.pack([storages[s.slot] if s.slot < len(storages) else None for s in trace.saved], numbers_of(trace))
        dropped = {e.slot for e in trace.events[:cut] if e.nbytes == -1}
        for slot, storage in enumerate(storages):
            if slot >= trace.n_inputs and slot not in dropped and storage.refs == 0:
                self.ledger.release(storage)
        holder.release(self.ledger)
        raise EndOfRecomputation(ran=kernel_ran(trace, cut))

    def _hold_base(self, view: Value, source: Value | None) -> None:
        """A view keeps the tensor it looks at (that tensor's own base, when it is a view itself)."""
        base = Value(view.spec, view.storage) if source is None else source if source.base is None else source.base
        view.base = self.ledger.hold(base)

    def _rebase(self, view: Value, inner: Node) -> None:
        """In place on a view: the base's gradient goes through CopySlices around the operator, the view's through AsStrided on the base
        (torch/csrc/autograd/variable.cpp, rebase_history)."""
        base = view.base
        assert base is not None
        slices = Node(next(self._sequence), COPY_SLICES, self.ledger.layer, (), inner.needs)
        slices.inner = inner
        slices.edges = [self._edge(base) if base.requires_grad else None, *inner.edges[1:]]
        slices.saved, inner.saved = inner.saved, Holder([])
        slices.out_specs = [base.spec]
        slices.notes = (("view", view.spec),)
        old = inner.edges[0]
        inner.edges = []
        if slices.edges[0] is not None and isinstance(slices.edges[0][0], Node):
            slices.edges[0][0].refs += 1
        if old is not None:
            old[0].drop(self.ledger)
        self._hang(base, slices)
        strided = Node(next(self._sequence), AS_STRIDED, self.ledger.layer, (), (True,))
        strided.edges = [(slices, 0)]
        slices.refs += 1
        strided.out_specs = [view.spec]
        strided.notes = (("base", base.spec),)
        self._hang(view, strided)

    def _hang(self, value: Value, node: Node) -> None:
        """``value.grad_fn = node``."""
        node.refs += 1
        if value.node is not None:
            value.node.drop(self.ledger)
        value.node, value.output_nr, value.requires_grad = node, 0, True

    def pass_through(self, values: list[Value], run: Callable[[], None]) -> list[Value]:
        """A custom function that returns its arguments: views of ``values`` behind a node that calls ``run`` in backward before it hands
        the gradients on."""
        node = Node(next(self._sequence), PASS, self.ledger.layer, (), (True,) * len(values))
        node.edges = [self._edge(v) for v in values]
        for edge in node.edges:
            if edge is not None and isinstance(edge[0], Node):
                edge[0].refs += 1
        node.before = [run]
        node.out_specs = [v.spec for v in values]
        views = [Value(v.spec, v.storage) for v in values]
        for nr, (view, v) in enumerate(zip(views, values, strict=True)):
            self._hold_base(view, v)
            self._hang(view, node)
            view.output_nr = nr
        return views

    def passes(self, value: Value) -> bool:
        """Whether ``value`` comes from ``pass_through`` and nothing was written into it since."""
        return isinstance(value.node, Node) and value.node.op == PASS

    def hook(self, value: Value, run: Callable[[], None]) -> None:
        """``value.register_hook``: ``run`` is called before the node that made it runs backward."""
        if isinstance(value.node, Node):
            value.node.before.append(run)

    def _edge(self, value: Value) -> tuple[Node | AccumulateGrad, int]:
        if value.node is None:
            raise AssertionError("a value that requires grad has neither node nor leaf")
        assert isinstance(value.node, Node | AccumulateGrad)
        return value.node, value.output_nr

    def _replay(self, events: tuple[Event, ...], inputs: list[Storage]) -> list[Storage]:
        """A trace's events on real storages; returns the storage of every slot. Fresh outputs are unheld until someone holds them."""
        ledger = self.ledger
        storages = list(inputs)
        for _slot, size, scratch in events:
            if size >= 0:
                storages.append(ledger.allocate(size, "workspace" if scratch else "temporary"))
            else:
                ledger.release(storages[_slot])
        return storages

    # backward ----------------------------------------------------------------------------------------------------------

    def backward(self, root: Value, gradient: Value) -> None:
        """``root.backward(gradient)``: every node that ``root`` depends on runs, highest sequence number first."""
        ledger = self.ledger
        start = root.node
        if isinstance(start, AccumulateGrad):
            start.buffer = ledger.hold(gradient)
            self._accumulate_grad(start)
        if not isinstance(start, Node):
            return
        self._count_dependencies(start)
        start.buffer = [None] * len(start.out_specs)
        start.buffer[root.output_nr] = ledger.hold(gradient)
        queue: list[tuple[int, int, Node]] = [(-start.sequence, 0, start)]
        while queue:
            _, _, node = heappop(queue)
            ledger.layer, ledger.op = node.layer, node.op
            for target in self._run(node):
                if isinstance(target, AccumulateGrad):
                    self._accumulate_grad(target)
                else:
                    heappush(queue, (-target.sequence, next(self._order), target))

    def _count_dependencies(self, start: Node) -> None:
        seen: set[int] = {id(start)}
        stack: list[Node] = [start]
        while stack:
            for edge in stack.pop().edges:
                if edge is None:
                    continue
                target = edge[0]
                target.waiting += 1
                if isinstance(target, Node) and id(target) not in seen:
                    seen.add(id(target))
                    stack.append(target)

    def _run(self, node: Node) -> list[Node | AccumulateGrad]:
        """One node: its kernel, the release of its inputs and saved tensors, the handing on of its gradients."""
        ledger = self.ledger
        grads = node.buffer
        node.buffer = []
        outputs: list[Value | None]
        for run in node.before:
            run()
        if any(g is not None for g in grads):
            ledger.layer, ledger.op = node.layer, node.op
            outputs = self._apply(node, grads) if node.op not in _ENGINE_NODES else self._apply_engine_node(node, grads)
        else:
            node.saved.unpack()
            node.saved.leave(ledger)
            outputs = [None] * len(node.edges)
        outputs = [self._validated(g, e) for g, e in zip(outputs, node.edges, strict=True)]
        for g in grads:
            if g is not None:
                ledger.let_go(g)
        node.saved.release(ledger)
        ready: list[Node | AccumulateGrad] = []
        for gradient, edge in zip(outputs, node.edges, strict=True):
            if edge is None:
                if gradient is not None:
                    ledger.let_go(gradient)
                continue
            target, nr = edge
            target.waiting -= 1
            if gradient is not None:
                self._add_to_buffer(target, nr, gradient)
            elif isinstance(target, Node) and not target.buffer:
                target.buffer = [None] * len(target.out_specs)
            if target.waiting == 0:
                ready.append(target)
        return ready

    def _apply(self, node: Node, grads: list[Value | None]) -> list[Value | None]:
        ledger = self.ledger
        present = [g for g in grads if g is not None]
        saved = node.saved.unpack()
        trace = self._backward(
            node.op,
            node.saved_specs,
            node.notes,
            tuple(None if g is None else g.spec for g in grads),
            node.attributes,
            node.needs,
            self.training,
            self.cpu,
            evaluate.kinds_of(node.attributes),
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
            return [self._fresh(facts["base"])]
        return self._copy_slices(node, facts["view"])

    def _fresh(self, spec: Spec) -> Value:
        ledger = self.ledger
        return ledger.hold(Value(spec, ledger.allocate(nbytes(spec.shape, spec.dtype))))

    def _copy_slices(self, node: Node, view: Spec) -> list[Value | None]:
        """CopySlices::apply: the gradient of the base is copied, the operator's backward runs on a clone of the slice, and what it gives
        is written back into the copy."""
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
        return [result, *outputs[1:]]

    def _validated(self, gradient: Value | None, edge: tuple[Node | AccumulateGrad, int] | None) -> Value | None:
        """validate_outputs: a gradient of a broadcast shape is summed to the shape its input had."""
        if gradient is None or edge is None:
            return gradient
        target, nr = edge
        wanted = target.value.spec if isinstance(target, AccumulateGrad) else target.out_specs[nr]
        if not same_shape(gradient.spec.shape, wanted.shape):
            gradient = self._summed(gradient, wanted.shape)
        if gradient.spec.dtype != wanted.dtype:
            strides = preserved_strides(Tensor(*gradient.spec, 0))
            gradient = self._replaced(gradient, Spec(wanted.shape, strides, wanted.dtype))
        return gradient

    def _summed(self, old: Value, shape: Shape) -> Value:
        tape = Tape(1, (False,), self.training, self.cpu)
        out = sum_to(tape, Tensor(*old.spec, 0), shape)
        storages = self._replay(tape.finish((), (out,)).events, [old.storage])
        new = self.ledger.hold(Value(out.spec, storages[out.slot]))
        if len(old.spec.shape) > len(shape):  # sum_to: a sum with dims of one, and a view without them, which keeps it
            self._hold_base(new, None)
        self.ledger.let_go(old)
        return new

    def _replaced(self, old: Value, spec: Spec) -> Value:
        ledger = self.ledger
        new = ledger.hold(Value(spec, ledger.allocate(nbytes(spec.shape, spec.dtype))))
        ledger.let_go(old)
        return new

    def _add_to_buffer(self, target: Node | AccumulateGrad, nr: int, gradient: Value) -> None:
        if isinstance(target, AccumulateGrad):
            target.buffer = self._accumulated(target.buffer, gradient)
            return
        if not target.buffer:
            target.buffer = [None] * len(target.out_specs)
        target.buffer[nr] = self._accumulated(target.buffer[nr], gradient)

    def _accumulated(self, old: Value | None, new: Value) -> Value:
        """InputBuffer::accumulate: in place when the buffer alone holds a dense tensor, else into a new one."""
        if old is None:
            return new
        ledger = self.ledger
        if old.storage.refs == 1 and is_non_overlapping_and_dense(old.spec.shape, old.spec.strides):
            ledger.let_go(new)
            return old
        from memest.ops.kernels import iterator_strides

        operands = [Tensor(v.spec.shape, v.spec.strides, v.spec.dtype, i) for i, v in enumerate((old, new))]
        spec = Spec(old.spec.shape, iterator_strides(old.spec.shape, operands), old.spec.dtype)
        total = ledger.hold(Value(spec, ledger.allocate(nbytes(spec.shape, spec.dtype))))
        ledger.let_go(old)
        ledger.let_go(new)
        return total

    def _accumulate_grad(self, leaf: AccumulateGrad) -> None:
        """The first gradient of a parameter is taken over when nobody else holds it and it lies as the parameter does, else copied; later
        ones (of another backward) are added to it in place."""
        gradient = leaf.buffer
        leaf.buffer = None
        if gradient is None:
            return
        ledger = self.ledger
        if leaf.name in self.gradients:
            self._tell(leaf)
            ledger.let_go(gradient)
            return
        if gradient.refs == 1 and _obeys_layout(gradient.spec, leaf.value.spec):
            kept = gradient
        else:
            spec = leaf.value.spec
            dense = is_non_overlapping_and_dense(spec.shape, spec.strides)
            strides = spec.strides if dense else contiguous_strides(spec.shape)
            kept = ledger.hold(
                Value(Spec(spec.shape, strides, gradient.spec.dtype), ledger.allocate(nbytes(spec.shape, gradient.spec.dtype)))
            )
            if transposes(gradient.spec, kept.spec):
                side = transposed_block(spec.dtype)
                ledger.release(ledger.allocate(nbytes((side, side), spec.dtype)))
            ledger.let_go(gradient)
        kept.storage.category = "gradient"
        kept.storage.reason = f"gradient of {leaf.name}"
        self.gradients[leaf.name] = kept
        self._tell(leaf)

    def _tell(self, leaf: AccumulateGrad) -> None:
        """The post hooks of a leaf: its gradient is there, or grew."""
        if self.on_gradient is not None:
            self.on_gradient(leaf)


def last_save(trace: Trace) -> int | None:
    """How many events precede the last tensor that hooks see saved; None when they see none."""
    return max((s.at for s, number in zip(trace.saved, numbers_of(trace), strict=True) if not number), default=None)


def kernel_ran(trace: Trace, cut: int) -> bool:
    """True when nothing is allocated after the first ``cut`` events."""
    return not any(e.nbytes > 0 for e in trace.events[cut:])


def numbers_of(trace: Trace) -> list[bool]:
    """Which saved tensors are Python numbers wrapped for the call (SavedVariable::register_hooks passes them over)."""
    given = {o.slot for o in trace.outputs if o is not None}
    return [s.spec.shape == () and s.spec.dtype in _NUMBERS and s.slot >= trace.n_inputs and s.slot not in given for s in trace.saved]


_NUMBERS = frozenset({"float64", "int64", "bool"})
_DIFFERENTIABLE = frozenset({"float64", "float32", "bfloat16", "float16"})


def _obeys_layout(grad: Spec, parameter: Spec) -> bool:
    """obeys_layout_contract: the parameter's strides (of size-1 dims: any but 0), or row-major when the parameter is not dense."""
    if is_non_overlapping_and_dense(parameter.shape, parameter.strides):
        return all(a == b if n != 1 else a != 0 for n, a, b in zip(grad.shape, grad.strides, parameter.strides, strict=True))
    return is_contiguous(grad.shape, grad.strides)
