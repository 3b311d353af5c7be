"""One file: what was measured on, the names of nodes, networks' configurations by name and shape, then a record a case."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from validation import stored

RESULTS = Path(__file__).parents[2] / "results" / "tensorflow" / "results.jsonl.xz"


def load() -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    """Under what was measured, configurations by network, and records; empty where nothing is stored."""
    head, records = stored.load(RESULTS)
    if not head:
        return {}, {}, []
    names: list[str] = head.pop("names")
    for record in records[1:]:
        record["order"] = [names[n] for n in record["order"]]
        record["tensors"] = [(names[n], nbytes, dtype) for n, nbytes, dtype in record["tensors"]]
    return head, records[0], records[1:]


def store(head: dict[str, Any], configs: dict[str, Any], records: list[dict[str, Any]]) -> None:
    """Write all of it, or nothing."""
    numbers: dict[str, int] = {}
    packed = []
    for record in records:
        order = [numbers.setdefault(name, len(numbers)) for name in record["order"]]
        tensors = [[numbers.setdefault(name, len(numbers)), nbytes, dtype] for name, nbytes, dtype in record["tensors"]]
        packed.append({**record, "order": order, "tensors": tensors})
    stored.store(RESULTS, {**head, "names": list(numbers)}, [configs, *packed])
