"""One file for each library; a record is a network: its graph as memest recorded it (or why it did not), and what torch took in a step of
training and in one of inference."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from validation import stored

RESULTS = Path(__file__).parent.parent / "results" / "libraries"


def store(library: str, head: dict[str, Any], records: Iterable[dict[str, Any]]) -> None:
    """Write a library's results."""
    stored.store(_file_of(library), head, records)


def load(library: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Under what a library was measured, and its results."""
    return stored.load(_file_of(library))


def _file_of(library: str) -> Path:
    return RESULTS / f"{library}.jsonl.xz"
