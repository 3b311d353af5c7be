"""The live set at the peak as a treemap: an area a tensor's owner, grouped by category, labelled with layer and size."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from memest.estimate.estimate import Estimate
from memest.estimate.holdings import Tile, tiles_at_peak
from memest.render.palette import COLOURS
from memest.render.plot import canvas
from memest.render.reports import heading, highest, moment
from memest.shown import visible
from memest.sizes.units import format_bytes

WIDTH, HEIGHT = 12.0, 7.4
LEFT, BOTTOM, RIGHT, TOP = 0.012, 0.065, 0.988, 0.895
MIN_SHARE = 2000  # an owner with less than 1 / MIN_SHARE of the peak is drawn with the other small ones of its category
SIZES = (11.0, 9.0, 7.5, 6.5)  # of letters, in points
LEADING = 1.3
DARK = {"parameter", "workspace", "input"}
Box = tuple[float, float, float, float]  # x, y, width, height in points, y down


def render(estimate: Estimate, form: str = "png") -> bytes:
    """The picture as ``png`` or ``svg``."""
    tiles = tiles_at_peak(estimate, -(-estimate.peak_bytes // MIN_SHARE))
    groups = [(name, list(group)) for name, group in groupby(tiles, lambda t: t.category)]
    with canvas.figure(WIDTH, HEIGHT) as drawn:
        axes = drawn.add_axes((LEFT, BOTTOM, RIGHT - LEFT, TOP - BOTTOM))
        width, height = WIDTH * 72 * (RIGHT - LEFT), HEIGHT * 72 * (TOP - BOTTOM)
        axes.set(xlim=(0, width), ylim=(height, 0))
        axes.set_axis_off()
        areas = squarify([sum(t.nbytes for t in group) for _, group in groups], (0, 0, width, height))
        for (_, group), area in zip(groups, areas, strict=True):
            inner = _inset(area, 1.5)
            for tile, box in zip(group, squarify([t.nbytes for t in group], inner), strict=True):
                _draw(axes, tile, box)
        _legend(drawn, estimate, [name for name, _ in groups])
        what = f"alive at the peak, {highest(estimate, exact=True).removeprefix('peak ')}: {moment(estimate)}"
        canvas.heading(drawn, estimate.graph, (heading(estimate).partition(": ")[2], what))
        return canvas.written(drawn, form)


def squarify(sizes: Sequence[int], box: Box) -> list[Box]:
    """Boxes that fill ``box`` with areas as ``sizes`` (positive, best descending), as square as rows allow (Bruls, Huizing and van Wijk,
    "Squarified treemaps", 2000)."""
    x, y, width, height = box
    left, scale, found = list(sizes), width * height / max(sum(sizes), 1), []
    while left:
        short = min(width, height)
        count = 1
        while count < len(left) and _worst(left[: count + 1], scale, short) <= _worst(left[:count], scale, short):
            count += 1
        row, left = left[:count], left[count:]
        thick = sum(row) * scale / short if short else 0.0
        at = 0.0
        for size in row:
            length = size * scale / thick if thick else 0.0
            found.append((x, y + at, thick, length) if width >= height else (x + at, y, length, thick))
            at += length
        if width >= height:
            x, width = x + thick, width - thick
        else:
            y, height = y + thick, height - thick
    return found


def _worst(row: Sequence[int], scale: float, short: float) -> float:
    """The longest ratio of sides in a row laid along ``short``."""
    thick = sum(row) * scale / short if short else 0.0
    if not thick:
        return float("inf")
    lengths = [size * scale / thick for size in (max(row), min(row))]
    return max(max(n / thick, thick / n) if n else float("inf") for n in lengths)


def _inset(box: Box, by: float) -> Box:
    x, y, width, height = box
    by = min(by, width / 4, height / 4)
    return x + by, y + by, width - 2 * by, height - 2 * by


def _draw(axes: Any, tile: Tile, box: Box) -> None:
    from matplotlib.patches import Rectangle

    x, y, width, height = box
    axes.add_patch(
        Rectangle((x, y), width, height, facecolor=COLOURS[tile.category], edgecolor="white", linewidth=0.8, gid=f"tile-{tile.category}")
    )
    colour = "white" if tile.category in DARK else canvas.INK
    name = visible(tile.layer) or f"{tile.tensors:,} others"
    amount = format_bytes(tile.nbytes)
    size, lines = _label(name, amount, width - 8, height - 4)
    for i, text in enumerate(lines):
        axes.text(x + 4, y + 3 + i * size * LEADING, text, fontsize=size, color=colour, va="top", ha="left")


def _label(name: str, amount: str, width: float, height: float) -> tuple[float, list[str]]:
    """The size of the letters and the lines: the whole name in the largest letters that hold it, broken behind dots where it has to be;
    else what of it fits in the smallest; else the amount alone, or nothing."""
    for lines_of_name in (1, 2, 3):
        for size in SIZES:
            lines = [*_broken(name, size, width), amount]
            if len(lines) <= lines_of_name + 1 and len(lines) * size * LEADING <= height and _widest(lines, size) <= width:
                return size, lines
    size = SIZES[-1]
    if 2 * size * LEADING <= height and _widest([amount], size) <= width:
        return size, [line for line in (canvas.shortened(name, size, width), amount) if line]
    text = canvas.shortened(f"{name} {amount}", size, width)
    return size, [text] if text.endswith(amount) and size * LEADING <= height + 2 else []


def _broken(name: str, size: float, width: float) -> list[str]:
    """The name in lines that end behind a dot."""
    lines = [""]
    for part in re.findall(r"[^.]*\.?", name):
        if lines[-1] and canvas.text_width(lines[-1] + part, size) > width:
            lines.append("")
        lines[-1] += part
    return lines


def _widest(lines: Sequence[str], size: float) -> float:
    return max(canvas.text_width(line, size) for line in lines)


def _legend(drawn: Any, estimate: Estimate, names: Sequence[str]) -> None:
    from matplotlib.patches import Patch

    totals = estimate.by_category()
    labels = [f"{n.replace('_', ' ')} {format_bytes(totals[n])} ({totals[n] / estimate.peak_bytes:.1%})" for n in names]
    handles = [Patch(facecolor=COLOURS[n]) for n in names]
    columns = 4 if len(names) > 6 else max(len(names), 1)
    drawn.legend(
        handles,
        labels,
        loc="lower left",
        bbox_to_anchor=(LEFT - 0.004, 0.0),
        ncols=columns,
        fontsize=8,
        handlelength=1.1,
        columnspacing=1.6,
    )
