"""The variables of a loop in Python around the network: each holds one value, which goes when another takes its place."""

from __future__ import annotations

from typing import Any

from memest.errors import MemestError
from memest.network.tensor import Spec
from memest.runtimes.torch.ledger import Value
from memest.runtimes.torch.step.batches import Batch
from memest.runtimes.torch.step.forward import forward
from memest.runtimes.torch.step.run import Run
from memest.sizes.dims import plain


class Variables:
    """What a loop holds by name, and its calls, which stand under ``layer``'s name on the ledger."""

    def __init__(self, run: Run, layer: str) -> None:
        self._run, self._layer = run, layer
        self._held: dict[str, Value] = {}

    def __getitem__(self, name: str) -> Value:
        return self._held[name]

    def __contains__(self, name: str) -> bool:
        return name in self._held

    def bind(self, name: str, value: Value) -> None:
        """``name = value``, which is held: what the variable was before goes after."""
        before = self._held.get(name)
        self._held[name] = value
        if before is not None:
            self._run.ledger.let_go(before)

    def forget(self, *names: str) -> None:
        """Variables that go."""
        for name in names:
            self._run.ledger.let_go(self._held.pop(name))

    def end(self, *kept: str) -> None:
        """The function returns: all go but those of the names ``kept``."""
        self.forget(*[name for name in self._held if name not in kept])

    def allocate(self, described: Spec, nbytes: int, op: str, reason: str) -> Value:
        """A tensor of ``nbytes`` that ``op`` makes, held."""
        ledger = self._run.ledger
        ledger.layer, ledger.op = self._layer, op
        return ledger.hold(Value(described, ledger.allocate(nbytes, "temporary", reason)))

    def seen(self, value: Value, described: Spec) -> Value:
        """A view of ``value``, held."""
        return self._run.ledger.hold(Value(described, value.storage))

    def made(self, op: str, *tensors: Any, **attributes: Any) -> Value:
        """A call whose result is held."""
        return self._run.ledger.hold(self.called(op, *tensors, **attributes))

    def called(self, op: str, *tensors: Any, **attributes: Any) -> Value:
        """A call: its result, held by nobody."""
        entry = self._run.rows[op]
        self._run.ledger.layer = self._layer
        (made,) = self._run.caller.run(entry, list(tensors), tuple(entry.canonical(attributes).items()))
        assert made is not None
        return made

    def network(self, name: str, window: Value, sizes: dict[str, int]) -> list[Value]:
        """The network's outputs for a ``window`` of the input ``name``, held; one that it gives twice stands once."""
        run = self._run
        try:
            forward(run, Batch({name: window}, sizes))
        except MemestError as e:
            raise e.at(f"{self._layer}: a window of {'x'.join(str(plain(n)) for n in window.shape[2:])}") from e.__cause__
        run.ledger.layer, run.ledger.op = self._layer, ""
        return [run.env.pop(output) for output in dict.fromkeys(run.graph.outputs)]
