"""What a session takes for its activations: the memory pattern's block, and the arena's regions, run after run.

Sources: onnxruntime/core/framework/mem_pattern_planner.h (the block; kernels' temporaries and what the caller gets are no part of it),
execution_frame.cc (from the second run of a shape on it is taken when the run begins, and given back when it ends) and bfc_arena.cc.
"""

from __future__ import annotations

from collections.abc import Iterator

from memest.machines.engines import OnnxSettings
from memest.memory.allocators.bfc import Bfc
from memest.memory.planners.best_fit import best_fit
from memest.memory.planners.blocks import blocks_of
from memest.memory.stream import Storage, Stream
from memest.runtimes.onnxruntime.playing import RETURNED
from memest.runtimes.onnxruntime.weights import TRANSPOSED

TRACED_ALIGNMENT = 256  # bytes: what the pattern rounds sizes up to, whatever the allocator does
RUNS = 3  # after which an arena that is not shrunk grows no more


def pattern_block(stream: Stream) -> int:
    """Bytes of the block that each run from the second on takes for its buffers."""
    return best_fit([block for block, storage in blocks_of(stream, TRACED_ALIGNMENT) if is_traced(storage)]).nbytes


def is_traced(storage: Storage) -> bool:
    """Whether a request is part of the pattern."""
    return storage.category == "activation" and storage.reason != RETURNED


def most_alive(stream: Stream, *, traced: bool = True) -> int:
    """The most bytes asked for and alive at once, with or without what the pattern's block holds."""
    alive = most = 0
    for event in stream.events:
        if traced or not is_traced(event.storage):
            alive += event.delta
            most = max(most, alive)
    return most


def arena_after(stream: Stream, settings: OnnxSettings, runs: int = RUNS) -> Bfc:
    """The arena after so many runs; its ``most`` are the bytes of its regions at once."""
    arena = Bfc()
    for storage in stream.residents:
        if storage.reason == TRANSPOSED:
            arena.take(storage.nbytes)
    block = pattern_block(stream) if settings.pattern else 0
    for run in range(runs):
        taken: dict[int, object] = {}
        for storage, asked in _requests(stream, block if run else 0):
            if asked:
                taken[storage.id] = arena.take(storage.nbytes)
            else:
                arena.give(taken.pop(storage.id))  # type: ignore[arg-type]
        if settings.shrinkage:
            arena.shrink(keep=(0,))
        for chunk in taken.values():
            arena.give(chunk)  # type: ignore[arg-type]
    return arena


def _requests(stream: Stream, block: int) -> Iterator[tuple[Storage, bool]]:
    """A run's requests: the block first, where there is one, instead of what it holds."""
    whole = Storage(-1, block, "activation", "", "", "")
    if block:
        yield whole, True
    for event in stream.events:
        if not (block and is_traced(event.storage)):
            yield event.storage, event.delta > 0
    if block:
        yield whole, False
