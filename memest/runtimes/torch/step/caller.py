"""Calling rows and composites by name on the machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from memest.machines.target import Target
from memest.network.graph import Casting
from memest.ops.composite import Composite
from memest.ops.facts import FALLS_THROUGH, FLOAT32_RESULT, Policy
from memest.ops.operator import Operator
from memest.runtimes.runtime import AS_DESCRIBED, Rows
from memest.runtimes.torch.autograd import Machine
from memest.runtimes.torch.ledger import Value
from memest.runtimes.torch.step.autocast import Autocast, Casts, asked_for_float32


class Caller:
    """Runs rows and composites by name on the machine; composites call back into it (see :class:`memest.ops.composite.Caller`).
    ``autocast`` is the context the calls stand in, until :meth:`leave_autocast`; :meth:`inside` adds those of the network's own code."""

    def __init__(self, machine: Machine, grad: bool, autocast: Autocast | None = None, rows: Rows = AS_DESCRIBED) -> None:
        self._machine = machine
        self._rows = rows
        self._frames: list[list[Value]] = []
        self.grad_mode = grad
        self._trains = grad
        self.training = machine.training
        self._device = "cuda" if machine.target.on_cuda else "cpu"
        self._autocast = autocast
        self._context = autocast
        self._around = None if autocast is None else Casts(machine.ledger)
        self._casts = self._around
        self._scopes: dict[str, Casts] = {}

    @property
    def target(self) -> Target:
        """What the calls are played for."""
        return self._machine.target

    def row(self, op: str) -> Operator | Composite:
        """How that operator runs here."""
        return self._rows[op]

    def call(self, op: str | Operator, *tensors: Any, **attributes: Any) -> Any:
        """Run ``op`` from inside a composite; the composite's frame holds the result."""
        entry = self._rows[op] if isinstance(op, str) else op
        outputs = self.run(entry, list(tensors), tuple(entry.canonical(attributes).items()))
        ledger = self._machine.ledger
        for v in outputs:
            if v is not None:
                ledger.hold(v)
                self._frames[-1].append(v)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def drop(self, *values: Value | None) -> None:
        """Release values of the current frame."""
        for v in values:
            if v is not None:
                _remove(self._frames[-1], v)
                self._machine.ledger.let_go(v)

    def statement(self, body: Callable[[], Any]) -> Any:
        """What ``body`` gives; the rest of what it called for is released, as temporaries are at the end of a statement."""
        frame = self._frames[-1]
        start = len(frame)
        result = body()
        made = frame[start:]
        del frame[start:]
        for v in reversed(made):
            if v is result and result not in frame:
                frame.append(v)
            else:
                self._machine.ledger.let_go(v)
        return result

    def run(self, entry: Operator | Composite, tensors: list[Any], attributes: tuple[tuple[str, Any], ...]) -> list[Value | None]:
        """Outputs of one call, unheld by this method."""
        context, casts = self._context, self._casts
        if context is not None and casts is not None:
            policy = self._rows.policy(entry, attributes)
            if policy is FLOAT32_RESULT:
                attributes = asked_for_float32(entry, tensors, attributes)
            if policy is not FALLS_THROUGH:
                return self._wrapped(context, casts, policy, entry, tensors, attributes)
        return self._run(entry, tensors, attributes)

    def run_outside_autocast(
        self, entry: Operator | Composite, tensors: list[Any], attributes: tuple[tuple[str, Any], ...]
    ) -> list[Value | None]:
        """The same for a call that autocast leaves alone: it is another device's."""
        context, self._context = self._context, None
        try:
            return self._run(entry, tensors, attributes)
        finally:
            self._context = context

    def enter_autocast(self) -> None:
        """The context around the calls begins, if there is one."""
        if self._autocast is not None:
            self._context = self._autocast
            self._around = self._casts = Casts(self._machine.ledger)

    @contextmanager
    def anew(self) -> Iterator[None]:
        """Calls that run again stand in contexts of their own, as they did the first time. Where the engine runs amid others (one that a
        forward asks for gradients), theirs end first, and what those cached is there."""
        outer = self._context, self._around, self._casts
        own = None if self._around is not None else Casts(self._machine.ledger)
        self._context = self._autocast
        self._around = self._casts = self._around or own
        try:
            yield
        finally:
            if own is not None:
                own.forget()
            self._context, self._around, self._casts = outer

    @contextmanager
    def amid(self, castings: Sequence[Casting]) -> Iterator[None]:
        """The engine runs while contexts of the network's own code are in force: they are for what custom functions and hooks call, too."""
        outer = self._around, self._context, self._casts
        found = next((c for c in castings if c.device == self._device), None)
        if found is not None:
            self._around = self._casts = self._around or self._scopes.setdefault(found.scope, Casts(self._machine.ledger))
            self._context = None if found.dtype is None else Autocast(dtype=found.dtype, cache=found.cache)
        try:
            yield
        finally:
            self._around, self._context, self._casts = outer

    @property
    def casts(self) -> bool:
        """Whether autocast is on."""
        return self._context is not None

    def leave_autocast(self) -> None:
        """It ends: what it cached goes."""
        if self._around is not None:
            self._around.forget()
        self._context = self._around = self._casts = None

    @contextmanager
    def inside(self, castings: Sequence[Casting]) -> Iterator[None]:
        """Calls stand in contexts of the network's own code. What is cached lives until the outermost one ends: the one around all calls,
        or that which :meth:`end_scope` tells of."""
        outer = self._context, self._casts
        for c in castings:
            if c.device == self._device:
                self._context = None if c.dtype is None else Autocast(dtype=c.dtype, cache=c.cache)
                self._casts = self._around or self._scopes.setdefault(c.scope, Casts(self._machine.ledger))
        try:
            yield
        finally:
            self._context, self._casts = outer

    def end_scope(self, name: str) -> None:
        """The outermost context of that name ends (within another one around all calls nothing ends)."""
        if self._around is None and name in self._scopes:
            self._scopes.pop(name).forget()

    def _wrapped(
        self,
        context: Autocast,
        casts: Casts,
        policy: Policy,
        entry: Operator | Composite,
        tensors: list[Any],
        attributes: tuple[tuple[str, Any], ...],
    ) -> list[Value | None]:
        """A call autocast wraps: its arguments are cast, and what is not cached dies after it. Nothing in it is looked at."""
        self._context = None
        try:
            if policy is FLOAT32_RESULT:
                return self._run(entry, tensors, attributes)
            return self.framed(lambda: self._run(entry, casts.applied(context, policy, tensors, self._cast), attributes))
        finally:
            self._context = context

    def _cast(self, value: Value, dtype: str, kept: bool) -> Value:
        """A cast; one that is kept has a history even under ``no_grad``, so that later calls can use it, and says so to kernels that ask
        (from torch 2.11 on)."""
        outer, kept = self.grad_mode, kept and self.target.version >= (2, 11)
        self.grad_mode = outer or (kept and self._trains)
        try:
            cast: Value = self.call("_to_copy", value, dtype=dtype)
            cast.looks_at_trained = kept
            return cast
        finally:
            self.grad_mode = outer

    def _run(self, entry: Operator | Composite, tensors: list[Any], attributes: tuple[tuple[str, Any], ...]) -> list[Value | None]:
        machine = self._machine
        outer, machine.ledger.op = machine.ledger.op, entry.name
        try:
            if isinstance(entry, Operator):
                return machine.call(entry, tensors, attributes, self.grad_mode)
            return self.framed(lambda: _listed(entry.compose(self, *tensors, **dict(attributes))))
        finally:
            machine.ledger.op = outer

    def framed(self, body: Callable[[], list[Value | None]]) -> list[Value | None]:
        """The outputs of ``body``, run in a frame of its own."""
        self._frames.append([])
        outputs: list[Value | None] = []
        try:
            outputs = body()
            return outputs
        finally:
            self._leave(outputs)

    def _leave(self, outputs: list[Value | None]) -> None:
        """End a composite's frame: locals die, outputs stay alive without a holder of this frame."""
        ledger = self._machine.ledger
        frame = self._frames.pop()
        for v in reversed(frame):
            if not any(v is o for o in outputs):
                ledger.let_go(v)
        for v in frame:
            if any(v is o for o in outputs):
                v.refs -= 1
                v.storage.refs -= 1


def _listed(result: Any) -> list[Value | None]:
    return list(result) if isinstance(result, tuple) else [result]


def _remove(values: list[Value], value: Value) -> None:
    for i, v in enumerate(values):
        if v is value:
            del values[i]
            return
