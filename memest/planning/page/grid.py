"""The sizes a page can be set to: one axis a symbol of the network's inputs, a few values each.

What a library chooses by searching is known only at sizes it was asked at, so a page has a grid and no free sizes. Values are multiples of
what the network divides by (found from its conditions); sizes that the caller names are taken as they are.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from memest.errors import UsageError, did_you_mean
from memest.network.graph import Graph
from memest.network.tensor import Shape
from memest.sizes.conditions import Conditions
from memest.sizes.dims import Expr

BATCHES = (1, 2, 4, 8, 16, 32)
LADDERS = {  # by the number of spatial dims: a grid of each has some hundred points
    1: (256, 512, 1024, 2048, 4096, 8192, 16384),
    2: (64, 128, 192, 224, 256, 384, 512),
    3: (32, 64, 96, 128, 192),
}
USUAL = {1: 1024, 2: 224, 3: 64}
USUAL_BATCH = 2
MAX_POINTS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One size of the inputs: its symbol, the values it can be set to (ascending), and which of them the page opens with."""

    symbol: str
    values: tuple[int, ...]
    start: int
    is_batch: bool

    @property
    def first(self) -> int:
        """The size that the page opens with."""
        return self.values[self.start]


def batch_symbol(graph: Graph) -> str | None:
    """The symbol of the first dim of the first input; None where that is a number."""
    dims = graph.inputs[0].shape
    return dims[0].text if dims and isinstance(dims[0], Expr) and dims[0].op == "symbol" else None


def symbols_of_inputs(graph: Graph) -> tuple[str, ...]:
    """The symbols of the inputs' dims, in order."""
    return tuple(dict.fromkeys(d.text for i in graph.inputs for d in i.shape if isinstance(d, Expr) and d.op == "symbol"))


def usual_sizes(graph: Graph) -> dict[str, int]:
    """Sizes to begin with where the caller gives none."""
    if graph.usual is not None:
        return dict(graph.usual.train.sizes)
    batch, symbols = batch_symbol(graph), symbols_of_inputs(graph)
    side = USUAL.get(len(symbols) - (batch is not None), 32)
    return {s: USUAL_BATCH if s == batch else side for s in symbols}


def shapes_at(graph: Graph, sizes: Mapping[str, int]) -> dict[str, Shape]:
    """The shape of each input where the symbols have these sizes."""
    return {i.name: tuple(d.evaluate(sizes) if isinstance(d, Expr) else d for d in i.shape) for i in graph.inputs}


def axes_of(
    graph: Graph,
    start: Mapping[str, int],
    conditions: Conditions,
    batches: Sequence[int] = (),
    sizes: Mapping[str, Sequence[int]] | None = None,
) -> tuple[Axis, ...]:
    """One axis a symbol. ``batches`` and ``sizes`` (by symbol; ``""`` stands for every spatial one) replace the usual values; ``start`` is
    always among them. UsageError for a symbol that is not there and for more than MAX_POINTS points."""
    batch, symbols = batch_symbol(graph), symbols_of_inputs(graph)
    asked = dict(sizes or {})
    for name in asked:
        if name and name not in symbols:
            known = ", ".join(symbols) or "none"
            raise UsageError(f"--sizes: the inputs have no size {name!r}{did_you_mean(name, symbols)}; they have {known}")
    if batches and batch is None:
        raise UsageError(f"--batches: the batch of {graph.name} is a number, it cannot be varied")
    spatial = len(symbols) - (batch is not None)
    axes = []
    for s in symbols:
        given = tuple(batches) if s == batch and batches else tuple(asked.get(s, () if s == batch else asked.get("", ())))
        if given:
            values = sorted({*given, start[s]})
        elif s == batch:
            values = sorted({*BATCHES, start[s]})
        else:
            values = _ladder(LADDERS.get(spatial, (32, 64, 128)), start[s], conditions.multiple.get(s, 1), conditions.least.get(s, 1))
        axes.append(Axis(symbol=s, values=tuple(values), start=values.index(start[s]), is_batch=s == batch))
    points = 1
    for axis in axes:
        points *= len(axis.values)
    if points > MAX_POINTS:
        raise UsageError(f"the sliders have {points:,} settings together, more than {MAX_POINTS:,}; name fewer --sizes or --batches")
    return tuple(axes)


def _ladder(ladder: Sequence[int], start: int, multiple: int, least: int) -> list[int]:
    """``ladder`` in multiples of ``multiple`` from ``least``, with ``start`` in the place of the value nearest to it."""
    rungs = sorted({max(n // multiple * multiple, multiple) for n in ladder if n >= least} - {start})
    if len(rungs) == len(ladder):
        at = min(bisect_left(rungs, start), len(rungs) - 1)
        nearest = min((at, max(at - 1, 0)), key=lambda i: abs(rungs[i] - start))
        rungs.pop(nearest)
    return sorted({*rungs, start})


def points_of(axes: Sequence[Axis]) -> list[dict[str, int]]:
    """Every setting of the sliders; the last axis runs fastest."""
    return [dict(zip((a.symbol for a in axes), values, strict=True)) for values in product(*(a.values for a in axes))]


def start_of(axes: Sequence[Axis]) -> int:
    """The number of the setting that the page opens with."""
    number = 0
    for axis in axes:
        number = number * len(axis.values) + axis.start
    return number


def read_sizes(texts: Sequence[str], option: str) -> dict[str, tuple[int, ...]]:
    """``64,128`` or ``H=64,128``, several, by symbol (``""``: every one). UsageError for what is no list of positive sizes."""
    found: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, _, values = text.rpartition("=")
        parts = [p.strip() for p in values.split(",")]
        if not all(p.isascii() and p.isdigit() and len(p) <= 9 and int(p) > 0 for p in parts):
            raise UsageError(f"{option} {text[:80]!r}: positive sizes joined by commas, such as 64,128,256")
        if name.strip() in found:
            raise UsageError(f"{option} {text[:80]!r}: given twice")
        found[name.strip()] = tuple(sorted({int(p) for p in parts}))
    return found
