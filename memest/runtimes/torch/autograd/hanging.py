"""How tensors hang on the graph: behind which node each does, what a view keeps, what its history is once its base was written to.

Sources: torch/csrc/autograd/variable.cpp (gradient_edge, rebase_history, VariableHooks::grad_fn).
"""

from __future__ import annotations

from collections.abc import Callable

from memest.memory.stream import Storage
from memest.network.dtypes import COMPLEX
from memest.network.tensor import Spec
from memest.ops.tape import Event
from memest.runtimes.torch.autograd.nodes import AS_STRIDED, COPY_SLICES, AccumulateGrad, Node
from memest.runtimes.torch.autograd.numbering import Numbers
from memest.runtimes.torch.autograd.saving import Holder
from memest.runtimes.torch.autograd.views import check_readable
from memest.runtimes.torch.ledger import Ledger, Value


class Hanging:
    """Tensors of one step, and the numbers of the nodes they hang on."""

    def __init__(self, ledger: Ledger, on_cuda: bool) -> None:
        self.ledger = ledger
        self.numbers = Numbers(on_cuda, ledger.begun)

    def _hold_base(self, view: Value, source: Value | None) -> None:
        """A view keeps the tensor it looks at (that tensor's own base, when it is a view itself)."""
        base = Value(view.spec, view.storage, view.version) if source is None else source if source.base is None else source.base
        view.base = self.ledger.hold(base)
        view.seen = view.version.count
        view.recast = source is not None and (source.recast or (source.spec.dtype in COMPLEX) != (view.spec.dtype in COMPLEX))

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
        strided.notes = (("base", base.spec), ("recast", view.recast))
        self._hang(view, strided)
        view.seen = view.version.count
        return strided

    def _hang(self, value: Value, node: Node) -> None:
        """``value.grad_fn = node``."""
        node.refs += 1
        if value.node is not None:
            value.node.drop(self.ledger)
        value.node, value.output_nr, value.requires_grad = node, 0, True

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
        for slot, size, scratch, keep, spread, tried, unwritten in events:
            if keep:
                storages.append(ledger.keep(keep, size))
            elif tried is not None:
                storages.append(ledger.attempt(tried, size, spread))
            elif size >= 0:
                storages.append(ledger.allocate(size, "workspace" if scratch else "temporary"))
                storages[-1].spread, storages[-1].unwritten = spread, unwritten
            else:
                ledger.release(storages[slot])
        return storages
