"""The origin's table: what each cell holds, measured or predicted, which servers hold it, and the published points beside it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

from validation.origin.cells import CELLS, FRAMEWORKS, SERVERS, Cell
from validation.origin.measuring import stored
from validation.origin.predicting import Predicted, predicted, predicted_at

HEAD = (
    "| framework | use | cube | batch | tensors | claim | process | claim | measured, steps 1 to 3 | smallest server |",
    "|---|---|---:|---:|---:|---|---:|---|---:|---|",
)
WIDTHS = (16, 24, 32, 48, 64)
DTYPES = ("float32", "bfloat16", "float64")
FIGURES = ("tensors", "process")
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
        whys.update({f"{row.cell.framework}: {f.reason}": None for f in row.predicted if f.bytes is None and row.cell.batch == 1})
    yield ""
    yield from (f"- no figure of {why}" for why in whys)
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
    for framework in FRAMEWORKS:
        found = predicted(Cell(framework, "train", 144, 8))
        for what, figure in zip(FIGURES, found, strict=True):
            if figure.bytes is not None:
                low, high = (f"{n / 2**20:,.0f}" for n in (figure.low or 0, figure.high or 0))
                yield f"- {framework}, {what}: {figure.bytes / 2**20:,.0f} MiB, {figure.claim}" + (
                    "" if low == high else f" ({low} to {high})"
                )
    yield (
        "- between them lie TensorFlow 1.11 and 2.21 (Keras 3 never fuses batch norm; Adam inside backward), oneDNN's releases, and the "
        "processor, whose L3 decides over Eigen's buffers: the figures are of today's versions"
    )


def terabyte() -> Iterator[str]:
    """Which widths and dtypes bring 240x240x144 at batch 16 to a little less than a terabyte: computed, fitted to nothing."""
    yield 'Published: 240x240x144, batch 16, "a little less than 1 TB", base width and dtype not stated (arXiv 2003.08732).'
    for framework, width, dtype in product(FRAMEWORKS, WIDTHS, DTYPES):
        found = predicted_at((16, 1, 240, 240, 144), framework, base_filters=width, dtype=dtype)
        told = [f"{what} {_shown(f)}, {f.bytes / TERABYTE:.2f} TB" for what, f in zip(FIGURES, found, strict=True) if f.bytes is not None]
        near = any(f.low is not None and f.high is not None and f.low < TERABYTE and f.high >= A_LITTLE_LESS * TERABYTE for f in found)
        known = "; ".join(told) or found.allocated.reason
        yield f"- {framework}, base width {width}, {dtype}: {known}{': a little less than 1 TB lies within it' if near else ''}"
