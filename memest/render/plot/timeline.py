"""The step as a picture: categories stacked over the events, resident ones at the bottom, phases shaded, the peak marked with its layer.

A long step is drawn by the highest and the lowest moment of each of some hundred columns, so that files stay small and no peak is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from memest.estimate.estimate import Estimate
from memest.estimate.series import Series, outline, series
from memest.render.palette import COLOURS
from memest.render.plot import canvas
from memest.render.reports import heading, highest, moment
from memest.sizes.units import format_bytes

COLUMNS = 500
WIDTH, HEIGHT = 12.0, 6.2
BOX = (0.075, 0.085, 0.735, 0.755)  # of the axes in the figure: left, bottom, width, height
HEADROOM = 1.24


def render(estimate: Estimate, form: str = "png") -> bytes:
    """The picture as ``png`` or ``svg``."""
    found = series(estimate)
    with canvas.figure(WIDTH, HEIGHT) as drawn:
        axes = drawn.add_axes(BOX)
        last, top = len(found.totals), max(found.peak_bytes, 1) * HEADROOM
        axes.set(xlim=(0, last), ylim=(0, top), xlabel="events so far (allocations and releases)")
        _shade_phases(axes, found, top)
        _stack(axes, found)
        _mark_peak(axes, estimate, found, last)
        places, labels = canvas.byte_ticks(found.peak_bytes)
        axes.set_yticks(places, labels)
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
        axes.grid(axis="y", color="#ffffff", linewidth=0.6, alpha=0.55)
        axes.set_axisbelow(False)
        _legend(axes, found)
        peak = f"{highest(estimate, exact=True)}: {moment(estimate)}"
        canvas.heading(drawn, estimate.graph, (heading(estimate).partition(": ")[2], peak))
        return canvas.written(drawn, form)


def _stack(axes: Any, found: Series) -> None:
    """One closed path a category, from the bottom up."""
    chosen = outline(found.totals, COLUMNS)
    edges = [*chosen, len(found.totals)]
    heights = [[column[i] for i in chosen] for column in found.categories.values()]
    levels = [*accumulate(heights, lambda below, own: [b + h for b, h in zip(below, own, strict=True)], initial=[0] * len(chosen))]
    for name, below, above in zip(found.categories, levels, levels[1:], strict=False):
        path = stairs(edges, above) + stairs(edges, below)[::-1]
        xs, ys = zip(*path, strict=True)
        axes.fill(xs, ys, facecolor=COLOURS[name], edgecolor="none", label=name, gid=f"category-{name}")


def stairs(edges: Sequence[int], heights: Sequence[int]) -> list[tuple[int, int]]:
    """Corners of the steps that hold ``heights[i]`` from ``edges[i]`` to ``edges[i + 1]``: only where the height changes."""
    path = [(edges[0], heights[0])]
    for x, height in zip(edges[1:-1], heights[1:], strict=True):
        if height != path[-1][1]:
            path += [(x, path[-1][1]), (x, height)]
    return [*path, (edges[-1], heights[-1])]


def _shade_phases(axes: Any, found: Series, top: float) -> None:
    points = WIDTH * BOX[2] * 72 / len(found.totals)
    for i, span in enumerate(found.phases):
        axes.axvspan(span.start, span.stop, facecolor=("#f1f1f1", "#e4e4e4")[i % 2], edgecolor="none", zorder=0, gid=f"phase-{span.name}")
        name = span.name.replace("_", " ")
        if canvas.text_width(name, 9) + 6 <= (span.stop - span.start) * points:
            axes.text((span.start + span.stop) / 2, top * 0.985, name, ha="center", va="top", color=canvas.FAINT, fontsize=9)


def _mark_peak(axes: Any, estimate: Estimate, found: Series, last: int) -> None:
    x, y, m = found.peak + 0.5, found.peak_bytes, estimate.moment
    what = f"{m.layer} ({m.op}), {m.phase.replace('_', ' ')}" if m.index >= 0 else "before the step"
    where = canvas.shortened(what, 9, WIDTH * BOX[2] * 72 * 0.42)
    axes.plot([x, x], [0, y], color=canvas.INK, linewidth=0.7, linestyle=(0, (3, 2)), zorder=4)
    axes.plot([x], [y], marker="v", markersize=6, color=canvas.INK, zorder=5, clip_on=False)
    left = x > last / 2
    axes.annotate(
        f"{'asked for' if estimate.replays else 'peak'} {format_bytes(y)}\n{where}",
        (x, y),
        xytext=(-8 if left else 8, 9),
        textcoords="offset points",
        ha="right" if left else "left",
        va="bottom",
        fontsize=9,
        fontweight="bold",
        bbox={"boxstyle": "round,pad=0.3", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
        zorder=6,
    )


def _legend(axes: Any, found: Series) -> None:
    """Categories from the top of the stack down, with their bytes at the peak."""
    handles, names = axes.get_legend_handles_labels()
    labels = [f"{n.replace('_', ' ')}\n{format_bytes(found.categories[n][found.peak])}" for n in names]
    axes.legend(
        handles[::-1], labels[::-1], loc="upper left", bbox_to_anchor=(1.015, 1.0), title="at the peak", alignment="left", labelspacing=0.9
    )
