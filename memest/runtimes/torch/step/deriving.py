"""Backward under ``create_graph=True``: formulas played call by call, so that what they compute has a history.

Sources: torch/csrc/autograd/engine.cpp (``evaluate_function`` in grad mode), input_buffer.cpp (gradients are added out of place),
functions/accumulate_grad.h (``clone_obey_contract``), saved_variable.cpp (what is unpacked has the history it was saved with).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from memest.errors import UnsupportedError
from memest.network.dtypes import DIFFERENTIABLE
from memest.network.tensor import Spec, same_shape
from memest.ops.derivatives.formula import Derived, Formula, Kernel, by_derivative, doubled, formula_of, gradient_of
from memest.ops.derivatives.groups import BESIDE
from memest.ops.derivatives.slices import sliced, strided_back
from memest.ops.derivatives.table import FORMULAS, HINTS
from memest.ops.operator import Operator
from memest.ops.tape import Saved
from memest.runtimes.torch.autograd import Machine, Node
from memest.runtimes.torch.autograd.nodes import AS_STRIDED, COPY_SLICES, PASS
from memest.runtimes.torch.ledger import Value
from memest.runtimes.torch.step.caller import Caller
from memest.runtimes.torch.step.histories import Body, hung, of_input


class Deriving:
    """Plays formulas with the calls of ``caller``."""

    def __init__(self, machine: Machine, caller: Caller) -> None:
        self._machine = machine
        self._caller = caller

    # what formulas call ---------------------------------------------------------------------------------------------------

    def call(self, op: str | Operator, *tensors: Any, **attributes: Any) -> Any:
        """Run an operator on values."""
        return self._caller.call(op, *tensors, **attributes)

    def drop(self, *values: Any) -> None:
        """Release intermediates."""
        self._caller.drop(*values)

    def statement(self, body: Callable[[], Any]) -> Any:
        """What ``body`` gives, without what else it made."""
        return self._caller.statement(body)

    def gradient(self, op: str) -> tuple[Operator, Operator]:
        """The row of that name, and its backward as an operator."""
        row, kernel = self._caller.row(op), FORMULAS[op]
        assert isinstance(row, Operator) and isinstance(kernel, Kernel)
        return row, gradient_of(row, kernel)

    # what the engine asks for ---------------------------------------------------------------------------------------------

    def backward_of(self, node: Node, grads: Sequence[Value | None], needs: Sequence[bool], create: bool) -> list[Value | None]:
        """The gradients of a node's inputs (held). UnsupportedError for a node without a formula."""
        ledger = self._machine.ledger
        if node.op == PASS and not node.before:
            return [None if g is None else ledger.hold(g) for g in grads]
        if isinstance(node.body, Body) and not node.before:
            with self._recording(create):
                return node.body.created(node, list(grads))
        if node.before or node.body is not None or node.saved.waits:
            raise _unknown(node)
        saved = self._unpacked(node)

        def wanted() -> list[Value | None]:
            found = self._derived(node, needs, grads, saved)
            return [v if need else None for v, need in zip(found, needs, strict=True)]

        with self._recording(create):
            outputs = [None if v is None else ledger.hold(v) for v in self._caller.framed(wanted)]
        for value in saved:
            ledger.let_go(value)
        node.saved.leave(ledger)
        return outputs

    def _derived(self, node: Node, needs: Sequence[bool], grads: Sequence[Value | None], saved: Sequence[Value]) -> Derived:
        """What a node's formula gives."""
        f, facts = Formula(self, needs, self._machine.target, self._caller.grad_mode), dict(node.notes)
        if node.op == AS_STRIDED:
            view = node.out_specs[0]
            return strided_back(f, grads[0], facts["base"], view.shape, view.strides)
        if node.op == COPY_SLICES:
            inner = node.inner
            assert inner is not None
            return sliced(f, grads[0], node.out_specs[0], facts["view"], lambda grad: self._derived(inner, needs, [grad], saved))
        formula = self._formula(node)
        if formula is None:
            raise _unknown(node)
        named = {**facts, **{role: v for (role, _), v in zip(node.saved_specs, saved, strict=True)}}
        return formula(f, named, grads, **dict(node.attributes))

    def fitted(self, gradient: Value, wanted: Spec) -> Value:
        """The gradient summed to the shape it was broadcast from, and in its dtype."""
        if not same_shape(gradient.spec.shape, wanted.shape):
            gradient = self._replaced(gradient, partial(self._plain().sum_to, gradient, wanted.shape))
        if gradient.spec.dtype != wanted.dtype:
            gradient = self._replaced(gradient, lambda: self.call("_to_copy", gradient, dtype=wanted.dtype))
        return gradient

    def total(self, old: Value, new: Value) -> Value:
        """Their sum, a new tensor; ``old`` is let go of."""
        return self._replaced(old, lambda: self.call("add", old, new))

    def copy(self, gradient: Value, spec: Spec) -> Value:
        """A copy that lies as ``spec`` says."""
        copied = self._made(lambda: self.call("clone", gradient))
        if copied.spec.strides != spec.strides:
            raise UnsupportedError("backward(create_graph=True) into a tensor that lies otherwise than its gradient")
        return copied

    # how --------------------------------------------------------------------------------------------------------------------

    @contextmanager
    def _recording(self, create: bool) -> Iterator[None]:
        caller, ledger = self._caller, self._machine.ledger
        outer, layer, op = caller.grad_mode, ledger.layer, ledger.op
        caller.grad_mode = create
        try:
            yield
        finally:
            caller.grad_mode, ledger.layer, ledger.op = outer, layer, op

    def _replaced(self, old: Value, by: Callable[[], Value]) -> Value:
        new = self._made(by)
        self._machine.ledger.let_go(old)
        return new

    def _made(self, by: Callable[[], Value]) -> Value:
        with self._recording(True):
            (new,) = self._caller.framed(lambda: [by()])
        assert new is not None
        return self._machine.ledger.hold(new)

    def _formula(self, node: Node) -> Callable[..., Derived] | None:
        row = node.row
        if row is None:
            return None
        found = FORMULAS.get(row.name)
        if found is None and row.backward is by_derivative:
            kernel = FORMULAS[row.name.removesuffix(" backward")]
            assert isinstance(kernel, Kernel)
            attributes = dict(node.attributes)
            return lambda f, saved, grads, **_: doubled(kernel, f, saved, grads, attributes)
        return formula_of(found, row, dict(node.attributes)) if isinstance(found, Kernel) else found

    def _unpacked(self, node: Node) -> list[Value]:
        """What the node kept, as tensors with their histories: that of the input, or of the result, that was kept. They are held."""
        calls = node.inner if node.op == COPY_SLICES else node
        assert calls is not None
        if calls.row is None:
            return []
        ledger, trace, beside = self._machine.ledger, calls.trace, BESIDE.get(calls.row.name, ())
        assert trace is not None
        written = {o.slot: nr for nr, o in enumerate(trace.outputs) if o is not None and (o.same_as >= 0 or o.slot >= trace.n_inputs)}
        found: list[Value] = []
        for i, (kept, storage) in enumerate(zip(trace.saved, node.saved.unpack(), strict=True)):
            value = Value(kept.spec, storage, node.saved.version(i))
            if kept.spec.dtype not in DIFFERENTIABLE:
                pass
            elif kept.role in beside:
                value = _beside(value, node, len(trace.outputs) + beside.index(kept.role), beside)
            elif kept.slot in written:
                value = hung(value, *_behind(node, written[kept.slot]))
            else:
                value = of_input(value, node, _source(calls, kept))
            found.append(ledger.hold(value))
        return found

    def _plain(self) -> Formula:
        return Formula(self, (), self._machine.target, True)


def _behind(node: Node, output: int) -> tuple[Node, int]:
    """Where a result that was kept hangs: behind its node, or, written into a view, where the view has hung since."""
    if node.op != COPY_SLICES:
        return node, output
    after = dict(node.notes)["after"]
    assert isinstance(after, Node)
    if not after.refs:
        raise UnsupportedError(f"create_graph=True through {_named(node)}, whose result nobody holds any more; write it out of place")
    return after, 0


def _beside(value: Value, node: Node, output: int, roles: tuple[str, ...]) -> Value:
    """A tensor that the call gives beside what its row hands out: an output of its node with a gradient of its own."""
    if len(node.out_specs) <= output:
        kept = dict(node.saved_specs)
        node.out_specs.extend(kept[role] for role in roles)
    return hung(value, node, output)


def _unknown(node: Node) -> UnsupportedError:
    hint = HINTS.get(node.op, "what its backward's own graph keeps has no rule")
    return UnsupportedError(f"create_graph=True through {_called(node)} ({node.layer}): {hint}")


def _named(node: Node) -> str:
    inner = node.inner
    return f"{node.op if inner is None else inner.op} in place into a view ({node.layer})"


def _called(node: Node) -> str:
    """What stands in the way of a backward of a backward, and what to do."""
    if node.body is not None or node.saved.waits:
        return "a checkpoint; run the forward whose gradient is taken without one"
    if node.before:
        return f"{node.op}, before whose backward others run"
    return node.op


def _source(node: Node, kept: Saved) -> int:
    """The input whose history a kept tensor has: itself, or what it is a copy of (what is written over is copied before)."""
    assert node.trace is not None and node.row is not None
    copied = kept.slot >= node.trace.n_inputs and kept.role == node.row.roles[0]
    return 0 if copied else kept.slot
