"""Every example of every row of the table, run on CUDA: the stream of a call and, where it is differentiable, of its backward pass.

Each is measured from a clean allocator, in float32 and with its float32 tensors in float64, float16 and bfloat16. The workspaces of cuBLAS
are there before the recorded call, whose stream does not hold them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from memest.ops.composite import Composite
from memest.ops.operator import Example, Operator
from memest.ops.table import COMPOSITES, OPERATORS
from validation.rows import measure, recast

DTYPES = ("float32", "float64", "float16", "bfloat16")

Row = Operator | Composite


def examples() -> Iterator[tuple[str, Row, Example]]:
    """Every example in every dtype, under the name ``row/number/dtype``."""
    for row in (*OPERATORS.values(), *COMPOSITES.values()):
        for number, example in enumerate(row.examples):
            for dtype in DTYPES:
                if dtype == "float32" or recast(example, dtype) != example:
                    yield f"{row.name}/{number}/{dtype}", row, recast(example, dtype)


def measure_rows(only: str = "") -> Iterator[dict[str, Any]]:
    """What torch asks for in each example (``deltas``), or the ``error`` with which it refuses it."""
    from validation.cuda.recording import clean, record, start

    start()
    for name, row, example in examples():
        if only not in name:
            continue
        found: dict[str, Any] = {"case": name, "example": described(example)}
        try:
            clean()
            found["deltas"] = [e.delta for e in measure(row, example, device="cuda", record=record)]
        except Exception as error:
            found["error"] = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
        yield found


def described(example: Example) -> list[Any]:
    """All of an example, for telling whether it is still the one that was measured."""
    return [repr(example.shapes), repr(sorted(example.attributes.items())), list(example.dtypes), example.layout, list(example.frozen)]
