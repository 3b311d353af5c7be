"""``python -m validation.exporters [NAME]``: writes the networks that have no file yet, or all whose name contains NAME."""

from __future__ import annotations

import gc
import sys
from importlib.metadata import version

from validation.exporters.networks import networks
from validation.exporters.storing import load, store
from validation.exporters.writing import EXPORTERS, recorded, written

AT_ONCE = 8
TOLD = ("torch", "onnx", "onnxscript")


def main(only: str = "") -> int:
    """0 when all is written."""
    _, records = load()
    kept = {r["network"]: r for r in records}
    head = {name: version(name) for name in TOLD}
    todo = [s for s in networks() if (only in s.name if only else f"{s.library} {s.name}" not in kept)]
    for n, subject in enumerate(todo, 1):
        key = f"{subject.library} {subject.name}"
        kept[key] = {"network": key, **recorded(subject), "files": {exporter: written(subject, exporter) for exporter in EXPORTERS}}
        print(key, {k: v.get("failed", "written") for k, v in kept[key]["files"].items()}, flush=True)
        gc.collect()
        if n % AT_ONCE == 0 or n == len(todo):
            store(head, list(kept.values()))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
