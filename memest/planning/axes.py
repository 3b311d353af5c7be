"""The sizes of a graph by the names users know them by."""

from __future__ import annotations

from collections.abc import Sequence

from memest.errors import UsageError, did_you_mean
from memest.network.graph import Graph
from memest.sizes.conditions import reduced
from memest.sizes.dims import Expr


def symbols_in_order(graph: Graph) -> list[str]:
    """The symbols in the dims of the inputs, in the order of their first appearance."""
    found: dict[str, None] = {}
    for i in graph.inputs:
        for d in i.shape:
            if isinstance(d, Expr):
                found.update(dict.fromkeys([d.args[0]] if d.op == "symbol" else sorted(d.symbols())))
    return list(found)


def batch_symbol(graph: Graph) -> str | None:
    """The symbol that is the first dim of the first input; None where it is a number."""
    first = graph.inputs[0].shape[:1]
    return str(first[0].args[0]) if first and isinstance(first[0], Expr) and first[0].op == "symbol" else None


def pinned_sizes(graph: Graph) -> dict[str, int]:
    """The symbols that can have a single value, as a position embedding's size demands."""
    conditions = reduced(graph.guards, symbols_in_order(graph))
    return {s: n for s, n in conditions.least.items() if conditions.most.get(s) == n}


def groups_of(graph: Graph, texts: Sequence[str]) -> list[tuple[str, ...]]:
    """``batch``, ``H`` or ``H=W=D`` as the symbols that vary together; UsageError for an unknown name or one given twice."""
    known, first = symbols_in_order(graph), batch_symbol(graph)
    groups: list[tuple[str, ...]] = []
    for text in texts:
        names = [name.strip() for name in text.split("=")]
        group = [first if name == "batch" and first is not None else name for name in names]
        for name in group:
            if name not in known:
                choices = ["batch" if s == first else s for s in known]
                raise UsageError(f"vary {text!r}: the graph has no size {name!r}{did_you_mean(name, choices)}; it has {', '.join(choices)}")
        groups.append(tuple(group))
    flat = [s for group in groups for s in group]
    if not flat or len(set(flat)) < len(flat):
        raise UsageError("vary: name each size once, such as batch, H=W or batch,H=W=D")
    return groups
