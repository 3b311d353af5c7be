"""The steps played on glibc's malloc: tensors and, between them, the small blocks of each operator.

Where a tensor lies follows from what lies between its neighbours, and that differs from run to run. So the steps are played several times,
each time with other small blocks left out (:class:`Noise`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from memest.memory.allocators.glibc import CACHED, MAPPED, Arena
from memest.memory.stream import Event
from memest.runtimes.torch.process.blocks import Script, runs_of, scripts_of

ALIGNED = 64  # c10's gAlignment


class Noise(NamedTuple):
    """One way a run may go: the ``seed`` of what is left out, and the share of the small blocks that is."""

    seed: int
    left_out: float


@dataclass(frozen=True, slots=True)
class Plan:
    """The events of a step, the scripts that follow them, and where each layer's backward begins and ends."""

    events: Sequence[Event]
    scripts: Sequence[Script]
    backward: dict[str, tuple[int, int]]

    @staticmethod
    def of(events: Sequence[Event], *, first: bool) -> Plan:
        """Of one step."""
        scripts: list[Script] = []
        backward: dict[str, tuple[int, int]] = {}
        for run in runs_of(events):
            scripts += scripts_of(run, first=first)
            if run.phase == "backward":
                backward.setdefault(run.layer, (run.start, run.stop - 1))
        return Plan(events, scripts, backward)


class Player:
    """Arenas with a step's tensors and small blocks on them; the last one is that of the thread that runs. ``tensors`` are addresses by the
    number of a storage, and ``absent`` the bytes of theirs that are never written; ``tied`` blocks go with a tensor."""

    def __init__(self, arena: Arena, noise: Noise) -> None:
        self.arena = arena
        self.others: list[Arena] = []
        self.random = Random(noise.seed)
        self.left_out = noise.left_out
        self.tensors: dict[int, tuple[Arena, int]] = {}
        self.tied: dict[int, list[tuple[Arena, int]]] = {}
        self.absent: dict[int, int] = {}
        self.besides = 0
        self.most, self.added = 0, 0

    def go_on(self, arena: Arena) -> None:
        """Another thread runs, on its own arena; the thresholds are the process's."""
        if arena is not self.arena:
            arena.mmap_threshold, arena.trim_threshold = self.arena.mmap_threshold, self.arena.trim_threshold
            self.others = [a for a in (*self.others, self.arena) if a is not arena]
            self.arena = arena
            self._look()

    def _look(self) -> None:
        self.besides = sum(a.resident for a in self.others)

    def make(self, number: int, nbytes: int, unwritten: int = 0) -> None:
        """A tensor comes; the pages of what is ``unwritten`` never do where it is mapped (on the heap they may have been there before)."""
        if nbytes:
            arena = self.arena
            self.tensors[number] = arena, arena.memalign(ALIGNED, nbytes)
            if unwritten and self.tensors[number][1] >= MAPPED:
                self.absent[number] = unwritten
            found = arena.resident + self.besides + self.added - sum(self.absent.values())
            if found > self.most:
                self.most = found

    def drop(self, number: int) -> None:
        """A tensor goes, and what is tied to it."""
        found = self.tensors.pop(number, None)
        self.absent.pop(number, None)
        if found is not None:
            found[0].free(found[1])
            if found[0] is not self.arena:
                self._look()
        for arena, small in self.tied.pop(number, ()):
            arena.free(small)

    def move(self, event: Event) -> None:
        """A tensor comes or goes, without anything beside."""
        if event.delta > 0:
            self.make(event.storage.id, event.delta, event.storage.unwritten)
        else:
            self.drop(event.storage.id)

    def step(self, plan: Plan, added: Sequence[int]) -> int:
        """One step; the most resident bytes of the arenas and what is ``added`` to them by each event."""
        self.most = self.arena.resident + self.besides + added[0]
        arena, events, backward = self.arena, plan.events, plan.backward
        due: dict[int, list[int]] = {}
        ends: list[int] = []
        uniform, left_out, free = self.random.random, self.left_out, arena.free
        cached = arena.cached
        last = len(events) - 1
        for n, (event, script) in enumerate(zip(events, plan.scripts, strict=True)):
            self.added = added[n]
            self.move(event)
            for address in due.pop(n, ()):
                free(address)
            if left_out == 1:
                continue
            for stays in script.stays:
                if left_out and uniform() < left_out:
                    continue
                address = arena.memalign(stays.aligned, stays.nbytes) if stays.aligned else arena.malloc(stays.nbytes)
                goes, by = stays.goes, stays.by
                if goes == "T":
                    at = min(max(n + by, 0), last)
                    self.tied.setdefault(events[at].storage.id, []).append((arena, address))
                elif goes == "E" or (goes == "+" and n + by > last):
                    ends.append(address)
                elif goes == "+":
                    due.setdefault(n + by, []).append(address)
                elif goes == "B":
                    first, stop = backward.get(event.layer, (last, last))
                    due.setdefault(max(n + 1, min(first + by, stop)), []).append(address)
            for nbytes, aligned, most in script.passing:
                if aligned or nbytes > CACHED or len(cached[(nbytes + 23) & ~15]) < most:
                    self._pass(nbytes, aligned, most)
        for waiting in due.values():
            ends += waiting
        for address in ends:
            free(address)
        return self.most

    def _pass(self, nbytes: int, aligned: int, most: int) -> None:
        """Blocks come and go; those that the thread cache has would change nothing."""
        arena = self.arena
        for address in [arena.memalign(aligned, nbytes) if aligned else arena.malloc(nbytes) for _ in range(most)]:
            arena.free(address)
