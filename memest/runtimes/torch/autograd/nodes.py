"""The nodes of the graph that backward walks."""

from __future__ import annotations

from collections.abc import Callable

from memest.errors import UnsupportedError
from memest.network.tensor import Spec
from memest.ops.operator import Operator
from memest.ops.reading import Items as Items
from memest.ops.tape import Trace
from memest.runtimes.torch.autograd.saving import Holder
from memest.runtimes.torch.ledger import Ledger, Value

History = tuple["Node | AccumulateGrad", int]
"""Where a tensor hangs."""
AS_STRIDED, COPY_SLICES, PASS, FUNCTION = "AsStridedBackward", "CopySlices", "Pass", "Function"  # names no row has


class AccumulateGrad:
    """The leaf node of a parameter (or of an input whose gradient is wanted): the end of a gradient's way. A ``mortal`` leaf was made in
    the step: the nodes that lead to it keep its tensor alive, and ``died`` is called when it is gone. ``changes`` are hooks that get the
    gradient that comes, ``after`` those that run when it is there."""

    __slots__ = ("after", "buffer", "changes", "died", "mortal", "name", "refs", "value", "waiting")

    def __init__(self, value: Value, name: str, *, mortal: bool = False, died: Callable[[], None] | None = None) -> None:
        self.value = value
        self.name = name
        self.waiting = 0
        self.buffer: Value | None = None
        self.mortal = mortal
        self.died = died
        self.refs = 0
        self.changes: list[Callable[[Value], Value]] = []
        self.after: list[Callable[[], None]] = []

    def join(self, ledger: Ledger) -> None:
        """A node leads here."""
        if self.mortal:
            self.refs += 1
            if self.refs == 1:
                ledger.hold(self.value)

    def leave(self, ledger: Ledger) -> None:
        """A node that led here is gone."""
        if self.mortal:
            self.refs -= 1
            if self.refs == 0:
                ledger.let_go(self.value)

    def drop(self, ledger: Ledger) -> None:
        """The tensor is gone; a leaf saves nothing."""
        if self.died is not None:
            self.died()


class Node:
    """One differentiable call: what it kept, and where the gradients of its inputs go. The engine's own nodes have no row. One that
    ``unpacks`` asks for what it saved whenever it runs, whatever gradients come; a custom function may not."""

    __slots__ = (
        "attributes",
        "before",
        "body",
        "buffer",
        "captured",
        "context",
        "edges",
        "histories",
        "inner",
        "layer",
        "needs",
        "notes",
        "on_gradient",
        "op",
        "out_specs",
        "refs",
        "row",
        "saved",
        "saved_specs",
        "sequence",
        "trace",
        "unpacks",
        "waiting",
    )

    def __init__(self, sequence: int, op: str, layer: str, attributes: Items, needs: tuple[bool, ...], row: Operator | None = None) -> None:
        self.sequence = sequence
        self.op = op
        self.row = row
        self.layer = layer
        self.attributes = attributes
        self.needs = needs
        self.saved = Holder([])
        self.saved_specs: tuple[tuple[str, Spec], ...] = ()
        self.histories: tuple[History | None, ...] = ()
        self.notes: Items = ()
        self.trace: Trace | None = None
        self.edges: list[tuple[Node | AccumulateGrad, int] | None] = []
        self.out_specs: list[Spec] = []
        self.waiting = 0
        self.buffer: list[Value | None] = []
        self.refs = 0
        self.inner: Node | None = None
        self.before: list[Callable[[], None]] = []
        self.unpacks = True
        self.body: Callable[[Node, list[Value | None]], list[Value | None]] | None = None
        self.context: list[Value] = []
        self.captured: list[Value] = []
        self.on_gradient: dict[int, list[Callable[[Value], Value]]] = {}

    def join(self, ledger: Ledger) -> None:
        """A node leads here."""
        self.refs += 1

    def leave(self, ledger: Ledger) -> None:
        """A node that led here is gone."""
        self.drop(ledger)

    def drop(self, ledger: Ledger) -> None:
        """One holder (a value, or a node that leads here) less; without any the node dies, and all that only it leads to."""
        stack = [self]
        while stack:
            node = stack.pop()
            node.refs -= 1
            if node.refs:
                continue
            if node.saved.circle:
                raise UnsupportedError(
                    f"hooks of saved tensors that keep the output of {node.op} ({node.layer}) itself, where its backward never runs: torch"
                    " never lets go of it then; let them keep a copy, and run no checkpoint around them"
                )
            node.saved.release(ledger)
            for value in (*node.context, *node.captured):
                ledger.let_go(value)
            for edge in node.edges:
                if edge is None:
                    continue
                if isinstance(edge[0], Node):
                    stack.append(edge[0])
                else:
                    edge[0].leave(ledger)


def with_history(value: Value, history: History | None) -> Value:
    """A saved tensor as it is unpacked: with the history that it was saved with. A leaf is itself."""
    if history is None:
        return value
    node, nr = history
    if isinstance(node, AccumulateGrad):
        return node.value if node.value.spec == value.spec and node.value.storage is value.storage else value
    node.refs += 1
    value.node, value.output_nr, value.requires_grad = node, nr, True
    return value


def keeps(value: Value) -> bool:
    """Whether the graph behind a tensor keeps anything for a backward that did not come."""
    seen: set[int] = set()
    stack: list[object] = [value.node]
    while stack:
        node = stack.pop()
        if isinstance(node, Node) and id(node) not in seen:
            seen.add(id(node))
            if node.saved.storages or node.context or node.captured:
                return True
            stack.extend(edge[0] for edge in node.edges if edge is not None)
    return False
