"""Forward: rows called on values, nodes hung behind what they return.

Source: torch/csrc/autograd/saved_variable.cpp (what is saved knows how often it had been written to: a call's input before the call, its
result after it).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from memest.machines.target import Target
from memest.memory.stream import Storage
from memest.network.dtypes import DIFFERENTIABLE
from memest.network.tensor import Spec
from memest.ops import reading
from memest.ops.operator import Operator
from memest.ops.tape import Event, Out, Saved, Trace
from memest.runtimes.torch.autograd.choosing import Chosen, Selecting
from memest.runtimes.torch.autograd.hanging import Hanging
from memest.runtimes.torch.autograd.nodes import Items, Node
from memest.runtimes.torch.autograd.saving import (
    EndOfRecomputation,
    Keeping,
    PackedHolder,
    Part,
    Stamp,
    kernel_ran,
    last_save,
    numbers_of,
)
from memest.runtimes.torch.autograd.views import (
    GIVING_SEVERAL,
    SEVERAL,
    WITHOUT_GRADIENTS,
    check_fresh,
    check_leads_somewhere,
    check_writable,
)
from memest.runtimes.torch.ledger import Ledger, Value, Version

_NONE = Spec((0,), (1,), "float32")  # of an output that a call did not give
DATA = "data"  # the row of ``tensor.data``, which is the same memory and another tensor
COUNTING_APART = frozenset({DATA, "_unsafe_view", "unsafe_split"})  # rows whose outputs are no views to autograd (as_view is not called)


class Recorder(Hanging):
    """Runs calls forward on a ledger; what they save goes to ``keeping``."""

    def __init__(self, ledger: Ledger, training: bool, target: Target, *, remember: bool = True) -> None:
        """``remember=False`` reads every row anew: traces of symbolic sizes must not be shared with those of plain ones."""
        super().__init__(ledger, target.on_cuda)
        self.training = training
        self.target = target
        self._forward = reading.forward if remember else reading.for_symbols(reading.forward)
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
