"""The log of TensorFlow's tensors (``TF_CPP_VMODULE=log_memory=2``): events in order, and the nodes in the order in which they ran."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

LINE = re.compile(r"__LOG_MEMORY__ MemoryLogTensor(\w+) \{ (.*)")
NAME, IDENT, BYTES, DTYPE = (
    re.compile(p) for p in (r'kernel_name: "([^"]*)"', r"allocation_id: (\d+)", r"requested_bytes: (\d+)", r"dtype: (\w+)")
)


class Logged(NamedTuple):
    """``+`` a tensor is allocated, ``-`` given back, ``o`` a node gives it."""

    kind: str
    ident: str
    nbytes: int
    name: str
    dtype: str


KINDS = {"Allocation": "+", "Deallocation": "-", "Output": "o"}


def events(path: Path) -> Iterator[tuple[str, Logged | None]]:
    """Marks as (text, None), and events."""
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith("#MARK "):
                yield line[6:].strip(), None
                continue
            found = LINE.search(line)
            if found is not None and found[1] in KINDS:
                text = found[2]
                nbytes = int(_group(BYTES, text) or 0)
                yield "", Logged(KINDS[found[1]], _group(IDENT, text), nbytes, _group(NAME, text), _group(DTYPE, text))


def _group(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found[1] if found else ""


def step_of(path: Path, step: int) -> dict[str, Any]:
    """A step of the log: the nodes in the order of their first event, the tensors allocated (name and bytes), and the most bytes above its
    beginning. What was freed of the step before, before the first node runs, does not count."""
    sizes: dict[str, int] = {}
    order: dict[str, None] = {}
    tensors: list[tuple[str, int, str]] = []
    live = most = 0
    inside = started = False
    for mark, event in events(path):
        if event is None:
            inside = mark == f"begin {step}" if mark.startswith("begin") else inside and mark != f"end {step}"
            continue
        if event.kind != "-" and event.ident and event.nbytes:
            sizes[event.ident] = max(event.nbytes, sizes.get(event.ident, 0))
        if not inside:
            continue
        started = started or event.kind != "-"
        if event.kind in "+o" and event.name:
            order.setdefault(event.name)
        if event.kind == "+" and event.nbytes:
            tensors.append((event.name, event.nbytes, event.dtype))
            live += event.nbytes
            most = max(most, live)
        elif event.kind == "-" and started:
            live -= sizes.get(event.ident, 0)
    return {"order": list(order), "tensors": tensors, "peak": most}
