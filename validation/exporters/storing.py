"""One file: of each network the graph that torch's module gives, and what each exporter writes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from validation import stored

RESULTS = Path(__file__).parents[1] / "results" / "exporters" / "files.jsonl.xz"


def load() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The releases that wrote them, and the networks."""
    return stored.load(RESULTS)


def store(head: dict[str, Any], records: list[dict[str, Any]]) -> None:
    """Write all of it."""
    stored.store(RESULTS, head, records)
