"""Results as data: compressed files of JSON lines. The first line says under what the rest was measured."""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SCHEMA = 1


def store(path: Path, head: dict[str, Any], records: Iterable[dict[str, Any]]) -> None:
    """Write the whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(r, separators=(",", ":")) for r in ({"schema": SCHEMA, **head}, *records)]
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(lzma.compress("".join(f"{line}\n" for line in lines).encode(), preset=9 | lzma.PRESET_EXTREME))
    temporary.replace(path)


def load(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Under what was measured (nothing, where there is no file of this schema), and the records."""
    if not path.exists():
        return {}, []
    head, *records = (json.loads(line) for line in lzma.decompress(path.read_bytes()).decode().splitlines())
    return (head, records) if head["schema"] == SCHEMA else ({}, [])
