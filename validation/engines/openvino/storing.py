"""Results as data: one compressed file of JSON lines. The first line says under what the rest was measured; then come the networks' graphs
as memest's files have them, and what was measured of each case."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[2] / "results" / "openvino"
SCHEMA = 1


def load() -> tuple[dict[str, Any], dict[str, str], list[dict[str, Any]]]:
    """Under what was measured, graphs by network, and records; empty where nothing is stored."""
    path = RESULTS / "results.jsonl.xz"
    if not path.exists():
        return {}, {}, []
    head, graphs, *records = (json.loads(line) for line in lzma.decompress(path.read_bytes()).decode().splitlines())
    return (head, graphs, records) if head["schema"] == SCHEMA else ({}, {}, [])


def store(head: dict[str, Any], graphs: dict[str, str], records: list[dict[str, Any]]) -> None:
    """Write all of it, or nothing."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    lines = [{"schema": SCHEMA, **head}, graphs, *records]
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    temporary = RESULTS / "results.tmp"
    temporary.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))
    temporary.replace(RESULTS / "results.jsonl.xz")
