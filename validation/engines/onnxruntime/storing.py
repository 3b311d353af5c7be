"""One file for an engine; a record is a network at one shape: its graph as memest reads it from the ONNX file, and what the engine asked
for, took and held.

``python -m validation.engines.onnxruntime.storing ENGINE RELEASE MEASURED.jsonl FOLDER``: graphs are read from the folder's files.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from validation import stored

RESULTS = Path(__file__).parents[2] / "results" / "engines"


def load(engine: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Under what an engine was measured, and its results."""
    return stored.load(_file_of(engine))


def _file_of(engine: str) -> Path:
    return RESULTS / f"{engine}.jsonl.xz"


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
    stored.store(
        _file_of(given.engine), {"release": given.release, "isa": given.isa}, sorted(records, key=lambda r: (r["case"], "graph" not in r))
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
