"""The generated page of operators is that of the rows."""

from __future__ import annotations

from memest.ops.reference import PATH, reference
from memest.ops.table import COMPOSITES, OPERATORS


def test_reference_is_current() -> None:
    assert PATH.read_text(encoding="utf-8") == reference(), "stale: run python -m memest.ops.reference"


def test_every_operator_a_graph_may_name_stands_in_it() -> None:
    text = reference()
    for name in (*OPERATORS, *COMPOSITES):
        if not name.startswith("_"):
            assert f"| `{name}` |" in text
