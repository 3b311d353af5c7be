"""What a process held while it did something: the highest resident set, of each time apart."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

TIMES = 3


def print_steps(step: Callable[[], Any], versions: str) -> None:
    """Do it some times, and print one line of JSON: bytes resident before, and the most in each."""
    gc.collect()
    before = _field("VmRSS")
    most = []
    for _ in range(TIMES):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the highest resident set begins anew
        step()
        most.append(_field("VmHWM"))
    print(json.dumps({"versions": versions, "before_bytes": before, "peaks_bytes": most}), flush=True)


def _field(name: str) -> int:
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith(f"{name}:"))) * 1024
