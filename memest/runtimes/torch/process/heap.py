"""The steps played on glibc's malloc: tensors and, between them, the small blocks of each operator.

Where a tensor lies follows from what lies between its neighbours, and a little of that differs from run to run: with which free blocks the
import of Python's packages leaves the heap (their number follows the hashes that order Python's sets). So the steps are played several
times, each time from another such start (:func:`leave`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random

from memest.memory.allocators.glibc import MAPPED, Arena
from memest.memory.stream import Event
from memest.runtimes.torch.process.blocks import Goes, Layers, Script, new_ones, runs_of, scripts_of

ALIGNED = 64  # c10's gAlignment
BETWEEN = 24
# Bytes of a free block, and how many of them there are at least and at most when a network is made: malloc_info of five processes.
START = ((40, 50, 119), (56, 47, 61), (72, 42, 67), (88, 22, 33), (120, 0, 28), (152, 0, 8), (168, 0, 16), (504, 8, 13))


@dataclass(frozen=True, slots=True)
class Plan:
    """The events of a step, the scripts before them, where a call starts, and where each layer's backward begins and ends."""

    events: Sequence[Event]
    scripts: Sequence[Script]
    starts: frozenset[int]
    backward: dict[str, tuple[int, int]]

    @staticmethod
    def of(events: Sequence[Event], layers: Layers, *, first: bool) -> Plan:
        """Of one step."""
        scripts: list[Script] = []
        backward: dict[str, tuple[int, int]] = {}
        training = any(e.phase == "backward" for e in events)
        runs = runs_of(events, layers)
        for run, new in zip(runs, new_ones(runs, events), strict=True):
            scripts += scripts_of(run, training=training, new=first and new)
            if run.phase == "backward":
                backward.setdefault(run.layer, (run.start, run.stop - 1))
        return Plan(events, scripts, frozenset(run.start for run in runs), backward)


class Player:
    """Arenas with a step's tensors and small blocks on them; the last one is that of the thread that runs. ``tensors`` are addresses by the
    number of a storage, and ``absent`` the bytes of theirs that are never written; ``tied`` blocks go with a tensor, those ``due`` after an
    event. Without ``small`` blocks tensors lie side by side."""

    def __init__(self, arena: Arena, *, small: bool = True) -> None:
        self.arena = arena
        self.small = small
        self.others: list[Arena] = []
        self.tensors: dict[int, tuple[Arena, int]] = {}
        self.tied: dict[int, list[tuple[Arena, int]]] = {}
        self.due: dict[int, list[int]] = {}
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
        taken: dict[int, int] = {}
        for n, (event, script) in enumerate(zip(plan.events, plan.scripts, strict=True)):
            if n in plan.starts:
                self._free(taken.values())
                taken = {}
            if self.small:
                self._play(script, n, plan, taken)
            self.added = added[n]
            self.move(event)
            self._free(self.due.pop(n, ()))
        self._free(taken.values())
        return self.most

    def _free(self, addresses: Iterable[int]) -> None:
        for address in addresses:
            self.arena.free(address)

    def _play(self, script: Script, n: int, plan: Plan, taken: dict[int, int]) -> None:
        """The small blocks before event ``n``; those that the call itself gives back are ``taken``, by their number."""
        arena = self.arena
        malloc, free, memalign, cached = arena.malloc, arena.free, arena.memalign, arena.cached
        for do in script.brief if all(len(cached[size]) >= most for size, most in script.cached) else script.full:
            if isinstance(do, int):
                if do in taken:
                    free(taken.pop(do))
                continue
            number, (nbytes, aligned, goes, by) = do
            address = malloc(nbytes) if not aligned else memalign(aligned, nbytes) if aligned > 0 else arena.calloc(nbytes)
            if goes == "=":
                taken[number] = address
            else:
                self._stays(address, n, goes, by, plan)

    def _stays(self, address: int, n: int, goes: Goes, by: int, plan: Plan) -> None:
        """A block taken before event ``n`` that goes later."""
        last = len(plan.events) - 1
        if goes == "+":
            self.due.setdefault(min(n + by, last), []).append(address)
        elif goes == "T":
            at = min(max(n + by, 0), last)
            self.tied.setdefault(plan.events[at].storage.id, []).append((self.arena, address))
        elif goes == "E":
            self.due.setdefault(last, []).append(address)
        elif goes == "B":
            first, stop = plan.backward.get(plan.events[n].layer, (last, last))
            self.due.setdefault(max(n, min(first + by, stop)), []).append(address)


def leave(arena: Arena, seed: int) -> None:
    """Free blocks between others, as importing leaves them: of each size a number between the least and the most that was measured."""
    chance = Random(seed)
    found: list[int] = []
    for nbytes, least, most in START:
        for _ in range(chance.randint(least, most)):
            found.append(arena.malloc(nbytes))
            arena.malloc(BETWEEN)
    chance.shuffle(found)
    for address in found:
        arena.free(address)
