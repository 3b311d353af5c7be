"""How a volume may be cut for a network: its sizes, how far the network sees, and parts that windows or workers take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil, prod
from typing import TYPE_CHECKING, NamedTuple

from memest.errors import MemestError, UnsupportedError, UsageError
from memest.levers.receptive import receptive_field
from memest.ops.facts import BATCH, SAMPLE
from memest.ops.table import operator_named
from memest.sizes.dims import Expr

if TYPE_CHECKING:
    from memest.estimate.estimate import Estimate

MOST = 24  # sizes of windows that are tried
STEP = 8  # what windows are multiples of, where how far the network sees is not known


def takes_statistics(estimate: Estimate) -> bool:
    """Whether a layer takes its mean and variance over what it is given: over a window they are others."""
    for layer in estimate.played.layers:
        row = operator_named(layer.op)
        kept = dict(zip((role.rstrip("?") for role in row.roles), layer.tensors, strict=False)).get("running_mean")
        if row.facts.statistics is SAMPLE or (row.facts.statistics is BATCH and kept is None):
            return True
    return False


def volume_of(estimate: Estimate) -> tuple[tuple[int, ...], list[str]]:
    """The sizes of the one input behind batch and channels, and their names."""
    inputs = estimate.played.inputs
    if len(inputs) != 1 or len(inputs[0].shape) < 3:
        raise UnsupportedError("the network has not one image or volume as its input")
    dims = inputs[0].shape[2:]
    names = [d.args[0] for d in dims if isinstance(d, Expr) and d.op == "symbol"]
    if len(set(names)) != len(dims):
        raise UnsupportedError("the sizes of the input are not free, each for itself")
    return estimate.input_shapes[inputs[0].name][2:], names


def field_of(estimate: Estimate, dims: int, halo: tuple[int, ...] | None) -> tuple[tuple[int, ...] | None, tuple[int, ...]]:
    """The network's halo (None: not known) and what windows are multiples of."""
    try:
        field = receptive_field(estimate.played)
    except MemestError as e:
        if halo is None:
            raise UnsupportedError(str(e)) from None
        return None, (STEP,) * dims
    return field.halo, field.step


def window_sizes(extents: tuple[int, ...], halo: tuple[int, ...], step: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Windows, the larger first: each splits what was longest in the one before once more."""
    parts = [1] * len(extents)
    seen: set[tuple[int, ...]] = {extents}
    for _ in range(MOST):
        cores = [ceil(ceil(e / p) / s) * s for e, p, s in zip(extents, parts, step, strict=True)]
        window = tuple(min(e, c + 2 * h) for e, c, h in zip(extents, cores, halo, strict=True))
        if window not in seen:
            seen.add(window)
            yield window
        able = [d for d, (e, h, s, c) in enumerate(zip(extents, halo, step, cores, strict=True)) if c > s and s + 2 * h < e]
        if not able:
            return
        parts[max(able, key=lambda d: (cores[d] + 2 * halo[d], -d))] += 1


def checked_halo(value: object) -> tuple[int, ...] | None:
    """A halo as a tuple; UsageError for what is none."""
    given = (value,) if isinstance(value, int) and not isinstance(value, bool) else value
    if given is None:
        return None
    if isinstance(given, list | tuple) and given and all(isinstance(h, int) and not isinstance(h, bool) and h >= 0 for h in given):
        return tuple(given)
    raise UsageError(f"halo is a number of at least 0, or one a dim, got {value!r:.60}")


class Partition(NamedTuple):
    """A volume cut into ``parts`` along each dim, one a worker: the largest part with its halos, and all that the parts read together, as a
    multiple of the volume."""

    parts: tuple[int, ...]
    largest: tuple[int, ...]
    read: float


def partition(extents: Sequence[int], workers: int, halo: Sequence[int], step: Sequence[int]) -> Partition:
    """The cut over so many ``workers`` whose largest part is the smallest. Parts begin at multiples of ``step`` and read ``halo`` more to
    each side that is not the volume's border. UnsupportedError where no dim has so many parts."""
    found: Partition | None = None
    for parts in _products(workers, len(extents)):
        along = [_parts(e, n, h, s) for e, n, h, s in zip(extents, parts, halo, step, strict=True)]
        if not all(along):
            continue
        made = Partition(parts, tuple(max(part) for part in along), prod(sum(part) / e for part, e in zip(along, extents, strict=True)))
        if found is None or (prod(made.largest), made.read) < (prod(found.largest), found.read):
            found = made
    if found is None:
        raise UnsupportedError(f"{workers} workers: the volume cannot be cut so often at multiples of {'x'.join(map(str, step))}")
    return found


class Share(NamedTuple):
    """What one of those who share a volume computes, the largest; the halo that it reads, and that which the network sees (None: not
    known)."""

    extents: tuple[int, ...]
    halo: tuple[int, ...]
    field: tuple[int, ...] | None

    @property
    def sees_all(self) -> bool:
        """Whether a part reads as far as the network sees."""
        return self.field is not None and all(h >= f for h, f in zip(self.halo, self.field, strict=True))


def shared(whole: Estimate, split: int, halo: tuple[int, ...] | None) -> Share:
    """The largest of ``split`` parts of a volume, with the ``halo`` around it (None: all that the network sees), in whole steps of the
    network. UsageError where each part would be the whole."""
    extents, _ = volume_of(whole)
    wanted = None if halo is None else halo * len(extents) if len(halo) == 1 else halo
    if wanted is not None and len(wanted) != len(extents):
        raise UsageError(f"halo has {len(wanted)} sizes, and the volume {len(extents)}: give one, or one a dim")
    field, step = field_of(whole, len(extents), wanted)
    read = wanted if wanted is not None else field
    assert read is not None
    ahead = tuple(ceil(h / s) * s for h, s in zip(read, step, strict=True))
    cut = partition(extents, split, ahead, step)
    if cut.largest == extents:
        text = "x".join(map(str, ahead))
        why = "that the network sees" if wanted is None else "of its halo"
        raise UsageError(f"split {split}: with the {text} around its part {why}, each rank reads the whole volume")
    return Share(cut.largest, ahead, field)


def _parts(extent: int, parts: int, halo: int, step: int) -> list[int]:
    """What each of the ``parts`` of one dim reads; none where there are not so many."""
    core = ceil(ceil(extent / parts) / step) * step
    if core * (parts - 1) >= extent:
        return []
    return [min(extent, (n + 1) * core + halo) - max(0, n * core - halo) if parts > 1 else extent for n in range(parts)]


def _products(number: int, factors: int) -> Iterator[tuple[int, ...]]:
    """All ways to write ``number`` as a product of so many ``factors``, in order."""
    if factors == 1:
        yield (number,)
        return
    for first in range(1, number + 1):
        if number % first == 0:
            for rest in _products(number // first, factors - 1):
                yield (first, *rest)
