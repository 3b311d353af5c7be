"""Pictures for the terminal: the step as a chart of characters, the live set as bars. Colours where they are allowed, letters where not."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from memest.estimate.estimate import Estimate
from memest.estimate.holdings import Tile, tiles_at_peak
from memest.estimate.series import Series, outline, series
from memest.render.layout import wrapped
from memest.render.lines import Line, cell_len, printed
from memest.render.palette import LETTERS, TERMINAL_COLOURS
from memest.render.reports import heading, highest, moment
from memest.shown import middle, visible
from memest.sizes.units import format_bytes

ROWS = 16
GUTTER = 13  # columns for the bytes at the left, the axis included
BAR = 0.4  # of the width, at most
NAME = 56  # columns of a bar's line that are not the bar: its bytes, its share and a name


def timeline(estimate: Estimate, *, width: int = 120, color: bool = False) -> str:
    """Categories stacked over the events: of each column its highest moment."""
    found = series(estimate)
    chosen = outline(found.totals, max(width - GUTTER - 1, 10), lows=False)
    where = max(i for i, m in enumerate(chosen) if m <= found.peak)
    lines = _title(estimate, f"{highest(estimate)}: {moment(estimate)}", width)
    stacks = [_stack(found, m) for m in chosen]
    for row in range(ROWS, 0, -1):
        label = format_bytes(found.peak_bytes * row // ROWS) if row in (ROWS, ROWS * 3 // 4, ROWS // 2, ROWS // 4) else ""
        line = Line(f"{label:>{GUTTER - 1}}|")
        for name, run in groupby(stack[row - 1] for stack in stacks):
            cell, style = _cell(name, color)
            line.append(cell * len(list(run)), style)
        lines.append(line)
    lines += [Line(" " * (GUTTER - 1) + "+" + "-" * len(chosen)), Line(_pointer(where, len(chosen)))]
    lines += [Line(" " * GUTTER + _phases(found, chosen)), Line()]
    lines += [_legend(name, column[found.peak], color) for name, column in reversed(tuple(found.categories.items()))]
    return printed(lines, color)


def treemap(estimate: Estimate, *, width: int = 120, color: bool = False, top: int = 30) -> str:
    """The live set at the peak as a list of bars: the categories, and the ``top`` largest owners."""
    tiles = sorted(tiles_at_peak(estimate), key=lambda t: -t.nbytes)
    totals = estimate.by_category()
    lines = _title(estimate, f"alive at the peak, {highest(estimate).removeprefix('peak ')}: {moment(estimate)}", width)
    groups = [Tile(nbytes=n, tensors=0, category=c, layer=c) for c, n in sorted(totals.items(), key=lambda item: -item[1])]
    for title, shown in (("by category", groups), (f"by owner: the {min(top, len(tiles))} largest of {len(tiles):,}", tiles[:top])):
        lines.append(Line(title, style="bold"))
        lines += [_bar(t, shown[0].nbytes, estimate.peak_bytes, width, color) for t in shown]
        lines.append(Line())
    return printed(lines[:-1], color)


def _title(estimate: Estimate, line: str, width: int) -> list[Line]:
    """What was asked, then ``line``."""
    asked = [Line(part, style="bold") for part in wrapped(visible(heading(estimate)), width)]
    return [*asked, *map(Line, wrapped(visible(line), width)), Line()]


def _stack(found: Series, at: int) -> list[str]:
    """The category at the middle of each row, from the bottom; empty above the total. The topmost row of the peak is never empty."""
    names: list[str] = []
    below = 0
    for name, column in found.categories.items():
        below += column[at]
        reached = (2 * ROWS * below + max(found.peak_bytes, 1)) // (2 * max(found.peak_bytes, 1))
        names += [name] * (reached - len(names))
    return names + [""] * (ROWS - len(names))


def _pointer(column: int, columns: int) -> str:
    """An arrow under the peak, its name on the side that has room."""
    at = GUTTER + column
    return f"{'peak ^':>{at + 1}}" if columns - column < 6 else " " * at + "^ peak"


def _cell(name: str, color: bool) -> tuple[str, str]:
    if not name:
        return " ", ""
    return ("█", TERMINAL_COLOURS[name]) if color else (LETTERS[name], "")


def _phases(found: Series, chosen: Sequence[int]) -> str:
    """Names of the phases under their columns, cut where a phase is narrow."""
    line = ""
    for span in found.phases:
        columns = sum(span.start <= m < span.stop for m in chosen)
        first = sum(m < span.start for m in chosen)
        line = line.ljust(first) + f"|{span.name}"[:columns]
    return line


def _legend(name: str, nbytes: int, color: bool) -> Line:
    line = Line("  ")
    line.append(*_cell(name, color))
    return line.append(f" {name:<16}{format_bytes(nbytes):>14} at the peak")


def _bar(tile: Tile, largest: int, peak: int, width: int, color: bool) -> Line:
    room = max(min(int(width * BAR), width - NAME), NAME // 5)
    line = Line(f"{format_bytes(tile.nbytes):>14} {tile.nbytes / peak:>6.1%} ")
    cell, style = _cell(tile.category, color)
    line.append(cell * max(1, round(room * tile.nbytes / largest)), style)
    return line.append(" ").append(middle(visible(tile.layer), width - line.cell_len - 1, cell_len))
