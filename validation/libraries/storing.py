"""Results as data: one compressed file of JSON lines for each library. The first line says under what the rest was measured; every other is
one network: its graph as memest recorded it (or why it did not), and what torch took in a step of training and in one of inference."""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent.parent / "results" / "libraries"
SCHEMA = 1


def file_of(library: str) -> Path:
    """Where a library's results lie."""
    return RESULTS / f"{library}.jsonl.xz"


def store(library: str, head: dict[str, Any], records: Iterable[dict[str, Any]]) -> None:
    """Write a library's results (the whole file or none)."""
    path = file_of(library)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(r, separators=(",", ":")) for r in ({"schema": SCHEMA, **head}, *records)]
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(lzma.compress("".join(f"{line}\n" for line in lines).encode(), preset=9 | lzma.PRESET_EXTREME))
    temporary.replace(path)


def load(library: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Under what a library was measured (nothing, where no result of this schema is stored), and its results."""
    path = file_of(library)
    if not path.exists():
        return {}, []
    head, *records = (json.loads(line) for line in lzma.decompress(path.read_bytes()).decode().splitlines())
    return (head, records) if head["schema"] == SCHEMA else ({}, [])
