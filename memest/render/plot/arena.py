"""A plan as a picture: each block a rectangle, from its first event to its last along the side, at its addresses up.

The dashed line is the lower bound: where the highest block reaches it, no plan takes less. Blocks too small to be seen are still drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memest.memory.planners.blocks import Block
from memest.planning.inference import InferencePlan
from memest.render.palette import COLOURS
from memest.render.plot import canvas
from memest.render.reports import heading
from memest.sizes.units import format_bytes

WIDTH, HEIGHT = 12.0, 6.2
BOX = (0.085, 0.085, 0.895, 0.795)  # of the axes in the figure: left, bottom, width, height
SHADES = [COLOURS[name] for name in ("activation", "input", "gradient", "optimizer_state", "temporary", "parameter")]
LETTERS = 7.0  # points
HEADROOM = 1.05


def render(found: InferencePlan, planner: str, form: str = "png") -> bytes:
    """The plan of ``planner`` as ``png`` or ``svg``."""
    plan, bound = found.plan(planner), found.of("lower_bound").nbytes
    last = max((b.upper for b in found.blocks), default=1)
    top = max(plan.nbytes, 1) * HEADROOM
    with canvas.figure(WIDTH, HEIGHT) as drawn:
        axes = drawn.add_axes(BOX)
        axes.set(xlim=(0, last), ylim=(0, top), xlabel="events so far (allocations and releases)")
        _draw(axes, found.blocks, plan.offsets, last)
        _name(axes, found, plan.offsets, last, top)
        axes.axhline(bound, color=canvas.INK, linewidth=0.9, linestyle=(0, (3, 2)), gid="lower-bound")
        places, labels = canvas.byte_ticks(plan.nbytes)
        axes.set_yticks(places, labels)
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
        said = f"{planner}: {format_bytes(plan.nbytes)} ({plan.nbytes:,} bytes), {found.of(planner).factor:.2f}x less than no reuse"
        least = f"lower bound {format_bytes(bound)} (dashed)"
        canvas.heading(drawn, found.estimate.graph, (heading(found.estimate).partition(": ")[2], f"{said}; {least}"))
        return canvas.written(drawn, form)


def _draw(axes: Any, blocks: Sequence[Block], offsets: Sequence[int], last: int) -> None:
    from matplotlib.collections import PolyCollection

    corners = [[(b.lower, o), (b.upper, o), (b.upper, o + b.size), (b.lower, o + b.size)] for b, o in zip(blocks, offsets, strict=True)]
    shades = [SHADES[n % len(SHADES)] for n in range(len(corners))]
    axes.add_collection(PolyCollection(corners, facecolors=shades, edgecolors="white", linewidths=0.5, gid="blocks"))


def _name(axes: Any, found: InferencePlan, offsets: Sequence[int], last: int, top: float) -> None:
    """The layer of each block that has room for its name."""
    across, up = WIDTH * BOX[2] * 72 / last, HEIGHT * BOX[3] * 72 / top
    for b, o, layer in zip(found.blocks, offsets, found.layers, strict=True):
        if b.size * up >= LETTERS * 1.3 and (text := canvas.shortened(layer, LETTERS, (b.upper - b.lower) * across - 4)):
            axes.text((b.lower + b.upper) / 2, o + b.size / 2, text, ha="center", va="center", fontsize=LETTERS, clip_on=True)
