"""Data that is too large, or not ours, to be kept beside the tests: read from a folder ``shared`` next to the checkout, or from the one
that MEMEST_SHARED names; where it is not there, what needs it is skipped."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("MEMEST_SHARED") or Path(__file__).parents[2] / "shared")


def shared(pattern: str) -> list[Path]:
    """The files that a pattern names; skips the test where there are none."""
    found = sorted(SHARED.glob(pattern))
    if not found:
        pytest.skip(f"no {pattern} in {SHARED}")
    return found
