"""One network and one volume: whole, in windows, in tiles, over workers. What each takes, what it computes twice, and where it fits.

>>> plan = plan_volume(graph, input_shape=(1, 4, 240, 240, 155), window=(128, 128, 128), on=["a100-40gb"])
>>> [(way.name, way.held_bytes, way.recomputed) for way in plan.ways]

Whole, tiles with all that the network sees around them, and workers give the same result, unless a layer takes statistics over what it is
given; sliding windows give another one, in which predictions are blended. A worker holds its part of the volume, halos included, and its
part of the result; what workers send to one another is not counted: each reads its halos from the volume.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, prod
from typing import TYPE_CHECKING, Any, Literal

from memest.errors import MemestError, UsageError
from memest.estimate.estimate import Estimate, answer
from memest.estimate.inputs import InputShape
from memest.estimate.question import Settings, question
from memest.levers.tiles import TILES
from memest.machines.entry import Hardware
from memest.machines.verdicts import Verdict, places
from memest.network.graph import Graph, as_graph
from memest.planning.cutting import STEP, checked_halo, field_of, partition, takes_statistics, volume_of
from memest.runtimes.torch.step.windows import monai, nnunet, tiles
from memest.shown import Shown, counted, short
from memest.sizes import asked

if TYPE_CHECKING:
    from typing_extensions import Unpack

WORKERS = (2, 4, 8)
CUTTING = ("tiles", *TILES.excludes)
STEP_SHARE, OVERLAP = Fraction(1, 2), 0.25  # what nnU-Net's predictor and MONAI's function do unless they are told

Result = Literal["same", "own statistics", "approximate", "blended"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeWay:
    """A way to predict the volume. ``estimate`` is what one process takes, ``calls`` how often the network runs for a sample (of a worker:
    once), ``recomputed`` the voxels it sees more than there are, as a share of them. The ``result``, beside that of the whole volume, is
    the ``same``, one in which layers took ``own statistics`` of each part, ``approximate`` (halos shorter than what the network sees) or
    ``blended`` of windows that overlap. ``verdicts``: one a place that was asked about."""

    name: str
    how: str
    estimate: Estimate
    calls: int
    workers: int
    recomputed: float
    result: Result
    verdicts: tuple[Verdict, ...]

    @property
    def held_bytes(self) -> int:
        """Bytes of one process that count against a limit."""
        return self.estimate.held_bytes


@dataclass(frozen=True, kw_only=True)
class VolumePlan(Shown):
    """The ways of one volume of ``extents``, the whole one first. ``halo`` is what parts read more on each side (None: not known),
    ``refused`` a line for each way that there is not."""

    extents: tuple[int, ...]
    halo: tuple[int, ...] | None
    ways: tuple[VolumeWay, ...]
    refused: tuple[str, ...]

    def __repr__(self) -> str:
        least = min(self.ways, key=lambda w: w.held_bytes)
        whole = self.ways[0].estimate
        return f"<VolumePlan of {short(whole.graph)}: {counted(len(self.ways), 'way')}, {least.name} {least.held_bytes:,} bytes>"

    @property
    def whole(self) -> Estimate:
        """The volume in one call."""
        return self.ways[0].estimate


def plan_volume(
    graph: Graph,
    *,
    input_shape: InputShape | None = None,
    window: Sequence[int] | Sequence[Sequence[int]] | int | None = None,
    workers: Sequence[int] = WORKERS,
    halo: int | Sequence[int] | None = None,
    on: Sequence[str | Hardware] = (),
    **settings: Unpack[Settings],
) -> VolumePlan:
    """The ways to predict one volume (or image) of ``input_shape``: whole, in windows of each ``window`` (one number, one a dim, or several
    such; left out, half and a quarter of the volume), over each number of ``workers``. ``halo`` is what tiles and workers read more on each
    side; left out, all that the network sees. ``on``: hardware to hold each way against, by name or as it is. ``settings`` are those of
    :func:`memest.estimate`. UsageError for what is no size and for training; what ``estimate`` raises of the whole volume."""
    graph = as_graph(graph, "plan_volume")
    given: dict[str, Any] = dict(settings)
    asking = question(graph, {"mode": "infer", **given}, "plan_volume")
    cut = next((text for text in asking.levers if text.partition(":")[0].strip() in CUTTING), None)
    if cut is not None:
        raise UsageError(f"lever {cut!r}: plan_volume tries windows itself; leave it out, or ask estimate about it")
    if asking.training:
        raise UsageError("plan_volume plans inference: leave mode out, or give 'infer'")
    where = [place if isinstance(place, Hardware) else places([place])[0] for place in asked.several(on, "on", "['a100-40gb']")]
    counts = [asked.size(n, "workers") for n in asked.several(workers, "workers", "[2, 4, 8]")]
    plan = _Planning(graph, {**given, "mode": "infer"}, input_shape, checked_halo(halo), where)
    tried = [
        plan.way("whole", "in one call", plan.whole, result="same"),
        *plan.unknown,
        *plan.in_windows(_windows(window, plan.extents, plan.step)),
        *plan.over(counts),
    ]
    ways = tuple(way for way in tried if isinstance(way, VolumeWay))
    refused = tuple(dict.fromkeys(why for why in tried if isinstance(why, str)))
    return VolumePlan(extents=plan.extents, halo=plan.halo, ways=ways, refused=refused)


class _Planning:
    """The whole volume, and what is known of how it may be cut."""

    def __init__(
        self, graph: Graph, settings: dict[str, Any], shape: InputShape | None, halo: tuple[int, ...] | None, where: list[Hardware]
    ) -> None:
        self._graph, self._settings, self._where = graph, settings, where
        self.whole = answer(graph, question(graph, settings, "plan_volume"), asked.shapes(shape))
        self.extents, self._names = volume_of(self.whole)
        dims = len(self.extents)
        self.unknown: list[str] = []
        self.halo = None if halo is None else tiles.per_dim(halo, dims, "halo", "plan_volume")
        self.step, self._exact = (STEP,) * dims, False
        try:
            field, self.step = field_of(self.whole, dims, halo)
            self._exact = field is not None and (self.halo is None or all(h >= f for h, f in zip(self.halo, field, strict=True)))
            self.halo = self.halo or field
        except MemestError as e:
            self.unknown.append(f"tiles, workers: {e}")
        self._statistics = takes_statistics(self.whole)

    @property
    def _result(self) -> Result:
        """What comes of parts that read their halos."""
        return "approximate" if not self._exact else "own statistics" if self._statistics else "same"

    def way(
        self, name: str, how: str, estimate: Estimate, *, result: Result, calls: int = 1, workers: int = 1, read: float = 1.0
    ) -> VolumeWay:
        """A way with its verdicts."""
        verdicts = tuple(estimate.on(place) for place in self._where)
        return VolumeWay(
            name=name, how=how, estimate=estimate, calls=calls, workers=workers, recomputed=read - 1, result=result, verdicts=verdicts
        )

    def in_windows(self, windows: Sequence[tuple[int, ...]]) -> Iterator[VolumeWay | str]:
        """Tiles, nnU-Net's windows and MONAI's, of each size; a line for what cannot be."""
        for window in windows:
            size = "x".join(map(str, window))
            if not self.whole.runtime.startswith("torch-"):
                own = f"around {self.whole.runtime}'s calls the loop is your own"
                yield f"windows, tiles: {own}; ask for one of {size}, and add your arrays"
                continue
            larger = [max(e, w) for e, w in zip(self.extents, window, strict=True)]
            if self.halo is not None:
                yield from self._tiles(window, size)
            count = nnunet.window_count(larger, window, STEP_SHARE)
            yield self._lever("sliding_window", f"sliding_window:size={size}", window, count)
            overlap = (OVERLAP,) * len(window)
            count = monai.window_count(larger, window, overlap)
            yield self._lever("sliding_window_inference", f"sliding_window_inference:roi_size={size}", window, count)

    def _tiles(self, window: tuple[int, ...], size: str) -> Iterator[VolumeWay | str]:
        assert self.halo is not None
        halo = "x".join(map(str, self.halo))
        inside = tuple(min(w, e) for w, e in zip(window, self.extents, strict=True))
        short_by = [2 * h + 1 for w, e, h in zip(inside, self.extents, self.halo, strict=True) if w < e and w <= 2 * h]
        if short_by:
            yield f"tiles of {size}: nothing is left of them without a halo of {halo}; take {max(short_by)} or more, or a shorter --halo"
            return
        count = len(tiles.windows(self.extents, inside, self.halo))
        yield self._lever("tiles", f"tiles:size={size},halo={halo}", inside, count, self._result)

    def _lever(self, name: str, text: str, window: Sequence[int], count: int, result: Result = "blended") -> VolumeWay | str:
        levers = [*self._settings.get("levers", ()), text]
        try:
            found = answer(self._graph, question(self._graph, {**self._settings, "levers": levers}, "plan_volume"), self.whole.input_shapes)
        except MemestError as e:
            return str(e) if str(e).startswith(name) else f"{name}: {e}"
        return self.way(name, text.partition(":")[2], found, result=result, calls=count, read=count * prod(window) / prod(self.extents))

    def over(self, workers: Sequence[int]) -> Iterator[VolumeWay | str]:
        """The volume cut over workers."""
        if self.halo is None:
            return
        halo = tuple(ceil(h / s) * s for h, s in zip(self.halo, self.step, strict=True))  # parts begin where the network steps
        for n in workers:
            try:
                cut = partition(self.extents, n, halo, self.step)
                if cut.largest == self.extents:
                    yield f"{n} workers: with a halo of {'x'.join(map(str, halo))} each reads the whole volume"
                    continue
                part = self.whole.at(**dict(zip(self._names, cut.largest, strict=True)))
            except MemestError as e:
                yield f"{n} workers: {e}"
                continue
            how = f"{'x'.join(map(str, cut.parts))} parts, {'x'.join(map(str, cut.largest))} with halos"
            yield self.way(f"{n} workers", how, part, result=self._result, workers=n, read=cut.read)


def _windows(given: Any, extents: tuple[int, ...], step: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The sizes of windows asked about, one a dim."""
    dims = len(extents)
    if given is None:
        parts = [tuple(ceil(e / n / s) * s for e, s in zip(extents, step, strict=True)) for n in (2, 4)]
        return [p for p in dict.fromkeys(parts) if any(w < e for w, e in zip(p, extents, strict=True))]
    several = given if isinstance(given, list | tuple) and given and isinstance(given[0], list | tuple) else [given]
    sizes = [tuple(asked.size(n, "window") for n in (one if isinstance(one, list | tuple) else [one])) for one in several]
    return [tiles.per_dim(size, dims, "window", "plan_volume") for size in sizes]
