"""``torch.amp.GradScaler`` around backward and the optimizer's step (torch/amp/grad_scaler.py).

The scale and the growth tracker are tensors of one number each, made when a loss is scaled for the first time. ``unscale_`` inverts the
scale in float64 and notes in a tensor of its own whether a gradient is not finite. Both are copied to each device, the only one too
(``_MultiDeviceReplicator``); the copy of what was found stays until ``update``. An optimizer that unscales by itself (a fused step) gets
the scale and a sum of what was found. The number found is 0: the step is made.
"""

from __future__ import annotations

from typing import Any

from memest.memory.stream import Storage
from memest.network.tensor import Spec
from memest.ops.table import operator_named
from memest.runtimes.torch.ledger import Ledger, Value
from memest.runtimes.torch.step.caller import Caller

NAME = "GradScaler"
SCALE = Spec((), (), "float32")
_FLOAT32, _FLOAT64, _INT32 = 4, 8, 4


class Scaler:
    """The scaler of one step; ``fused`` optimizers unscale by themselves, ``sharded`` gradients are looked through by all ranks (DTensor's
    ``found_inf_reduce_handler``)."""

    def __init__(self, ledger: Ledger, *, fused: bool, sharded: bool) -> None:
        self._ledger = ledger
        self._fused, self._sharded = fused, sharded
        self._scale: Value | None = None
        self._found: Storage | None = None
        self._given: list[Storage] = []

    def scaled(self, caller: Caller, loss: Value) -> Value:
        """``scaler.scale(loss)``, held; the loss is let go."""
        ledger = self._ledger
        outer, ledger.layer, ledger.op = (ledger.layer, ledger.op), NAME, "scale"
        if self._scale is None:
            scale, tracker = self._standing(_FLOAT32), self._standing(_INT32)
            self._scale = ledger.hold(Value(SCALE, scale))
            tracker.refs += 1
        entry = operator_named("mul")
        attributes: tuple[tuple[str, Any], ...] = tuple(entry.canonical({}).items())
        (result,) = caller.run(entry, [loss, self._scale], attributes)
        assert result is not None
        ledger.hold(result)
        ledger.let_go(loss)
        ledger.layer, ledger.op = outer
        return result

    def _standing(self, nbytes: int) -> Storage:
        if self._ledger.begun:
            return self._ledger.resident(nbytes, "optimizer_state", NAME)
        storage = self._ledger.allocate(nbytes, "optimizer_state", "kept by the gradient scaler")
        storage.refs = 1
        return storage

    def unscale(self) -> None:
        """``scaler.unscale_(optimizer)``: the gradients are divided in place."""
        ledger = self._ledger
        ledger.phase, ledger.layer, ledger.op = "optimizer_step", NAME, "unscale_"
        wide = ledger.allocate(_FLOAT64)
        inverse = ledger.allocate(_FLOAT64)
        ledger.release(wide)
        narrow = ledger.allocate(_FLOAT32)
        ledger.release(inverse)
        self._check(narrow)

    def _check(self, factor: Storage) -> None:
        """``_unscale_grads_``: what is found is noted in a copy."""
        ledger = self._ledger
        found = ledger.allocate(_FLOAT32)
        self._found = ledger.allocate(_FLOAT32)
        copied = ledger.allocate(_FLOAT32)
        if self._sharded:  # what the ranks have found, put together
            ledger.release(ledger.allocate(_FLOAT32))
        for storage in (copied, found, factor):
            ledger.release(storage)

    def before_step(self) -> None:
        """What ``scaler.step`` does before the optimizer's."""
        ledger = self._ledger
        unscaled = self._found is not None
        if not self._fused:
            if not unscaled:
                self.unscale()
            return
        ledger.phase, ledger.layer, ledger.op = "optimizer_step", NAME, "step"
        if not unscaled:
            self._check(ledger.allocate(_FLOAT32))
        self._given = [ledger.allocate(_FLOAT32) for _ in range(1 if unscaled else 2)]

    def after_step(self) -> None:
        """The optimizer has stepped: what it was given goes; ``scaler.update()`` follows."""
        ledger = self._ledger
        ledger.layer, ledger.op = NAME, "update"
        assert self._found is not None
        for storage in (*reversed(self._given), self._found):
            ledger.release(storage)
        self._found, self._given = None, []
