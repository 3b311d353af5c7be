"""A plan in the terminal: events to the right, addresses up, a letter or a colour a block, the same in all cells of it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from memest.planning.inference import InferencePlan
from memest.render.layout import wrapped
from memest.render.lines import Line, printed
from memest.render.reports import heading
from memest.shown import visible
from memest.sizes.units import format_bytes

ROWS = 16
GUTTER = 13  # columns for the bytes at the left, the axis included
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
STYLES = ("cyan", "green", "yellow", "magenta", "blue", "red")


def arena(found: InferencePlan, planner: str, *, width: int = 120, color: bool = False) -> str:
    """The plan of ``planner``: of each cell the block in its middle. The blocks of one colour or letter follow one another by six or 26."""
    plan, row = found.plan(planner), found.of(planner)
    said = f"{planner}: {format_bytes(plan.nbytes)}, {row.factor:.2f}x less than no reuse; lower bound "
    said += format_bytes(found.of("lower_bound").nbytes)
    lines = [Line(part, style="bold") for part in wrapped(visible(heading(found.estimate)), width)]
    lines += [*map(Line, wrapped(said, width)), Line()]
    columns = max(width - GUTTER - 1, 10)
    for number, cells in zip(range(ROWS, 0, -1), _cells(found, planner, columns), strict=True):
        label = format_bytes(plan.nbytes * number // ROWS) if number in (ROWS, ROWS * 3 // 4, ROWS // 2, ROWS // 4) else ""
        line = Line(f"{label:>{GUTTER - 1}}|")
        for block, run in groupby(cells):
            line.append(*_cell(block, len(list(run)), color))
        lines.append(line)
    last = max((b.upper for b in found.blocks), default=0)
    lines += [Line(" " * (GUTTER - 1) + "+" + "-" * columns), Line(" " * GUTTER + f"0{f'{last:,} events':>{columns - 1}}")]
    return printed(lines, color)


def _cells(found: InferencePlan, planner: str, columns: int) -> Iterator[list[int | None]]:
    """For each row, the highest first, the block of each column (None: free)."""
    plan = found.plan(planner)
    last = max((b.upper for b in found.blocks), default=1)
    cells: list[list[int | None]] = [[None] * columns for _ in range(ROWS)]
    for n, (b, offset) in enumerate(zip(found.blocks, plan.offsets, strict=True)):
        for row in range(_first(offset, plan.nbytes, ROWS), _first(offset + b.size, plan.nbytes, ROWS)):
            for column in range(_first(b.lower, last, columns), _first(b.upper, last, columns)):
                cells[row][column] = n
    yield from reversed(cells)


def _first(place: int, whole: int, cells: int) -> int:
    """The first of ``cells`` whose middle is at ``place`` of ``whole`` or after it."""
    return -((whole - 2 * place * cells) // (2 * whole)) if whole else 0


def _cell(block: int | None, count: int, color: bool) -> tuple[str, str]:
    if block is None:
        return " " * count, ""
    return ("█" * count, STYLES[block % len(STYLES)]) if color else (LETTERS[block % len(LETTERS)] * count, "")
