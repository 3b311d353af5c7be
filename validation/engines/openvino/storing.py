"""One file: the networks' graphs as memest's files have them, then what was measured of each case."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from validation import stored

RESULTS = Path(__file__).parents[2] / "results" / "openvino" / "results.jsonl.xz"


def load() -> tuple[dict[str, Any], dict[str, str], list[dict[str, Any]]]:
    """Under what was measured, graphs by network, and records; empty where nothing is stored."""
    head, records = stored.load(RESULTS)
    return (head, records[0], records[1:]) if head else ({}, {}, [])


def store(head: dict[str, Any], graphs: dict[str, str], records: list[dict[str, Any]]) -> None:
    """Write all of it, or nothing."""
    stored.store(RESULTS, head, [graphs, *records])
