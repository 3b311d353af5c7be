"""The reference page of all operators, written from their rows: ``python -m memest.ops.reference`` writes REFERENCE.md anew."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from memest.ops.composite import Composite
from memest.ops.operator import REQUIRED, Attribute, Operator
from memest.ops.table import FAMILIES, family_name

PATH = Path(__file__).parent / "REFERENCE.md"
Row = Operator | Composite
HEAD = """# Operators

Written from the rows by `python -m memest.ops.reference`; a test fails when it is stale. Roles are the tensors of a call, in order:
`?` may be absent, `*` is a list. *Keeps* is what autograd may hold until backward has run, by role; which of it is kept depends on the
attributes and on whose gradient is wanted. A composite is made of rows and keeps what they keep. *Facts* begin with how far a position of
the output sees along spatial dims. Then, where there is something to tell: what autocast casts to; what a call in place keeps (or that
torch.nn has no flag for it, only torch.Tensor a method); that products are counted, two operations a multiply-add, and not one operation
an element; whose mean and variance it takes.
"""


def reference() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(line for family in FAMILIES for line in _family(family))])


def _family(family: Any) -> Iterator[str]:
    rows, composites = shown(family.ROWS), shown(family.COMPOSITE_ROWS)
    yield f"## {family_name(family)}\n"
    yield " ".join((family.__doc__ or "").split()) + "\n"
    if rows:
        yield from _table(("operator", "roles", "attributes", "keeps", "facts", "source"), rows, _row)
    if composites:
        yield from _table(("composite", "roles", "attributes", "facts", "source"), composites, _composite)


def shown(rows: Iterable[Any]) -> list[Any]:
    """The rows a graph may name: those with a leading underscore are parts of composites."""
    return [row for row in rows if not row.name.startswith("_")]


def _table(head: Sequence[str], rows: Sequence[Any], cells: Callable[[Any], Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells(row))} |"
    yield ""


def _row(row: Operator) -> tuple[str, ...]:
    keeps = ", ".join(row.saves) if row.saves else "nothing"
    kept = "no gradient" if row.backward is None else keeps
    return f"`{row.name}`", _roles(row), _attributes(row.attributes), kept, row.facts.text, _source(row)


def _composite(row: Composite) -> tuple[str, ...]:
    return f"`{row.name}`", _roles(row), _attributes(row.attributes), row.facts.text, _source(row)


def _roles(row: Row) -> str:
    return ", ".join(row.roles) or "none"


def _attributes(attributes: Sequence[Attribute]) -> str:
    return ", ".join(f"`{a.name}`" if a.default is REQUIRED else f"`{a.name}={_written(a.default)}`" for a in attributes) or "none"


def _written(value: Any) -> str:
    """A default as a graph file has it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(list(value)) if isinstance(value, tuple) else str(value)


def _source(row: Row) -> str:
    return " ".join(row.source.split())


if __name__ == "__main__":
    PATH.write_text(reference(), encoding="utf-8")
