"""Every example of every row of the table, run on CUDA: the stream of a call and, where it is differentiable, of its backward pass.

Each is measured from a clean allocator, in float32 and with its float32 tensors in float64, float16 and bfloat16. The workspaces of cuBLAS
are there before the recorded call, whose stream does not hold them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from memest.errors import MemestError
from memest.machines.target import Target
from memest.ops.composite import Composite
from memest.ops.operator import Example, Operator
from memest.ops.table import COMPOSITES, OPERATORS
from validation.cuda.sure import expected
from validation.rows import measure, normalized, predict_events, recast

DTYPES = ("float32", "float64", "float16", "bfloat16")

Row = Operator | Composite


ELSEWHERE = frozenset({"to_device", "copy_across_"})
"""Rows between the host and the card, whose calls are held in networks (tests/data/on_host.json)."""


def examples() -> Iterator[tuple[str, Row, Example]]:
    """Every example in every dtype, under the name ``row/number/dtype``."""
    every: dict[str, Row] = {**OPERATORS, **COMPOSITES}
    for name, row in every.items():
        if name in ELSEWHERE:
            continue
        for number, example in enumerate(row.examples):
            for dtype in DTYPES:
                if dtype == "float32" or recast(example, dtype) != example:
                    yield f"{name}/{number}/{dtype}", row, recast(example, dtype)


def described(example: Example) -> list[Any]:
    """All of an example, for telling whether it is still the one that was measured."""
    return [repr(example.shapes), repr(sorted(example.attributes.items())), list(example.dtypes), example.layout, list(example.frozen)]


def measure_rows(wanted: Callable[[str], bool]) -> Iterator[dict[str, Any]]:
    """What torch asks for in each example (``deltas``), or the ``error`` with which it refuses it."""
    from validation.cuda.recording import clean, record, start

    start()
    for name, row, example in examples():
        if not wanted(name):
            continue
        found: dict[str, Any] = {"case": name, "example": described(example)}
        try:
            clean()
            found["deltas"] = [e.delta for e in measure(row, example, device="cuda", record=record)]
        except Exception as error:  # whatever torch refuses a dtype or a device with
            found["error"] = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
        yield found


@dataclass(frozen=True)
class Checked:
    """One example: what was measured and what is predicted; why not, where it is not."""

    name: str
    measured: list[int]
    predicted: list[int] | None
    refused: str = ""

    @property
    def equal(self) -> bool:
        """Releases between two allocations taken as one moment."""
        return self.predicted is not None and normalized(self.predicted) == normalized(self.measured)


def check_rows(target: Target, records: list[dict[str, Any]], only: str = "") -> Iterator[Checked]:
    """Each measured example that still stands as it was, predicted; those that torch refuses are left out."""
    from memest.runtimes.torch.cuda.rows import ROWS

    now = {name: (row, example) for name, row, example in examples()}
    for record in records:
        row, example = now.get(record["case"], (None, None))
        if row is None or example is None or only not in record["case"] or "error" in record or record["example"] != described(example):
            continue
        try:
            yield Checked(
                record["case"], record["deltas"], [e.delta for e in expected(predict_events(ROWS[row.name], example, target, rows=ROWS))]
            )
        except MemestError as error:
            yield Checked(record["case"], record["deltas"], None, str(error))
