"""Inference over a volume in overlapping windows that are added up, as MONAI's ``sliding_window_inference`` does it.

Windows go through the network ``sw_batch_size`` at a time; one alone is a view of the volume, several are joined. What the network gives is
weighed by a map in place, and added to a result of the volume's size and dtype, one for each of its outputs; beside it lies a plane of one
channel that says how much weight each voxel met, by which the result is divided at the end. With ``buffer_steps`` the windows are sorted
along ``buffer_dim``, and those of so many places of it are added up in a slab of their own, which is added to the result when it is full.
Variables live as in MONAI's loop: a prediction goes when the next has taken its place.

The passes that hold the same bytes as the ones before them are not played: of windows that stand in a row, the first :data:`ALIKE` passes
and the last; of the slabs of one size likewise.
Source: monai 1.6.1, inferers/utils.py (sliding_window_inference), data/utils.py (compute_importance_map, dense_patch_slices).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import NamedTuple

from memest.errors import UsageError
from memest.network.tensor import Shape, Spec, contiguous_strides, nbytes, spec
from memest.runtimes.torch.ledger import Value
from memest.runtimes.torch.step.batches import sizes_at
from memest.runtimes.torch.step.recipe import SlidingWindowInference
from memest.runtimes.torch.step.run import Run
from memest.runtimes.torch.step.windows.tiles import per_dim, the_input
from memest.runtimes.torch.step.windows.variables import Variables

LEVER = "sliding_window_inference"
MAP = "float32"
ALIKE = 3


class Slab(NamedTuple):
    """Windows whose predictions are added up before the result is touched: how many, and how far they reach along the buffered dim."""

    windows: int
    extent: int


def play_inference(run: Run, how: SlidingWindowInference) -> None:
    """One call over all windows; the results stay."""
    _Inference(run, how).play()
    run.caller.leave_autocast()


class _Inference:
    """The variables of MONAI's function."""

    def __init__(self, run: Run, how: SlidingWindowInference) -> None:
        given = the_input(run, LEVER)
        self.run, self.how, self.name, self.dtype = run, how, given.name, given.dtype
        self.variables = Variables(run, LEVER)
        on_cuda = run.recipe.target.on_cuda
        self.inputs_here, self.stitched_here = how.inputs_here(on_cuda), how.stitched_here(on_cuda)
        self.volume = run.env[given.name]
        dims = len(self.volume.shape) - 2
        self.roi = per_dim(how.roi_size, dims, "roi_size", LEVER)
        self.overlap = per_dim(how.overlap, dims, "overlap", LEVER)
        if how.buffer_steps and not -dims <= how.buffer_dim < dims:
            raise UsageError(f"{LEVER}: buffer_dim={how.buffer_dim} is no axis of an input with {dims} spatial dims (from 0)")
        self.samples, extents = self.volume.shape[0], self.volume.shape[2:]
        self.extents = tuple(e if e > w else w for e, w in zip(extents, self.roi, strict=True))
        self.padded = any(w > e for e, w in zip(extents, self.roi, strict=True))

    def play(self) -> None:
        """Padding, the map, the windows, the division."""
        if self.inputs_here:
            self._prepare_volume()
        self._make_map()
        if self.how.buffer_steps:
            self._buffered(self.how.buffer_steps)
        else:
            count = self.samples * window_count(self.extents, self.roi, self.overlap)
            for size in _passes(count, self.how.sw_batch_size):
                self._pass(size)
        self._finish()

    def _prepare_volume(self) -> None:
        """The volume row by row, and no smaller than a window: a copy of it where it is not."""
        rows = spec(self.volume.shape, self.dtype)
        if self.volume.spec.strides != rows.strides:
            self._copy(rows, "clone", "the volume, row by row")
        if self.padded:
            self._copy(spec((*self.volume.shape[:2], *self.extents), self.dtype), "pad", "the volume, padded to a window")

    def _copy(self, described: Spec, op: str, reason: str) -> None:
        """The volume is another one from now on."""
        self.volume = self.variables.allocate(described, nbytes(described.shape, self.dtype), op, reason)
        self.variables.bind("inputs", self.volume)

    def _make_map(self) -> None:
        """``compute_importance_map``, or what is kept of it."""
        v, how = self.variables, self.how
        if how.cache_roi_weight_map:
            storage = self.run.ledger.resident(nbytes(self.roi, self.dtype), "buffer", f"{LEVER}.roi_weight_map")
            v.bind("map", self.run.ledger.hold(Value(spec(self.roi, self.dtype), storage)))
            return
        if how.mode == "constant":
            v.bind("map", v.made("ones", shape=self.roi, dtype=MAP))
        else:
            self._gaussian()
        v.bind("least", v.made("min", v["map"], None))
        v.forget("least")
        v.called("clamp_min", v["map"], min=1e-3, inplace=True)
        if self.dtype != MAP:
            v.bind("map", v.made("to", v["map"], dtype=self.dtype))

    def _gaussian(self) -> None:
        """The product of a curve along each dim."""
        v = self.variables
        for n, extent in enumerate(self.roi):
            v.bind("x", v.allocate(spec((extent,), MAP), nbytes((extent,), MAP), "arange", "places along one dim"))
            v.bind("square", v.made("pow", v["x"], None, exponent=2))
            v.bind("share", v.made("div", v["square"], None, value=-1.0))
            v.forget("square")
            v.bind("x", v.made("exp", v["share"]))
            v.forget("share")
            if n == 0:
                v.bind("map", v.seen(v["x"], v["x"].spec))
                continue
            before, strides = self.roi[:n], contiguous_strides(self.roi[:n])
            rows = v.seen(v["map"], Spec((*before, 1), (*strides, 1), MAP))
            row = v.seen(v["x"], Spec((*(1 for _ in before), extent), (*(extent for _ in before), 1), MAP))
            v.bind("map", v.made("mul", rows, row))
            self.run.ledger.let_go(rows)
            self.run.ledger.let_go(row)
        v.forget("x")

    def _pass(self, size: int) -> None:
        """``size`` windows go through the network, and their predictions into the results."""
        v = self.variables
        for n, output in enumerate(self._predict(size)):
            if f"output.{n}" not in v:
                self._make_result(n, output)
            flat = v.seen(output, output.spec)
            v.called("mul", flat, v["map"], inplace=True)
            self.run.ledger.let_go(flat)
            if self.stitched_here:
                self._add(v[f"output.{n}"], output, self.roi)

    def _predict(self, size: int) -> list[Value]:
        """The network's outputs for ``size`` windows, bound."""
        v = self.variables
        self._cut(size)
        sizes = sizes_at(self.run, {self.name: v["win_data"].shape}, LEVER)
        outputs = v.network(self.name, v["win_data"], sizes)
        for n, output in enumerate(outputs):
            if tuple(output.shape[2:]) != tuple(self.roi):
                given, made = list(self.roi), list(output.shape[2:])
                raise UsageError(f"{LEVER}: a window of {given} gives {made}; it is modelled where the sizes are the same")
            v.bind(f"seg_prob_out.{n}", output)
        return outputs

    def _cut(self, size: int) -> None:
        """``size`` windows as one tensor."""
        v = self.variables
        described = spec((size, self.volume.shape[1], *self.roi), self.dtype)
        if self.how.sw_batch_size > 1 or not self.inputs_here:
            op = "cat" if self.how.sw_batch_size > 1 else "to"
            v.bind("win_data", v.allocate(described, nbytes(described.shape, self.dtype), op, "windows, cut out of the volume"))
        else:
            v.bind("win_data", v.seen(self.volume, Spec(described.shape, contiguous_strides(self.volume.shape), self.dtype)))

    def _make_result(self, n: int, output: Value) -> None:
        """The result of the output number ``n``, and the weight that each voxel will meet."""
        if self.stitched_here:
            v = self.variables
            v.bind(f"output.{n}", v.made("zeros", shape=(self.samples, output.shape[1], *self.extents), dtype=self.dtype))
            v.bind(f"count.{n}", v.made("zeros", shape=(1, 1, *self.extents), dtype=self.dtype))

    def _add(self, whole: Value, part: Value, extents: Shape) -> None:
        """``whole[place] += part`` for one window of ``extents``."""
        v, strides = self.variables, whole.spec.strides
        place = v.seen(whole, Spec((part.shape[1], *extents), strides[1:], self.dtype))
        one = v.seen(part, Spec(part.shape[1:], part.spec.strides[1:], part.spec.dtype))
        v.called("add", place, one, inplace=True)
        self.run.ledger.let_go(place)
        self.run.ledger.let_go(one)

    def _buffered(self, steps: int) -> None:
        """Slab by slab, sample by sample."""
        done = 0
        while done < self.samples and done < ALIKE:
            for slab in _alike(self._slabs(steps)):
                self._slab(slab)
            done = done + 1

    def _slabs(self, steps: int) -> Iterator[Slab]:
        """The slabs of one sample: ``steps`` places along the buffered dim each."""
        along = self.how.buffer_dim % len(self.roi)
        apart = _apart(self.extents, self.roi, self.overlap)
        axes = list(zip(self.extents, self.roi, apart, strict=True))
        beside = prod(_count(*axis) for n, axis in enumerate(axes) if n != along)
        starts, window = _starts(*axes[along]), self.roi[along]
        for first in range(0, len(starts), steps):
            part = starts[first : first + steps]
            yield Slab(len(part) * beside, part[-1] + window - part[0])

    def _slab(self, slab: Slab) -> None:
        """Its windows, added up, then added to the result."""
        v, along = self.variables, self.how.buffer_dim % len(self.roi)
        shape = [slab.extent if n == along else e for n, e in enumerate(self.extents)]
        for size in _passes(slab.windows, self.how.sw_batch_size):
            output = self._predict(size)[0]
            if "buffer" not in v:
                v.bind("buffer", v.made("zeros", shape=(1, output.shape[1], *shape), dtype=self.dtype))
            v.bind("p", v.seen(output, Spec(output.shape[1:], output.spec.strides[1:], output.spec.dtype)))
            weighed = v.made("mul", v["p"], v["map"])
            place = v.seen(v["buffer"], Spec((1, output.shape[1], *self.roi), v["buffer"].spec.strides, self.dtype))
            v.called("add", place, weighed, inplace=True)
            self.run.ledger.let_go(place)
            self.run.ledger.let_go(weighed)
        if "output.0" not in v:
            self._make_result(0, output)
        v.forget("buffer")

    def _finish(self) -> None:
        """Each result is divided by the weights, which go; then the variables, but for the results."""
        v, kept = self.variables, []
        for n in range(len(self.run.graph.outputs)):
            if f"output.{n}" in v:
                v.called("div", v[f"output.{n}"], v[f"count.{n}"], inplace=True)
                v.forget(f"count.{n}")
                kept.append(f"output.{n}")
        v.end(*kept)


def window_count(extents: Sequence[int], roi: Sequence[int], overlap: Sequence[float]) -> int:
    """How many windows a volume takes that is no smaller than one."""
    return prod(_count(e, w, a) for e, w, a in zip(extents, roi, _apart(extents, roi, overlap), strict=True))


def _apart(extents: Sequence[int], roi: Sequence[int], overlap: Sequence[float]) -> tuple[int, ...]:
    """How far windows lie apart along each dim: ``_get_scan_interval``."""
    found = []
    for extent, window, share in zip(extents, roi, overlap, strict=True):
        interval = int(window * (1 - share))
        found.append(window if extent == window else max(interval, 1))
    return tuple(found)


def _count(extent: int, window: int, apart: int) -> int:
    """How many windows one dim takes."""
    return (extent - window + apart - 1) // apart + 1


def _starts(extent: int, window: int, apart: int) -> list[int]:
    """Where the windows of one dim begin; the last begins where it just fits."""
    found: list[int] = []
    at = 0
    while at + window < extent:
        found.append(at)
        at = at + apart
    return [*found, extent - window]


def _passes(windows: int, size: int) -> Iterator[int]:
    """How many windows go through the network at once, pass by pass: the first :data:`ALIKE` full ones, and what is left."""
    full, done = windows // size, 0
    while done < full and done < ALIKE:
        yield size
        done = done + 1
    rest = windows - full * size
    if rest > 0:
        yield rest


def _alike(slabs: Iterator[Slab]) -> Sequence[Slab]:
    """The slabs without those that have :data:`ALIKE` of the same size right before them."""
    found: list[Slab] = []
    for slab in slabs:
        if found[-ALIKE:] != [slab] * ALIKE:
            found.append(slab)
    return found
