"""Loading a file with the weights in it, as malloc sees it: what stays of the copies that are made on the way.

The order, recorded by an interposer under 1.32.0 (``Session``'s requests of 64 KiB and more, all of them; sources in brackets):

1. the file is parsed through a buffer of 4 MiB; each weight is a string of protobuf's, with a zero behind it (model.cc, ``Model::Load``);
2. each becomes a tensor of its own, and its string goes (graph.cc, ``ConvertInitializersIntoOrtValues``);
3. filters are put in blocks, one after the other: unpacked, blocked, written as a string, made a tensor; the first three go
   (nchwc_transformer.cc);
4. the filters as they were go, when the graph is resolved again (graph.cc, ``CleanUnusedInitializersAndNodeArgs``);
5. right operands of products are packed, each before its original goes (session_state.cc, ``PrepackConstantInitializedTensors``).

Where each lies is glibc's doing (:mod:`memest.memory.allocators.glibc`), which gives little of it back. Small blocks stand between, and
where they come to lie decides which holes are closed: what is asked for around each weight is played (``pinned``), or left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from memest.memory.allocators.glibc import Arena
from memest.memory.stream import Storage
from memest.runtimes.onnxruntime.weights import BLOCKED, BY_COLUMNS, TRANSPOSED

PARSED_THROUGH = 4 << 20  # bytes: protobuf's FileInputStream here
ALIGNED = 64
CHUNK, BOOKKEEPING = 256, 8  # bytes of a region, and what its arena keeps for each of them
PARSED, GRAPH, KERNELS = 2_600, 7_000, 1_700  # bytes for a node that stay when it is read, made and prepared; its part of 12 KiB
WITH_TENSOR = (160, 32, *(40, 32, 40, 32, 32, 33) * 2, 40, 32, 32, 72, 22)  # bytes of blocks that go with it
BETWEEN = (48, 17)  # what stays of each of the copies
WITH_COPY = (160, 32, 256, *(40, 32, 40, 32, 32, 33) * 2, 40, 32, 56, 17, 72, 56, 2056, 160, 32, *(48, 40) * 3, 48, 48, 48, 48)
BEHIND = (48, 672, 31, 56, *(304, 32, 32) * 8, 48, 56, 17, 160, 32, 88)


class Loaded(NamedTuple):
    """Resident bytes of the heap and of mapped blocks: at most while loading, and with activations."""

    loading: int
    running: int


def loaded(weights: Iterable[Storage], nodes: int, regions: Iterable[tuple[int, int]], *, pinned: bool) -> Loaded:
    """A session made of a file with these weights in it, that takes regions of so many bytes, of which so many are written."""
    player = _Player(pinned)
    _load(player, [w for w in weights if w.category != "input"], nodes)
    loading = max(player.most, player.arena.resident)
    running = player.arena.resident
    for nbytes, touched in regions:
        before = player.arena.resident
        player.take(nbytes // CHUNK * BOOKKEEPING)
        player.take(nbytes, ALIGNED)
        running += min(player.arena.resident - before, touched + nbytes // CHUNK * BOOKKEEPING)
    return Loaded(loading, running)


def _load(player: _Player, held: Sequence[Storage], nodes: int) -> None:
    """What is asked for and given back until the session is there."""
    buffer = player.take(PARSED_THROUGH)
    strings = [player.take(w.nbytes + 1) for w in held]
    player.take(PARSED * nodes)
    player.give(buffer)
    player.take(GRAPH * nodes)
    tensors = []
    for weight, string in zip(held, strings, strict=True):
        tensors.append([player.take(weight.nbytes, ALIGNED), *player.small(*WITH_TENSOR)])
        player.give(string)
    for weight in held:
        if weight.reason == BLOCKED:
            player.small(*BETWEEN)
            unpacked = player.take(weight.nbytes, ALIGNED)
            player.small(*BETWEEN)
            made, string = player.take(weight.nbytes), player.take(weight.nbytes + 1)
            player.take(weight.nbytes, ALIGNED)
            player.small(*WITH_COPY)
            player.give(string, made, unpacked)
            player.small(*BEHIND)
    for weight, tensor in zip(held, tensors, strict=True):
        if weight.reason == BLOCKED:
            player.give(*tensor)
    for weight, tensor in zip(held, tensors, strict=True):
        if weight.reason == BY_COLUMNS:
            player.take(weight.nbytes, ALIGNED)
        if weight.reason in (BY_COLUMNS, TRANSPOSED):
            player.give(tensor[0])
    player.take(KERNELS * nodes)


class _Player:
    """The main arena, and the most that was resident of it."""

    def __init__(self, pinned: bool) -> None:
        self.pinned = pinned
        self.arena = Arena()
        self.most = 0

    def take(self, nbytes: int, alignment: int = 0) -> int:
        """The address of so many bytes."""
        address = self.arena.memalign(alignment, nbytes)
        self.most = max(self.most, self.arena.resident)
        return address

    def give(self, *addresses: int) -> None:
        """They are not needed any more."""
        for address in addresses:
            self.arena.free(address)

    def small(self, *sizes: int) -> list[int]:
        """The addresses of small blocks, where they are played."""
        return [self.arena.malloc(nbytes) for nbytes in sizes if self.pinned]
