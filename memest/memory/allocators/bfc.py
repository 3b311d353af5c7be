"""The best-fit allocator with coalescing ("BFC") that TensorFlow and ONNX Runtime share: regions from the system, cut into chunks.

Sources: onnxruntime/core/framework/bfc_arena.cc and tensorflow/core/framework/bfc_allocator.cc (``Extend``, ``FindChunkPtr``,
``SplitChunk``, ``Merge``). The smallest free chunk that holds a request is taken, of equal ones that at the lowest address; it is split
where it is twice as large, or where the rest is ``most_dead``. Neighbours merge within a region. A request that no chunk holds takes a
region: a power of two, doubled each time; regions are given back only where the caller shrinks.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass, field

from memest.memory.planners.blocks import aligned

ROUNDING = 256  # bytes: kMinAllocationSize
ALWAYS_MAPPED = 32 << 20  # bytes: DEFAULT_MMAP_THRESHOLD_MAX of glibc's malloc
HIGH = 1 << 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """How regions are asked for: the ``first`` of so many bytes, each next one twice as large, up to ``most``; where not ``doubling``, as
    large as the request. ``most_dead`` bytes are the most that a chunk keeps without being split."""

    first: int = 1 << 20
    most: int = 1 << 30
    doubling: bool = True
    most_dead: int = 128 << 20


@dataclass(eq=False, slots=True)
class _Chunk:
    start: int
    size: int
    region: int
    free: bool = True
    before: _Chunk | None = None
    after: _Chunk | None = None


@dataclass(slots=True)
class Bfc:
    """An arena being played. Of equal chunks the lower one is taken: regions come from malloc's heap, one above the other, and
    from 32 MiB on from the system, above it, one below the other."""

    growth: Growth = field(default_factory=Growth)
    regions: dict[int, int] = field(default_factory=dict)  # bytes, by number in order of time
    most: int = 0  # bytes of all regions at once, at most
    _sizes: dict[int, int] = field(default_factory=dict)  # of all regions that there ever were
    _next: int = 0
    _made: int = 0
    _free: list[tuple[int, int, int]] = field(default_factory=list)  # size, place, key
    _chunks: dict[int, _Chunk] = field(default_factory=dict)  # free ones, by key
    _keys: int = 0
    _firsts: dict[int, _Chunk] = field(default_factory=dict)
    _written: set[tuple[int, int, int]] = field(default_factory=set)  # region, start and bytes of what was handed out
    _most_touched: dict[int, int] = field(default_factory=dict)  # of regions held before one was given back

    def __post_init__(self) -> None:
        self._next = aligned(self.growth.first, ROUNDING)

    @property
    def nbytes(self) -> int:
        """Bytes of the regions that are held now."""
        return sum(self.regions.values())

    def take(self, nbytes: int) -> _Chunk:
        """A chunk for a request of some bytes."""
        size = aligned(nbytes, ROUNDING)
        at = bisect_left(self._free, (size, -(1 << 62), 0))
        if at == len(self._free):
            self._extend(size)
            at = bisect_left(self._free, (size, -(1 << 62), 0))
        chunk = self._pop(at)
        if chunk.size >= 2 * size or chunk.size - size >= self.growth.most_dead:
            rest = _Chunk(chunk.start + size, chunk.size - size, chunk.region, before=chunk, after=chunk.after)
            if chunk.after is not None:
                chunk.after.before = rest
            chunk.after, chunk.size = rest, size
            self._put(rest)
        chunk.free = False
        self._written.add((chunk.region, chunk.start, nbytes))
        return chunk

    @property
    def touched(self) -> tuple[int, int]:
        """Bytes that were handed out at one time or another, of regions held at once and at most: what is resident of them, in mappings
        of their own and in malloc's heap."""
        most = self._touched()
        if sum(most.values()) < sum(self._most_touched.values()):
            most = self._most_touched
        mapped = sum(n for number, n in most.items() if self._sizes[number] >= ALWAYS_MAPPED)
        return mapped, sum(most.values()) - mapped

    def regions_touched(self) -> list[tuple[int, int]]:
        """Bytes of each region that is held now, and of those the ones that were handed out at one time or another."""
        touched = self._touched()
        return [(nbytes, touched[number]) for number, nbytes in self.regions.items()]

    def _touched(self) -> dict[int, int]:
        """The same by region, of those held now."""
        found = dict.fromkeys(self.regions, 0)
        ends = dict.fromkeys(self.regions, 0)
        for number, start, nbytes in sorted(self._written):
            if number in found:
                found[number] += max(0, start + nbytes - max(start, ends[number]))
                ends[number] = max(ends[number], start + nbytes)
        return found

    def give(self, chunk: _Chunk) -> None:
        """A chunk comes back, and merges with free neighbours."""
        for other in (chunk.after, chunk.before):
            if other is not None and other.free:
                self._drop(other)
                first, second = (chunk, other) if other is chunk.after else (other, chunk)
                first.size += second.size
                first.after = second.after
                if second.after is not None:
                    second.after.before = first
                chunk = first
        self._put(chunk)

    def shrink(self, keep: Iterable[int] = ()) -> None:
        """Regions in which nothing is in use go back to the system, but for those to ``keep``."""
        kept, touched = set(keep), self._touched()
        if sum(touched.values()) > sum(self._most_touched.values()):
            self._most_touched = touched
        for number in list(self.regions):
            first = self._firsts[number]
            if number not in kept and first.free and first.after is None:
                self._drop(first)
                del self.regions[number], self._firsts[number]
        self._next = aligned(self.growth.first, ROUNDING)

    def _extend(self, size: int) -> None:
        nbytes = size
        if self.growth.doubling:
            grown = False
            while size > self._next:
                self._next, grown = 2 * self._next, True
            nbytes = self._next
            if not grown:
                self._next = min(2 * self._next, max(self.growth.most, self._next))
        self.regions[self._made] = self._sizes[self._made] = nbytes
        chunk = _Chunk(0, nbytes, self._made)
        self._firsts[self._made] = chunk
        self._made += 1
        self.most = max(self.most, self.nbytes)
        self._put(chunk)

    def _put(self, chunk: _Chunk) -> None:
        chunk.free = True
        self._keys += 1
        self._chunks[self._keys] = chunk
        insort(self._free, (chunk.size, self._place(chunk), self._keys))

    def _place(self, chunk: _Chunk) -> int:
        far = chunk.region << 44
        return chunk.start + (HIGH - far if self.regions[chunk.region] >= ALWAYS_MAPPED else far)

    def _pop(self, at: int) -> _Chunk:
        _, _, key = self._free.pop(at)
        return self._chunks.pop(key)

    def _drop(self, chunk: _Chunk) -> None:
        at = bisect_left(self._free, (chunk.size, self._place(chunk), 0))
        self._pop(at)
