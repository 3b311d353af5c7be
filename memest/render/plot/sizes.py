"""Memory against the side of the input, both logarithmic: a line a batch, a dashed line a capacity."""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import Any

from memest.planning.growth import Growth, Point
from memest.render.plot import canvas
from memest.shown import visible
from memest.sizes.units import format_bytes

WIDTH, HEIGHT = 9.6, 6.2
BOX = (0.095, 0.09, 0.79, 0.735)
FIRST, LAST = "#9ecae1", "#08306b"  # from the smallest batch to the largest
CAPACITY, CAPACITY_INK = "#D55E00", "#a34700"
ROOM = 24  # points between two labels of the side
LINE = 11  # and between two names of capacities


def render(found: Growth, capacities: Sequence[tuple[str, int]] = (), form: str = "png") -> bytes:
    """The picture as ``png`` or ``svg``; a capacity is what to call it and its bytes."""
    with canvas.figure(WIDTH, HEIGHT) as drawn:
        axes = drawn.add_axes(BOX)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        for batch, colour in zip(found.batches, _shades(len(found.batches)), strict=True):
            line = [(p.side, p.peak_bytes) for p in found.points if p.batch == batch]
            axes.plot(
                *zip(*line, strict=True),
                marker="o",
                markersize=4,
                linewidth=1.6,
                color=colour,
                label=f"batch {batch:,}",
                gid=f"batch-{batch}",
            )
        _scale(axes, found, [n for _, n in capacities])
        _draw_capacities(axes, capacities)
        axes.grid(axis="both", which="major", color="#e8e8e8", linewidth=0.7)
        handles, labels = axes.get_legend_handles_labels()
        axes.legend(handles[::-1], labels[::-1], loc="lower right", frameon=True, framealpha=0.9, edgecolor="none")
        first, last = found.points[0], found.points[-1]
        spread = f"{found.figure} from {_named(first)} to {_named(last)}"
        gone = ", ".join(f"{r.side:,}" for r in found.refused)
        canvas.heading(drawn, found.graph, (found.how, spread, *([f"not drawn: the network cannot run at side {gone}"] if gone else [])))
        return canvas.written(drawn, form)


def _scale(axes: Any, found: Growth, capacities: Sequence[int]) -> None:
    """Ticks at the sides that were asked for, where there is room, and at powers of two of bytes."""
    from matplotlib.ticker import NullLocator

    every = [p.peak_bytes for p in found.points] + list(capacities)
    low, high = max(min(every), 1), max(*every, 2)
    axes.set_ylim(low / 1.6, high * 1.8)
    sides, dims = found.sides, len(found.points[0].input_shape) - 2
    margin = 1.12
    axes.set_xlim(sides[0] / margin, sides[-1] * margin)
    power = {2: "²", 3: "³"}.get(dims, "")
    shown = [s for i, s in enumerate(sides) if _has_room(sides, i, axes)]
    axes.set_xticks(shown, [f"{s:,}{power}" for s in shown])
    axes.set_xlabel("input, every spatial size")
    stride = max(1, -(-(high.bit_length() - low.bit_length() + 1) // 9))
    places = [1 << e for e in range(low.bit_length() - 1, high.bit_length() + 1) if e % stride == 0]
    axes.set_yticks(places, [format_bytes(n).replace(".00", "") for n in places])
    axes.set_ylabel(found.figure)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())


def _draw_capacities(axes: Any, capacities: Sequence[tuple[str, int]]) -> None:
    """A line each; a name that would lie on the one below it moves up."""
    low, high = axes.get_ylim()
    points = HEIGHT * BOX[3] * 72 / log(high / low)
    lowest = float("-inf")
    for name, nbytes in sorted(((visible(name), nbytes) for name, nbytes in capacities), key=lambda c: c[1]):
        axes.axhline(nbytes, color=CAPACITY, linewidth=1, linestyle=(0, (5, 3)), zorder=1, gid=f"capacity-{name}")
        at = log(nbytes / low) * points
        up = max(lowest + LINE - at, 0)
        lowest = at + up
        axes.annotate(
            name, (1, nbytes), (5, up), xycoords=("axes fraction", "data"), textcoords="offset points", va="center", color=CAPACITY_INK
        )


def _has_room(sides: Sequence[int], i: int, axes: Any) -> bool:
    """Labels are ROOM points apart at least, the last one first: its neighbours to the right decide."""
    low, high = axes.get_xlim()
    points = WIDTH * BOX[2] * 72 / log(high / low)
    taken = None
    for j in range(len(sides) - 1, i - 1, -1):
        shown = taken is None or log(sides[taken] / sides[j]) * points >= ROOM
        if j == i:
            return shown
        taken = j if shown else taken
    return True


def _shades(count: int) -> list[str]:
    """Colours from light to dark."""
    ends = [[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in (FIRST, LAST)]
    parts = [i / max(count - 1, 1) for i in range(count)]
    return ["#" + "".join(f"{round(a + (b - a) * t):02x}" for a, b in zip(*ends, strict=True)) for t in parts]


def _named(point: Point) -> str:
    return f"{format_bytes(point.peak_bytes)} at {'x'.join(map(str, point.input_shape))}"
