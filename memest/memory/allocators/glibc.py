"""glibc's malloc as of 2.36: which addresses it hands out, how far its heaps reach, and what it maps apart.

The algorithm of malloc/malloc.c and malloc/arena.c (``_int_malloc``, ``_int_free``, ``_int_memalign``, ``sysmalloc``, ``systrim``,
``malloc_consolidate``): thread cache, fast bins, unsorted, small and large bins, top, a mmap threshold that moves. Addresses are offsets
from the first heap's start. Of a heap all pages are resident up to the highest that was handed out since it was last trimmed
(:attr:`Arena.reached`): whoever takes bytes writes them.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict

PAGE, LEAST, HEADER = 4096, 32, 16
CACHED, FAST, SMALL = 1040, 128, 1024  # chunks up to CACHED go to the thread cache, up to FAST to fast bins; below SMALL bins are exact
MOST_CACHED = 7
CONSOLIDATES = 65536
THRESHOLD, MOST_THRESHOLD, TOP_PAD = 128 * 1024, 32 << 20, 128 * 1024
MAPPED = 1 << 46  # mapped blocks have addresses from here on
FIRST = 0x290  # the thread cache's own chunk
HEAP = 64 << 20  # of arenas but the main one
HEAP_HEADER = 0x8D0  # heap_info and malloc_state at the start of an arena's first heap
LATER_HEADER = 0x30


def chunk_size(nbytes: int) -> int:
    """Bytes of the chunk for a request."""
    size = (nbytes + 8 + 15) & ~15
    return size if size > LEAST else LEAST


def large_bin(size: int) -> int:
    """The number of the bin of a large chunk."""
    for shift, most, first in ((6, 48, 48), (9, 20, 91), (12, 10, 110), (15, 4, 119), (18, 2, 124)):
        if size >> shift <= most:
            return first + (size >> shift)
    return 126


def pages(nbytes: int) -> int:
    """``nbytes`` rounded up to whole pages."""
    return -(-nbytes // PAGE) * PAGE


class Arena:
    """The main arena, whose heap is the data segment, as one thread uses it. A threshold that is given does not move."""

    def __init__(self, *, mmap_threshold: int | None = None, trim_threshold: int | None = None, top_pad: int | None = None) -> None:
        self.moves = mmap_threshold is None and trim_threshold is None and top_pad is None
        self.mmap_threshold = THRESHOLD if mmap_threshold is None else mmap_threshold
        self.trim_threshold = THRESHOLD if trim_threshold is None else trim_threshold
        self.top_pad = TOP_PAD if top_pad is None else top_pad
        self.size: dict[int, int] = {}  # of every chunk
        self.ends: dict[int, int] = {}  # of chunks in bins: where they end, where they start
        self.unsorted: dict[int, None] = {}  # oldest first, as are those of a small bin
        self.small: dict[int, dict[int, None]] = {}
        self.filled = 0  # small bins that hold something: bit n, chunks of 16 n bytes
        self.sizes: list[int] = []  # of large chunks in bins, in order
        self.large: dict[int, list[int]] = {}
        self.fast: dict[int, list[int]] = {}
        self.cached: defaultdict[int, list[int]] = defaultdict(list)
        self.remainder = -1  # last_remainder
        self.maps: dict[int, int] = {}  # bytes of mapped blocks by chunk
        self.mapped = 0
        self.next_map = MAPPED
        self.reached = 0
        self.base, self.others = 0, 0  # where the present heap begins, and bytes reached in those before it
        self._begin()

    def _begin(self) -> None:
        self.end = pages(FIRST + self.top_pad + LEAST)  # of the heap
        self.top, self.top_size = FIRST, self.end - FIRST
        self.reached = FIRST

    @property
    def resident(self) -> int:
        """Bytes of pages that were written and not given back."""
        return pages(self.reached - self.base) + self.others + self.mapped

    # what is called

    def malloc(self, nbytes: int) -> int:
        """The address of ``nbytes``."""
        size = chunk_size(nbytes)
        if size <= CACHED:
            found = self.cached[size]
            if found:
                return found.pop() + HEADER
        return self._take(size) + HEADER

    def calloc(self, nbytes: int) -> int:
        """The same without the thread cache."""
        return self._take(chunk_size(nbytes)) + HEADER

    def memalign(self, alignment: int, nbytes: int) -> int:
        """``nbytes`` at a multiple of ``alignment``: more is taken, and what lies before and behind is given back."""
        if alignment <= HEADER:
            return self.malloc(nbytes)
        size = chunk_size(nbytes)
        chunk = self._take(chunk_size(size + alignment + LEAST))
        address = chunk + HEADER
        if address % alignment:
            aligned = -(-address // alignment) * alignment - HEADER
            if aligned - chunk < LEAST:
                aligned += alignment
            lead = aligned - chunk
            rest = self.size.pop(chunk) - lead
            self.size[aligned] = rest
            if chunk >= MAPPED:
                self.maps[aligned] = self.maps.pop(chunk)
                return aligned + HEADER
            self.size[chunk] = lead
            self._give(chunk)
            chunk = aligned
        if chunk < MAPPED:
            rest = self.size[chunk] - size
            if rest > LEAST:
                self.size[chunk], self.size[chunk + size] = size, rest
                self._give(chunk + size)
        return chunk + HEADER

    def free(self, address: int) -> None:
        """Give back what was handed out."""
        chunk = address - HEADER
        if chunk < MAPPED:
            self._give(chunk)
            return
        size = self.size.pop(chunk)
        self.mapped -= self.maps.pop(chunk)
        if self.moves and self.mmap_threshold < size <= MOST_THRESHOLD:
            self.mmap_threshold, self.trim_threshold = size, 2 * size

    def realloc(self, address: int, nbytes: int) -> int:
        """Another number of bytes at the same place, or at another."""
        chunk, size = address - HEADER, chunk_size(nbytes)
        if chunk >= MAPPED:
            return self._remap(chunk, size, nbytes)
        held, after = self.size[chunk], chunk + self.size[chunk]
        if held < size:
            if after == self.top and held + self.top_size >= size + LEAST:
                self.top, self.top_size = chunk + size, self.top_size + held - size
                self.size[chunk] = size
                self._reach(chunk + size)
                return address
            more = self.size[after] if self._binned(after) else 0
            if held + more < size:
                moved = self._take(size)
                if moved != after:
                    self._give(chunk)
                    return moved + HEADER
                held += self.size.pop(moved)
            else:
                self._unlink(after)
                del self.size[after]
                held += more
        self.size[chunk] = held
        if held - size >= LEAST:
            self.size[chunk], self.size[chunk + size] = size, held - size
            self._give(chunk + size)
        return address

    def _remap(self, chunk: int, size: int, nbytes: int) -> int:
        held, whole = self.size[chunk], self.maps[chunk]
        before = whole - held
        wanted = pages(size + before + 8)
        if wanted == whole or wanted > whole or size >= self.mmap_threshold or held - 8 >= size:
            self.size[chunk], self.maps[chunk] = wanted - before, wanted
            self.mapped += wanted - whole
            return chunk + HEADER
        moved = self.malloc(nbytes)
        self.free(chunk + HEADER)
        return moved

    # bins

    def _binned(self, chunk: int) -> bool:
        size = self.size.get(chunk)
        return size is not None and self.ends.get(chunk + size) == chunk

    def _unlink(self, chunk: int) -> None:
        """Out of its bin."""
        size = self.size[chunk]
        del self.ends[chunk + size]
        if chunk in self.unsorted:
            del self.unsorted[chunk]
        elif size < SMALL:
            found = self.small[size]
            del found[chunk]
            if not found:
                del self.small[size]
                self.filled &= ~(1 << (size >> 4))
        else:
            group = self.large[size]
            group.remove(chunk)
            if not group:
                del self.large[size]
                del self.sizes[bisect_left(self.sizes, size)]

    def _put(self, chunk: int, size: int) -> None:
        """Among the unsorted."""
        self.size[chunk] = size
        self.ends[chunk + size] = chunk
        self.unsorted[chunk] = None

    def _sort(self, chunk: int, size: int) -> None:
        """Into the bin of its size; of large ones of a size, a new one is the second."""
        if size < SMALL:
            found = self.small.get(size)
            if found is None:
                self.small[size] = {chunk: None}
                self.filled |= 1 << (size >> 4)
            else:
                found[chunk] = None
        elif size in self.large:
            self.large[size].insert(1, chunk)
        else:
            insort(self.sizes, size)
            self.large[size] = [chunk]

    def _split(self, chunk: int, size: int) -> int:
        """``size`` bytes of a chunk that is in no bin; the rest becomes unsorted."""
        rest = self.size[chunk] - size
        if rest >= LEAST:
            self.size[chunk] = size
            self._put(chunk + size, rest)
        return chunk

    # _int_malloc

    def _take(self, size: int) -> int:
        """A chunk of ``size`` bytes or a little more."""
        if size <= FAST and self.fast.get(size):
            return self._stash(size, self.fast[size])
        small = size < SMALL
        if small:
            if size in self.small:
                chunk = next(iter(self.small[size]))
                self._unlink(chunk)
                cached = self.cached[size]
                while size in self.small and len(cached) < MOST_CACHED:
                    other = next(iter(self.small[size]))
                    self._unlink(other)
                    cached.append(other)
                return chunk
        else:
            self.consolidate()
        while True:
            if self.unsorted:
                found = self._sorted(size, small)
                if found is not None:
                    return found
            fitting = self._fitting(size, small)
            if fitting is not None:
                return fitting
            if self.top_size >= size + LEAST:
                return self._from_top(size)
            if not self.consolidate():
                return self._from_system(size)

    def _stash(self, size: int, fast: list[int]) -> int:
        chunk = fast.pop()
        cached = self.cached[size]
        while fast and len(cached) < MOST_CACHED:
            cached.append(fast.pop())
        return chunk

    def _sorted(self, size: int, small: bool) -> int | None:
        """All unsorted chunks go to their bins, oldest first; one that fits is taken (or kept in the thread cache until all are sorted)."""
        kept = False
        unsorted, sizes, ends = self.unsorted, self.size, self.ends
        while unsorted:
            chunk = next(iter(unsorted))
            held = sizes[chunk]
            if small and chunk == self.remainder and len(unsorted) == 1 and held > size + LEAST:
                self._unlink(chunk)
                sizes[chunk] = size
                self._put(chunk + size, held - size)
                self.remainder = chunk + size
                return chunk
            del unsorted[chunk]
            if held != size:
                self._sort(chunk, held)
                continue
            del ends[chunk + held]
            if size > CACHED:
                return chunk
            cached = self.cached[size]
            if len(cached) >= MOST_CACHED:
                return chunk
            cached.append(chunk)
            kept = True
        return self.cached[size].pop() if kept else None

    def _fitting(self, size: int, small: bool) -> int | None:
        """Of the smallest chunks that are large enough, cut to size; None where there is none."""
        chunk = None
        if small:
            larger = self.filled >> (size >> 4) + 1 << (size >> 4) + 1
            if larger:
                chunk = next(iter(self.small[(larger & -larger).bit_length() - 1 << 4]))
        if chunk is None:
            at = bisect_left(self.sizes, size)
            if at == len(self.sizes):
                return None
            held = self.sizes[at]
            group = self.large[held]
            own = not small and large_bin(held) == large_bin(size)
            chunk = group[min(1, len(group) - 1)] if own else group[-1]
        held = self.size[chunk]
        self._unlink(chunk)
        self._split(chunk, size)
        if small and held - size >= LEAST:
            self.remainder = chunk + size
        return chunk

    def _from_top(self, size: int) -> int:
        chunk = self.top
        self.size[chunk] = size
        self.top = chunk + size
        self.top_size -= size
        self._reach(self.top)
        return chunk

    def _reach(self, end: int) -> None:
        if end > self.reached:
            self.reached = end

    def _from_system(self, size: int) -> int:
        if size >= self.mmap_threshold:
            return self._map(size)
        more = pages(size + self.top_pad + LEAST - self.top_size)
        self.end += more
        self.top_size += more
        return self._from_top(size)

    def _map(self, size: int) -> int:
        whole = pages(size + 8)
        chunk = self.next_map
        self.next_map += whole + PAGE
        self.size[chunk] = self.maps[chunk] = whole
        self.mapped += whole
        return chunk

    # _int_free

    def _give(self, chunk: int) -> None:
        size = self.size[chunk]
        if size <= CACHED:
            cached = self.cached[size]
            if len(cached) < MOST_CACHED:
                cached.append(chunk)
                return
            if size <= FAST:
                self.fast.setdefault(size, []).append(chunk)
                return
        if self._join(chunk) >= CONSOLIDATES:
            self.consolidate()
            if self.top_size >= self.trim_threshold:
                self._trim()

    def _join(self, chunk: int) -> int:
        """A free chunk and its free neighbours become one; its bytes."""
        size = self.size.pop(chunk)
        before = self.ends.get(chunk)
        if before is not None:
            self._unlink(before)
            size += self.size.pop(before)
            chunk = before
        after = chunk + size
        if after == self.top:
            self.top, self.top_size = chunk, self.top_size + size
            return self.top_size
        more = self.size.get(after)
        if more is not None and self.ends.get(after + more) == after:
            self._unlink(after)
            del self.size[after]
            size += more
        self.size[chunk] = size  # as _put does
        self.ends[chunk + size] = chunk
        self.unsorted[chunk] = None
        return size

    def consolidate(self) -> bool:
        """Chunks of fast bins join their neighbours; whether there were any."""
        if not self.fast:
            return False
        fast, self.fast = self.fast, {}
        for size in sorted(fast):
            for chunk in reversed(fast[size]):
                self._join(chunk)
        return any(fast.values())

    def _trim(self) -> None:
        spare = self.top_size - LEAST - 1 - self.top_pad
        extra = spare // PAGE * PAGE
        if extra > 0:
            self.end -= extra
            self.top_size -= extra
            self.reached = min(self.reached, self.end)


class ThreadArena(Arena):
    """An arena of another thread: heaps of 64 MiB, which grow by pages; what no heap has room for is mapped."""

    def _begin(self) -> None:
        self.end = pages(HEAP_HEADER + FIRST + self.top_pad + LEAST)
        self.top = self.reached = HEAP_HEADER + FIRST
        self.top_size = self.end - self.top

    def _from_system(self, size: int) -> int:
        if size >= self.mmap_threshold:
            return self._map(size)
        more = pages(LEAST + size - self.top_size)
        if self.end + more - self.base <= HEAP:
            self.end += more
            self.top_size += more
            return self._from_top(size)
        if size + LEAST + LATER_HEADER > HEAP:
            return self._map(size)
        old, rest = self.top, (self.top_size - LEAST) & ~15
        self.others += pages(self.reached - self.base)
        self.base = -(-self.end // HEAP) * HEAP
        self.top = self.base + LATER_HEADER
        self.end = self.base + min(HEAP, pages(size + LEAST + LATER_HEADER + self.top_pad))
        self.top_size = self.end - self.top
        self.reached = self.top
        if rest >= LEAST:
            self.size[old] = rest
            self._give(old)
        return self._from_top(size)
