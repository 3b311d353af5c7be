"""Calling rows and composites by name on the machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from memest.ops.composite import Composite
from memest.ops.facts import FALLS_THROUGH, FLOAT32_RESULT, Policy
from memest.ops.operator import Operator
from memest.runtimes.runtime import AS_DESCRIBED, Rows
from memest.runtimes.torch.autograd import Machine
from memest.runtimes.torch.ledger import Value
from memest.runtimes.torch.step.autocast import Autocast, Casts, asked_for_float32


class Caller:
    """Runs rows and composites by name on the machine; composites call back into it (see :class:`memest.ops.composite.Caller`).
    ``autocast`` is the context the calls stand in, until :meth:`leave_autocast`."""

    def __init__(self, machine: Machine, grad: bool, autocast: Autocast | None = None, rows: Rows = AS_DESCRIBED) -> None:
        self._machine = machine
        self._rows = rows
        self._frames: list[list[Value]] = []
        self.grad_mode = grad
        self.training = machine.training
        self.target = machine.target
        self._casts = None if autocast is None else Casts(autocast, machine.ledger)

    def call(self, op: str, *tensors: Any, **attributes: Any) -> Any:
        """Run ``op`` from inside a composite; the composite's frame holds the result."""
        entry = self._rows[op]
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

    def run(self, entry: Operator | Composite, tensors: list[Any], attributes: tuple[tuple[str, Any], ...]) -> list[Value | None]:
        """Outputs of one call, unheld by this method."""
        casts = self._casts
        if casts is not None and casts.active:
            policy = self._rows.policy(entry, attributes)
            if policy is FLOAT32_RESULT:
                return self._run_without(casts, entry, tensors, asked_for_float32(entry, tensors, attributes))
            if policy is not FALLS_THROUGH:
                return self._cast_and_run(casts, policy, entry, tensors, attributes)
        return self._run(entry, tensors, attributes)

    def run_outside_autocast(
        self, entry: Operator | Composite, tensors: list[Any], attributes: tuple[tuple[str, Any], ...]
    ) -> list[Value | None]:
        """The same for a call that autocast leaves alone: it is another device's."""
        if self._casts is None or not self._casts.active:
            return self._run(entry, tensors, attributes)
        return self._run_without(self._casts, entry, tensors, attributes)

    def enter_autocast(self) -> None:
        """The autocast context begins, if there is one."""
        if self._casts is not None:
            self._casts.active = True

    def leave_autocast(self) -> None:
        """The autocast context ends, if there is one: its cached casts go."""
        if self._casts is not None:
            self._casts.leave()

    def _cast_and_run(
        self, casts: Casts, policy: Policy, entry: Operator | Composite, tensors: list[Any], attributes: tuple[tuple[str, Any], ...]
    ) -> list[Value | None]:
        """A call autocast wraps: its arguments are cast, and what is not cached dies after it."""
        casts.active = False
        try:
            return self._framed(lambda: self._run(entry, casts.applied(policy, tensors, self._cast), attributes))
        finally:
            casts.active = True

    def _run_without(
        self, casts: Casts, entry: Operator | Composite, tensors: list[Any], attributes: tuple[tuple[str, Any], ...]
    ) -> list[Value | None]:
        """A call that autocast wraps and does not cast for."""
        casts.active = False
        try:
            return self._run(entry, tensors, attributes)
        finally:
            casts.active = True

    def _cast(self, value: Value, dtype: str) -> Value:
        cast: Value = self.call("_to_copy", value, dtype=dtype)
        return cast

    def _run(self, entry: Operator | Composite, tensors: list[Any], attributes: tuple[tuple[str, Any], ...]) -> list[Value | None]:
        machine = self._machine
        outer, machine.ledger.op = machine.ledger.op, entry.name
        try:
            if isinstance(entry, Operator):
                return machine.call(entry, tensors, attributes, self.grad_mode)
            return self._framed(lambda: _listed(entry.compose(self, *tensors, **dict(attributes))))
        finally:
            machine.ledger.op = outer

    def _framed(self, body: Callable[[], list[Value | None]]) -> list[Value | None]:
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
