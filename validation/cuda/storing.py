"""Results of CUDA as data: one compressed file of JSON lines for each oracle, card, release of torch and group of cases.

The first line says under what the rest was measured; every other is one case. Streams are lists of bytes asked for, releases negative.
"""

from __future__ import annotations

import json
import lzma
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent.parent / "results" / "cuda"
SCHEMA = 1


def folder_of(head: dict[str, Any]) -> Path:
    """Where results with such labels lie, e.g. ``stand-in-h100-80gb-torch-2.14``."""
    release = re.match(r"\d+\.\d+", head["torch"])
    assert release is not None, head["torch"]
    return RESULTS / f"{head['oracle']}-{head['card']}-torch-{release[0]}"


def store(group: str, head: dict[str, Any], records: Iterable[dict[str, Any]]) -> Path:
    """Write a group's results (the whole file or none)."""
    path = folder_of(head) / f"{group}.jsonl.xz"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(r, separators=(",", ":")) for r in ({"schema": SCHEMA, **head}, *records)]
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(lzma.compress("".join(f"{line}\n" for line in lines).encode(), preset=9 | lzma.PRESET_EXTREME))
    temporary.replace(path)
    return path


def load(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The labels and the results of a file."""
    head, *records = (json.loads(line) for line in lzma.decompress(path.read_bytes()).decode().splitlines())
    return head, records


def stored(group: str) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """The labels and results of a group, by folder; files of another schema are left out."""
    for path in sorted(RESULTS.glob(f"*/{group}.jsonl.xz")):
        head, records = load(path)
        if head["schema"] == SCHEMA:
            yield head, records
