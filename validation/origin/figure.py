"""The origin's figure: bytes over batch, a line a cube, in a panel a framework and use, with the servers' capacities across."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from validation.origin.cells import BATCHES, FRAMEWORKS, MODES, SERVERS, SIDES
from validation.origin.table import Row


def draw(rows: Sequence[Row], path: Path) -> None:
    """Write it to ``path``; what was measured is a dot, what is predicted a line: solid where it is exact, dashed where it is modelled."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        len(MODES), len(FRAMEWORKS), figsize=(15, 9), sharex=True, sharey=True, layout="constrained", squeeze=False
    )
    colours = pyplot.get_cmap("viridis")
    for i, mode in enumerate(MODES):
        for j, framework in enumerate(FRAMEWORKS):
            panel = axes[i][j]
            panel.set_title(f"{framework}, {'training' if mode == 'train' else 'inference'}")
            _capacities(panel)
            for n, side in enumerate(SIDES):
                here = [r for r in rows if (r.cell.framework, r.cell.mode, r.cell.side) == (framework, mode, side)]
                _cube(panel, side, here, colours(n / len(SIDES)))
    cubes = {label: line for panel in axes.flat for line, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    figure.legend(cubes.values(), cubes.keys(), title="cube", loc="outside right upper")
    figure.supxlabel("batch")
    figure.supylabel("bytes: lines predicted (tensors solid, process dashed), dots measured (the process)")
    figure.savefig(path)
    pyplot.close(figure)


def _capacities(panel: Any) -> None:
    panel.set(xscale="log", yscale="log", xticks=BATCHES, xticklabels=BATCHES)
    for name, size in SERVERS.items():
        panel.axhline(size, color="firebrick", linewidth=0.8)
        panel.text(BATCHES[0], size, name, color="firebrick", fontsize=7, va="bottom")


def _cube(panel: Any, side: int, rows: Sequence[Row], colour: Any) -> None:
    for style, which, label in (("-", 0, f"{side}³"), ("--", 1, None)):
        points = [(r.cell.batch, r.predicted[which].bytes) for r in rows if r.predicted[which].bytes is not None]
        if points:
            panel.plot(*zip(*points, strict=True), style, color=colour, label=label, linewidth=1)
    dots = [(r.cell.batch, max(r.measured["peaks_bytes"])) for r in rows if r.measured]
    if dots:
        panel.plot(*zip(*dots, strict=True), "o", color=colour, markersize=4)
