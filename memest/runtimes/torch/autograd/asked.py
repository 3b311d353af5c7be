"""What one run of the engine is asked for: everything into the leaves, or the gradients of some tensors alone.

Source: torch/csrc/autograd/engine.cpp (``init_to_execute``: which nodes run for ``torch.autograd.grad``, and what is captured before them).
"""

from __future__ import annotations

from collections.abc import Sequence

from memest.runtimes.torch.autograd.nodes import AccumulateGrad, Node
from memest.runtimes.torch.ledger import Ledger, Value

Edge = tuple[Node | AccumulateGrad, int]


class Asked:
    """``keep``: saved tensors stay (``retain_graph``). ``create``: what backward computes has a backward of its own (``create_graph``).
    ``wanted``: where the tensors hang whose gradients are to be ``captured``."""

    def __init__(self, keep: bool = False, create: bool = False, wanted: Sequence[Edge] = ()) -> None:
        self.keep = keep
        self.create = create
        self.selects = bool(wanted)
        self.captured: list[Value | None] = [None] * len(wanted)
        self._wanted = wanted
        self._ends = {id(target) for target, _ in wanted}
        self._on_the_way: set[int] = set()

    def mark(self, starts: Sequence[Node | AccumulateGrad]) -> None:
        """Find the nodes that lead to what is wanted."""
        done: set[int] = set()
        stack: list[tuple[Node | AccumulateGrad, bool]] = [(s, False) for s in starts]
        while stack:
            node, after = stack.pop()
            if not isinstance(node, Node) or (not after and id(node) in done):
                continue
            done.add(id(node))
            targets = [edge[0] for edge in node.edges if edge is not None]
            if not after:
                stack.append((node, True))
                stack.extend((t, False) for t in targets)
            elif any(id(t) in self._ends or id(t) in self._on_the_way for t in targets):
                self._on_the_way.add(id(node))

    def runs(self, node: Node) -> bool:
        """Whether the node's kernel runs."""
        return not self.selects or id(node) in self._on_the_way

    def leads_on(self, target: Node | AccumulateGrad) -> bool:
        """Whether a gradient handed to ``target`` is used."""
        return not self.selects or id(target) in self._on_the_way or id(target) in self._ends

    def needs(self, node: Node) -> tuple[bool, ...]:
        """Which of its gradients a node computes."""
        if not self.selects or not node.edges:
            return node.needs
        return tuple(n and (e is None or self.leads_on(e[0])) for n, e in zip(node.needs, node.edges, strict=True))

    def capture(self, ledger: Ledger, target: Node | AccumulateGrad, gradients: Sequence[Value | None]) -> None:
        """Keep what of the gradients that reach ``target`` is wanted."""
        for i, (end, nr) in enumerate(self._wanted):
            if end is target and nr < len(gradients):
                gradient = gradients[nr]
                self.captured[i] = None if gradient is None else ledger.hold(gradient)
