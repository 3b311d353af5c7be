"""The origin's table: what each cell holds, measured or predicted, which servers hold it, and the published points beside it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any, NamedTuple

import memest
from memest.errors import MemestError
from memest.sizes.units import format_bytes
from validation.origin.cells import CELLS, LOSS, MODEL, OPTIMIZER, SERVERS, Cell
from validation.origin.measuring import stored
from validation.origin.predicting import Predicted, predicted

HEAD = (
    "| framework | use | cube | batch | tensors | claim | process | claim | measured, steps 1 to 3 | smallest server |",
    "|---|---|---:|---:|---:|---|---:|---|---:|---|",
)
WIDTHS = (16, 24, 32, 48, 64)
DTYPES = ("float32", "bfloat16", "float64")
TERABYTE = 1e12
A_LITTLE_LESS = 0.9
"""Of a terabyte, from which on it is called a little less than that."""


class Row(NamedTuple):
    """A cell with what is predicted of it and what was measured (None: nothing)."""

    cell: Cell
    predicted: Predicted
    measured: dict[str, Any] | None

    @property
    def most(self) -> int | None:
        """What a server has to hold: what was measured, else the most that is predicted of the process, else the tensors."""
        if self.measured is not None:
            return max(self.measured["peaks_bytes"])
        known = [figure.high for figure in (self.predicted.process, self.predicted.allocated) if figure.high is not None]
        return known[0] if known else None


def rows() -> Iterator[Row]:
    """All cells."""
    measured = stored()
    return (Row(cell, predicted(cell), measured.get(cell.name)) for cell in CELLS)


def lines() -> Iterator[str]:
    """The whole page as Markdown."""
    yield from HEAD
    whys: dict[str, None] = {}
    for row in rows():
        yield _line(row)
        whys.update({f.reason: None for f in row.predicted if f.bytes is None and f.reason})
    yield ""
    yield from (f"- no figure: {why}" for why in whys)
    yield ""
    yield from published()
    yield ""
    yield from terabyte()


def _line(row: Row) -> str:
    cell, (allocated, process) = row.cell, row.predicted
    steps = " / ".join(f"{n / 2**20:,.0f}" for n in row.measured["peaks_bytes"]) + " MiB" if row.measured else ""
    server = next((name for name, most in SERVERS.items() if row.most is not None and row.most <= most), "none" if row.most else "")
    figures = (_shown(allocated), allocated.claim, _shown(process), process.claim)
    return f"| {' | '.join(map(str, (cell.framework, cell.mode, cell.side, cell.batch, *figures, steps, server)))} |"


def _shown(figure: Any) -> str:
    if figure.bytes is None:
        return ""
    ends = "" if figure.low == figure.high else f" ({figure.low / 2**30:,.2f} to {figure.high / 2**30:,.2f})"
    return f"{figure.bytes / 2**30:,.2f} GiB{ends}"


def published() -> Iterator[str]:
    """The point that IntelAI/unet published beside ours."""
    yield "Published: 144x144x144, batch 8, 16 filters, Adam, Keras on TensorFlow 1.11 (CPU): just under 44,000 MiB resident at the peak."
    for framework, group in groupby(
        (r for r in rows() if (r.cell.side, r.cell.batch, r.cell.mode) == (144, 8, "train")), lambda r: r.cell.framework
    ):
        for row in group:
            for what, figure in zip(("tensors", "process"), row.predicted, strict=True):
                if figure.bytes is not None:
                    yield f"- {framework}, {what}: {figure.bytes / 2**20:,.0f} MiB, {figure.claim}"
    yield (
        "- between them lie TensorFlow 1.11 and 2.21 (Keras 3 never fuses batch norm; Adam inside backward), oneDNN's releases, and the "
        "processor, whose L3 decides over Eigen's buffers: the figures are of today's versions"
    )


def terabyte() -> Iterator[str]:
    """Which widths and dtypes bring 240x240x144 at batch 16 to a little less than a terabyte: computed, fitted to nothing."""
    yield 'Published: 240x240x144, batch 16, "a little less than 1 TB", base width and dtype not stated (arXiv 2003.08732).'
    yield "Tensors of torch's step:"
    for width in WIDTHS:
        for dtype in DTYPES:
            try:
                found = memest.estimate(
                    memest.model(MODEL, base_filters=width), input_shape=(16, 1, 240, 240, 144), optimizer=OPTIMIZER, loss=LOSS, dtype=dtype
                )
            except MemestError as e:
                yield f"- base width {width}, {dtype}: {e}"
                continue
            share = found.peak_bytes / TERABYTE
            near = ": a little less than 1 TB" if A_LITTLE_LESS <= share < 1 else ""
            yield f"- base width {width}, {dtype}: {format_bytes(found.peak_bytes)}, {share:.2f} TB{near}"
