"""One process alone: the places in a step where parallel runs do something, and the nothing that happens there without them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from memest.memory.stream import Move, Storage
from memest.network.graph import Parameter
from memest.network.tensor import nbytes
from memest.runtimes.torch.autograd import AccumulateGrad
from memest.runtimes.torch.ledger import Ledger, Value
from memest.runtimes.torch.step.parallel.making import in_script_order
from memest.runtimes.torch.step.run import Run


class Alone:
    """The step of a process that shares nothing. Parallel runs override what differs."""

    run: Run
    ledger: Ledger
    alike_from = 2

    def begin(self, run: Run) -> None:
        """``run`` is the step that is played; nothing is resident yet."""
        self.run = run
        self.ledger = run.ledger

    def place(self, p: Parameter) -> Storage:
        """The storage the layers see for a parameter or buffer; what is resident of it is written on the ledger."""
        own = "buffer" if p.buffer else "parameter"
        kind = "gradient" if p.gradient_of is not None else "optimizer_state" if p.state_of is not None else own
        return self.ledger.resident(nbytes(p.shape, p.dtype), kind, p.state_of or p.name)

    def hold_residents(self) -> None:
        """Called once, when all other residents are there."""

    def before_forward(self) -> None:
        """Called before the first layer, once a pass."""

    def enter(self, first: int, last: int) -> None:
        """Called before the layers number ``first`` to ``last`` run: a single one, or a checkpointed segment."""

    def leave(self, index: int) -> None:
        """Called after the layer of that number has run and its values are dropped."""

    def after_forward(self) -> None:
        """Called when the network has returned its outputs."""

    def after_backward(self) -> None:
        """Called when the last node has run, before the root's gradient goes."""

    def updated(self, leaves: Sequence[AccumulateGrad]) -> list[tuple[str, Value]]:
        """The parameters this process's optimizer updates, in its order, as the tensors it sees."""
        return [(leaf.name, leaf.value) for leaf in leaves if leaf.name in self.run.machine.gradients]

    def made(self) -> Iterable[Move]:
        """The residents one after the other, as a script makes them."""
        return (Move(s, True) for s in in_script_order(self.run.graph, self.ledger.residents))

    def remade(self) -> tuple[int, Iterable[Move]]:
        """What of the residents is exchanged when a step begins."""
        return 0, ()
