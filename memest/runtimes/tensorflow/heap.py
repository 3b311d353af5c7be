"""Where tensors lie without oneDNN: each is a request to glibc's malloc, made by the thread that runs the kernel, on that thread's arena.

Variables are made by the main thread; what is fed lies in NumPy's arrays. Source: tensorflow/core/framework/cpu_allocator_impl.cc.
"""

from __future__ import annotations

from memest.memory.allocators.glibc import MAPPED, Arena, ThreadArena
from memest.memory.stream import Storage
from memest.runtimes.tensorflow.memory import Step, renamed

ALIGNED = 64  # EIGEN_MAX_ALIGN_BYTES
RUNS = 3  # steps after which the heaps hardly grow


class Heaps:
    """The arenas of a process; ``most`` bytes of them were resident at once."""

    def __init__(self, workers: int) -> None:
        self.main = Arena()
        self.arenas: list[Arena] = [ThreadArena() for _ in range(workers)]
        self.places: dict[int, tuple[Arena, int]] = {}
        self.absent: dict[int, int] = {}
        self.most = 0
        self._threshold = self.main.mmap_threshold, self.main.trim_threshold

    def take(self, storage: Storage, arena: Arena) -> None:
        """A tensor comes; its pages that are not written come with it only where they were there before."""
        arena.mmap_threshold, arena.trim_threshold = self._threshold
        before = arena.reached
        address = arena.memalign(ALIGNED, storage.nbytes)
        self.places[storage.id] = arena, address
        if storage.unwritten and address >= MAPPED:
            self.absent[storage.id] = storage.unwritten
        elif storage.unwritten:
            arena.reached = max(before, min(arena.reached, address + storage.nbytes - storage.unwritten))
        resident = self.main.resident + sum(a.resident for a in self.arenas) - sum(self.absent.values())
        self.most = max(self.most, resident)

    def give(self, number: int) -> None:
        """It goes, to where it came from; thresholds are the process's."""
        arena, address = self.places.pop(number)
        self.absent.pop(number, None)
        arena.mmap_threshold, arena.trim_threshold = self._threshold
        arena.free(address)
        self._threshold = arena.mmap_threshold, arena.trim_threshold


def resident_of(step: Step) -> int:
    """Bytes of tensors, and of what malloc keeps between them, that are resident at once at most in some steps; what is fed is not."""
    heaps = Heaps(1 + max(step.workers, default=0))
    for storage in step.residents:
        if storage.category != "input" and storage.nbytes:
            heaps.take(storage, heaps.main)
    for _ in range(RUNS):
        for event, worker in zip(step.events, step.workers, strict=True):
            if event.delta > 0:
                heaps.take(event.storage, heaps.arenas[worker])
            elif event.storage.id in heaps.places:
                heaps.give(event.storage.id)
        for new, old in renamed(step.events):
            heaps.places[old] = heaps.places.pop(new)
    return heaps.most
