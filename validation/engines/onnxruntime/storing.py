"""Results as data: one compressed file of JSON lines for each engine. The first line says under what the rest was measured; each other is a
network at one shape: its graph as memest reads it from the ONNX file, and what the engine asked for, took and held.

``python -m validation.engines.onnxruntime.storing ENGINE RELEASE MEASURED.jsonl FOLDER``: graphs are read from the folder's files.
"""

from __future__ import annotations

import argparse
import json
import lzma
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[2] / "results" / "engines"
SCHEMA = 1


def file_of(engine: str) -> Path:
    """Where an engine's results lie."""
    return RESULTS / f"{engine}.jsonl.xz"


def store(engine: str, head: dict[str, Any], records: Iterable[dict[str, Any]]) -> None:
    """Write an engine's results (the whole file or none)."""
    path = file_of(engine)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(r, separators=(",", ":")) for r in ({"schema": SCHEMA, **head}, *records)]
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(lzma.compress("".join(f"{line}\n" for line in lines).encode(), preset=9 | lzma.PRESET_EXTREME))
    temporary.replace(path)


def load(engine: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Under what an engine was measured (nothing, where no result of this schema is stored), and its results."""
    path = file_of(engine)
    if not path.exists():
        return {}, []
    head, *records = (json.loads(line) for line in lzma.decompress(path.read_bytes()).decode().splitlines())
    return (head, records) if head["schema"] == SCHEMA else ({}, [])


def main() -> int:
    """Join what was measured with the graphs."""
    import memest

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine")
    parser.add_argument("release")
    parser.add_argument("measured", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--isa", default="avx512")
    given = parser.parse_args()
    graphs: dict[str, str] = {}
    records = [json.loads(line) for line in given.measured.read_text(encoding="utf-8").splitlines()]
    for record in records:
        case = record["case"]
        if case not in graphs:
            graphs[case] = memest.dumps(memest.from_onnx(given.folder / f"{case}.onnx"))
            record["graph"] = graphs[case]
    store(given.engine, {"release": given.release, "isa": given.isa}, sorted(records, key=lambda r: (r["case"], "graph" not in r)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
