"""Custom functions: the node that one hangs behind what it gives, and what that keeps.

Source: torch/csrc/autograd/python_function.cpp (_wrap_outputs, _save_variables, unpack_saved_variables).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from memest.runtimes.torch.autograd.nodes import FUNCTION, PASS, History, Node
from memest.runtimes.torch.autograd.recording import Recorder
from memest.runtimes.torch.autograd.saving import EndOfRecomputation, PackedHolder, Stamp
from memest.runtimes.torch.autograd.views import BY_FUNCTION
from memest.runtimes.torch.ledger import Value

Body = Callable[[Node, list[Value | None]], list[Value | None]]


class Functions(Recorder):
    """Puts nodes behind tensors whose backward is no row's."""

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
        number: int | None = None,
    ) -> None:
        """A custom function has run forward: ``outputs`` (those that are ``differentiable``) hang behind a node of its own, which keeps
        ``saved`` until it has run backward and ``context`` until it dies; ``body`` is its backward, which ``unpacks`` the saved ones. The
        node's ``number`` is of before its forward, where that made others."""
        if self.keeping.ends() and saved:
            self.keeping.pack([v.storage for v in saved], [False] * len(saved)).release(self.ledger)
            raise EndOfRecomputation(ran=True)
        for v in inputs:
            self.renew(v)
        node = Node(
            next(self.numbers) if number is None else number, FUNCTION, self.ledger.layer, (), tuple(v.requires_grad for v in inputs)
        )
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
