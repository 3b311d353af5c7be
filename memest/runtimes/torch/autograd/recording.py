"""Forward: rows called on values, nodes hung behind what they return.

Sources: torch/csrc/autograd/variable.cpp (gradient_edge, rebase_history), torch/csrc/autograd/saved_variable.cpp (what is saved knows how
often it had been written to: a call's input before the call, its result after it).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from memest.machines.target import Target
from memest.memory.stream import Storage
from memest.network.dtypes import DIFFERENTIABLE
from memest.network.tensor import Spec
from memest.ops import reading
from memest.ops.operator import Operator
from memest.ops.tape import Event, Out, Saved, Trace
from memest.runtimes.torch.autograd.choosing import Chosen, Selecting
from memest.runtimes.torch.autograd.nodes import AS_STRIDED, COPY_SLICES, FUNCTION, PASS, AccumulateGrad, History, Items, Node
from memest.runtimes.torch.autograd.numbering import Numbers
from memest.runtimes.torch.autograd.saving import (
    EndOfRecomputation,
    Holder,
    Keeping,
    PackedHolder,
    Part,
    Stamp,
    kernel_ran,
    last_save,
    numbers_of,
)
from memest.runtimes.torch.autograd.views import (
    BY_FUNCTION,
    GIVING_SEVERAL,
    SEVERAL,
    WITHOUT_GRADIENTS,
    check_fresh,
    check_leads_somewhere,
    check_readable,
    check_writable,
)
from memest.runtimes.torch.ledger import Ledger, Value, Version

_NONE = Spec((0,), (1,), "float32")  # of an output that a call did not give
DATA = "data"  # the row of ``tensor.data``, which is the same memory and another tensor
COUNTING_APART = frozenset({DATA, "_unsafe_view", "unsafe_split"})  # rows whose outputs are no views to autograd (as_view is not called)


Body = Callable[[Node, list[Value | None]], list[Value | None]]


class Recorder:
    """Runs calls forward on a ledger; what they save goes to ``keeping``."""

    def __init__(self, ledger: Ledger, training: bool, target: Target, *, remember: bool = True) -> None:
        """``remember=False`` reads every row anew: traces of symbolic sizes must not be shared with those of plain ones."""
        self.ledger = ledger
        self.training = training
        self.target = target
        self._forward = reading.forward if remember else reading.for_symbols(reading.forward)
        self.numbers = Numbers(target.on_cuda, ledger.begun)
        self.keeping = Keeping()
        self.line_of: Callable[[str], str] = lambda layer: ""  # of user code
        self.writes_leaves = True  # a row alone may be tried on a leaf
        self.selection: Selecting | None = None

    def call(self, row: Operator, arguments: list[Value | list[Value] | None], attributes: Items, grad: bool) -> list[Value | None]:
        """One row's forward: storages move, a node appears when a gradient is wanted. New outputs come unheld."""
        flat, specs = reading.flattened(arguments)
        stale = [v for v in flat if v.base is not None and v.node is None and v.base.requires_grad] if grad else ()
        if grad:
            for v in flat:
                if v.base is not None:
                    self.renew(v)
        needs = tuple(v.requires_grad for v in flat) if grad else (False,) * len(flat)
        trace = self._trace(row, specs, attributes, needs)
        wants = row.backward is not None and any(needs) and not trace.is_noop
        if grad and not trace.is_noop:
            for o in trace.outputs:
                if o is not None and o.same_as >= 0:
                    check_writable(flat[o.same_as], any(needs), leaves=self.writes_leaves)
                    check_fresh(flat[o.same_as], stale)
        if grad and not wants and row.backward is not None and any(v.says_grad for v in flat):
            check_leads_somewhere(trace, self.line_of(self.ledger.layer))
        inputs = [v.storage for v in flat]
        chosen = None if self.selection is None else self.selection.chosen(row.name)
        if chosen is not None and not wants:
            trace = self._with_results(row, specs, attributes, trace)
        taken = None if chosen is None or not chosen.again else self._taken(chosen, trace, inputs, row.name)
        if wants and self.keeping.ends() and last_save(trace) is not None:
            self._end(trace, inputs, chosen, taken)
        parts: list[Part] = []
        if taken is not None:
            storages = taken
            if wants and self.keeping.one_by_one:
                for s, number in zip(trace.saved, numbers_of(trace), strict=True):
                    self._keep_one(s, storages, number, parts)
        elif wants and self.keeping.one_by_one:
            storages = self._replay_keeping(trace, inputs, parts)
        else:
            storages = self._replay(trace.events, inputs)
        if chosen is not None and taken is None:
            chosen.keep(trace, storages)
        node = None
        if wants:
            node = Node(next(self.numbers), row.name, self.ledger.layer, attributes, needs, row)
            node.edges = [self._edge(v) if n else None for v, n in zip(flat, needs, strict=True)]
            for edge in node.edges:
                if edge is not None:
                    edge[0].join(self.ledger)
            node.notes, node.trace = trace.notes, trace
            node.saved_specs = tuple((s.role, s.spec) for s in trace.saved)
            if trace.saved:
                self.save(node, trace, storages, parts)
        before = [v.version.count for v in flat] if wants else []
        versions: dict[int, Version] = {}
        outputs: list[Value | None] = []
        for nr, out in enumerate(trace.outputs):
            if out is None:
                outputs.append(None)
                if node is not None:
                    node.out_specs.append(_NONE)
                continue
            if out.same_as >= 0:
                value = flat[out.same_as]
                value.spec = out.spec
                if not trace.is_noop:
                    self.ledger.wrote(value)
            else:
                value = Value(out.spec, storages[out.slot], self._version(row, out, flat, versions))
                if out.is_view and out.slot < len(flat) and row.name not in ("detach", DATA):  # no views for autograd
                    self._hold_base(value, flat[out.slot])
                    value.bound = SEVERAL if row.name in GIVING_SEVERAL else flat[out.slot].bound
                    value.bound = value.bound if grad else WITHOUT_GRADIENTS
            if node is not None and out.same_as >= 0 and value.base is not None:
                self._rebase(value, node)
            elif node is not None and out.spec.dtype in DIFFERENTIABLE:
                self._hang(value, node)
                value.output_nr = nr
            elif out.same_as < 0:
                value.requires_grad = False
                looks = row.backward is not None and out.is_view and out.slot < len(flat)
                value.looks_at_trained = looks and not grad and flat[out.slot].says_grad
            outputs.append(value)
            if node is not None:
                node.out_specs.append(out.spec)
        if node is not None and trace.saved:
            node.saved.stamp(_stamps(trace, flat, before, versions))
        if chosen is not None and taken is None:
            chosen.stamp([*(v.version for v in flat), *(versions.get(slot) for slot in range(len(flat), len(storages)))])
        elif chosen is not None:
            chosen.let_go(trace)
        return outputs

    def _trace(self, row: Operator, specs: reading.Arguments, attributes: Items, needs: tuple[bool, ...]) -> Trace:
        return self._forward(row, specs, attributes, needs, self.training, self.target, reading.kinds_of(attributes))

    def _with_results(self, row: Operator, specs: reading.Arguments, attributes: Items, trace: Trace) -> Trace:
        """A call that needs no gradients, with all that its kernel gives left over: the statistics of a norm are outputs, too, and whoever
        wants them says so by what is saved for backward."""
        full = self._trace(row, specs, attributes, (True,) * trace.n_inputs)
        same = [e for e in full.events if e.nbytes >= 0] == [e for e in trace.events if e.nbytes >= 0]
        return full if same else trace

    def _taken(self, chosen: Chosen, trace: Trace, inputs: list[Storage], row: str) -> list[Storage]:
        """What a selective checkpoint has kept of this call, where it runs again."""
        if row == "batch_norm":  # its module's counter counts again
            self._replay(_counted(trace), inputs)
        return chosen.taken(trace, inputs)

    def _version(self, row: Operator, out: Out, flat: list[Value], versions: dict[int, Version]) -> Version:
        """What an output counts with: what is looked at by it, or by an output before (``versions``, by slot)."""
        if row.name in COUNTING_APART:
            return Version()
        if out.slot < len(flat):
            return flat[out.slot].version
        return versions.setdefault(out.slot, Version())

    def _replay_keeping(self, trace: Trace, inputs: list[Storage], parts: list[Part]) -> list[Storage]:
        """The call's events, and each tensor that it saves kept at its time."""
        storages, done = inputs, 0
        for s, number in zip(trace.saved, numbers_of(trace), strict=True):
            storages = self._replay(trace.events[done : s.at], storages)
            done = s.at
            self._keep_one(s, storages, number, parts)
        return self._replay(trace.events[done:], storages)

    def _keep_one(self, s: Saved, storages: list[Storage], number: bool, parts: list[Part]) -> None:
        """A tensor that is saved is kept at its time, and lives while that is done."""
        storages[s.slot].refs += 1
        parts.append(self.keeping.keep(s.spec, storages[s.slot], number))
        storages[s.slot].refs -= 1

    def save(self, node: Node, trace: Trace, storages: list[Storage], parts: list[Part]) -> None:
        """What the call saves goes to whoever keeps it now (``parts``: it has gone there one by one); what nobody keeps and nobody is given
        dies."""
        if parts:
            node.saved = PackedHolder(parts, _own_output(trace, parts))
        else:
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

    def _end(self, trace: Trace, inputs: list[Storage], chosen: Chosen | None, taken: list[Storage] | None) -> None:
        """The call up to the last tensor it saves; then its locals die. Of one that was kept the results are ``taken``, if it saves any."""
        cut = last_save(trace)
        assert cut is not None
        if chosen is not None and taken is not None:
            holder = self.keeping.pack([taken[s.slot] for s in trace.saved], numbers_of(trace))
            if any(s.slot >= trace.n_inputs for s in trace.saved):
                chosen.let_go(trace._replace(outputs=()))
            holder.release(self.ledger)
            raise EndOfRecomputation(ran=True)
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
        base = Value(view.spec, view.storage, view.version) if source is None else source if source.base is None else source.base
        view.base = self.ledger.hold(base)
        view.seen = view.version.count

    def renew(self, view: Value) -> None:
        """``view.grad_fn``: where its base, or another view of that, was written to since, the way of its gradient is that of the base
        (torch/csrc/autograd/variable.cpp, VariableHooks::grad_fn). GraphError where torch does not let it be taken."""
        base = view.base
        if base is None or view.seen == view.version.count or (view.node is None and not base.requires_grad):
            return
        check_readable(view)
        edge = self._edge(base) if base.requires_grad else None
        if edge is not None:
            edge[0].join(self.ledger)
        self._restride(view, base, edge)

    def _rebase(self, view: Value, inner: Node) -> None:
        """In place on a view: the base's gradient goes through CopySlices around the operator, the view's through AsStrided on the base
        (torch/csrc/autograd/variable.cpp, rebase_history). What writes into a ``part`` of the view alone is in place on that part."""
        base = view.base
        assert base is not None
        slices = Node(next(self.numbers), COPY_SLICES, self.ledger.layer, (), inner.needs)
        slices.inner = inner
        slices.edges = [self._edge(base) if base.requires_grad else None, *inner.edges[1:]]
        slices.saved, inner.saved = inner.saved, Holder([])
        slices.out_specs = [base.spec]
        facts, written = dict(inner.notes), view.spec
        if isinstance(facts.get("part"), Spec):
            written = facts["part"]
            inner.notes = tuple({**facts, "whole": True}.items())
        old = inner.edges[0]
        inner.edges = []
        if slices.edges[0] is not None:
            slices.edges[0][0].join(self.ledger)
        if old is not None:
            old[0].leave(self.ledger)
        self._hang(base, slices)
        slices.refs += 1
        slices.notes = (("view", written), ("after", self._restride(view, base, (slices, 0))))

    def _restride(self, view: Value, base: Value, edge: tuple[Node | AccumulateGrad, int] | None) -> Node:
        """From now on the gradient of ``view`` goes into zeros like its ``base``, by an edge that has been joined."""
        strided = Node(next(self.numbers), AS_STRIDED, self.ledger.layer, (), (True,))
        strided.edges = [edge]
        strided.out_specs = [view.spec]
        strided.notes = (("base", base.spec),)
        self._hang(view, strided)
        view.seen = view.version.count
        return strided

    def _hang(self, value: Value, node: Node) -> None:
        """``value.grad_fn = node``."""
        node.refs += 1
        if value.node is not None:
            value.node.drop(self.ledger)
        value.node, value.output_nr, value.requires_grad = node, 0, True

    def pass_through(self, values: list[Value], run: Callable[[], None]) -> list[Value]:
        """A custom function that returns its arguments: views of ``values`` behind a node that calls ``run`` in backward before it hands
        the gradients on."""
        node = Node(next(self.numbers), PASS, self.ledger.layer, (), (True,) * len(values))
        for v in values:
            self.renew(v)
        node.edges = [self._edge(v) for v in values]
        for edge in node.edges:
            if edge is not None:
                edge[0].join(self.ledger)
        node.before = [run]
        node.out_specs = [v.spec for v in values]
        views = [Value(v.spec, v.storage, v.version) for v in values]
        for nr, (view, v) in enumerate(zip(views, values, strict=True)):
            self._hold_base(view, v)
            self._hang(view, node)
            view.output_nr = nr
            view.bound = BY_FUNCTION
        return views

    def function(
        self,
        outputs: list[Value],
        inputs: list[Value],
        saved: list[Value],
        context: list[Value],
        body: Body,
        differentiable: Sequence[bool],
        unpacks: bool = True,
    ) -> None:
        """A custom function has run forward: ``outputs`` (those that are ``differentiable``) hang behind a node of its own, which keeps
        ``saved`` until it has run backward and ``context`` until it dies; ``body`` is its backward, which ``unpacks`` the saved ones."""
        if self.keeping.ends() and saved:
            self.keeping.pack([v.storage for v in saved], [False] * len(saved)).release(self.ledger)
            raise EndOfRecomputation(ran=True)
        for v in inputs:
            self.renew(v)
        node = Node(next(self.numbers), FUNCTION, self.ledger.layer, (), tuple(v.requires_grad for v in inputs))
        node.edges = [self._edge(v) if v.requires_grad else None for v in inputs]
        for edge in node.edges:
            if edge is not None:
                edge[0].join(self.ledger)
        node.body, node.unpacks = body, unpacks
        node.context = [self.ledger.hold(v) for v in context]
        node.saved_specs = tuple(("", v.spec) for v in saved)
        if saved and self.keeping.one_by_one:
            parts = [self.keeping.keep(v.spec, v.storage, False) for v in saved]
            own = any(p.is_itself and any(v is o for o in outputs) for p, v in zip(parts, saved, strict=True))
            node.saved = PackedHolder(parts, own)
        elif saved:
            node.saved = self.keeping.pack([v.storage for v in saved], [False] * len(saved))
            node.saved.stamp([Stamp(v.version, v.version.count) for v in saved])
        self._remember(node, outputs, inputs, saved, differentiable)
        for nr, (value, hangs) in enumerate(zip(outputs, differentiable, strict=True)):
            node.out_specs.append(value.spec)
            if hangs:
                self._hang(value, node)
                value.output_nr = nr
                value.seen = value.version.count
                if value.base is not None or any(value.version is v.version and value is not v for v in inputs):
                    value.bound = BY_FUNCTION

    def _remember(self, node: Node, outputs: list[Value], inputs: list[Value], saved: list[Value], differentiable: Sequence[bool]) -> None:
        """What a function saves has its history in backward; of what is neither its input nor its output the graph is kept for that."""
        found: list[History | None] = []
        for v in saved:
            nr = next((i for i, o in enumerate(outputs) if o is v and differentiable[i]), None)
            found.append((node, nr) if nr is not None else self._edge(v) if v.requires_grad and v.node is not None else None)
            if nr is None and found[-1] is not None and not any(v is i for i in inputs):
                found[-1][0].join(self.ledger)
                node.saved.behind.append(found[-1][0])
        node.histories = tuple(found)

    def hook(self, value: Value, run: Callable[[], None]) -> None:
        """``value.register_hook``: ``run`` is called before the node that made it runs backward."""
        self.renew(value)
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
        for slot, size, scratch, keep, spread, tried in events:
            if keep:
                storages.append(ledger.keep(keep, size))
            elif tried is not None:
                storages.append(ledger.attempt(tried, size, spread))
            elif size >= 0:
                storages.append(ledger.allocate(size, "workspace" if scratch else "temporary"))
                storages[-1].spread = spread
            else:
                ledger.release(storages[slot])
        return storages


def _stamps(trace: Trace, flat: list[Value], before: list[int], versions: Mapping[int, Version]) -> list[Stamp | None]:
    """Of each saved tensor: an input as it was ``before`` the call, unless that is what the call wrote."""
    written = {o.same_as for o in trace.outputs if o is not None}
    found: list[Stamp | None] = []
    for s in trace.saved:
        if s.slot < trace.n_inputs:
            version = flat[s.slot].version
            found.append(Stamp(version, version.count if s.slot in written else before[s.slot]))
        else:
            made = versions.get(s.slot)
            found.append(None if made is None else Stamp(made, made.count))
    return found


def _counted(trace: Trace) -> tuple[Event, ...]:
    """The first events that leave nothing: what a batch norm's counter takes, before its kernel."""
    alive, found = 0, 0
    for i, e in enumerate(trace.events, 1):
        alive += 1 if e.nbytes >= 0 else -1
        if alive == 0:
            found = i
        if any(o is not None and o.slot == e.slot for o in trace.outputs):
            break
    return trace.events[:found]


def _own_output(trace: Trace, parts: list[Part]) -> bool:
    """Whether a call keeps a tensor that it gives, or made and does not hand on (the statistics of a norm are outputs, too)."""
    given = {o.slot for o in trace.outputs if o is not None}
    return any(p.is_itself and (s.slot in given or s.slot >= trace.n_inputs) for p, s in zip(parts, trace.saved, strict=True))
