"""``tensor.data = value``: whoever held the tensor holds the other's memory from now on, and what autograd kept of it goes along.

Source: torch/csrc/autograd/variable.cpp (set_data changes the tensor itself), saved_variable.cpp (a leaf, and an input that is not the
node's own result, is kept as the tensor itself; a result as another tensor on its memory).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from memest.memory.stream import Storage
from memest.runtimes.torch.autograd.nodes import Node
from memest.runtimes.torch.ledger import Ledger, Value


def follow(ledger: Ledger, value: Value, old: Storage, values: Iterable[Value]) -> None:
    """What nodes behind ``values`` keep of the tensor ``value``, which had the memory ``old``, is its new memory."""
    for node in _behind(values):
        kept = node.saved
        for number, storage in enumerate(kept.storages):
            if storage is old and kept.version(number) is value.version and value.node is not node:
                kept.storages[number] = value.storage
                value.storage.refs += 1
                ledger.let_go_storage(old)


def _behind(values: Iterable[Value]) -> Iterator[Node]:
    """All nodes that lead to ``values``, each once."""
    stack: list[object] = [value.node for value in values]
    seen: set[int] = set()
    while stack:
        node = stack.pop()
        if isinstance(node, Node) and id(node) not in seen:
            seen.add(id(node))
            stack += [edge[0] for edge in node.edges if edge is not None]
            yield node
