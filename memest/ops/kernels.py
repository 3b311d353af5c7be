"""A sealed kernel by numbers at any sizes: what it asks for and gives back, of which only sizes change.

A kernel that asks a library for its workspace alone is compiled like a step: played once with symbols, with an :class:`Inquiry` where the
library is asked. It holds while the comparisons made on the way come out the same; elsewhere, and where a kernel is a search of its own,
it is played. A buffer in which a library tries its ways is left out: a step that has one is not compiled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from memest.ops.searched import REMEMBERED, InnerPeak
from memest.ops.tape import Event
from memest.sizes.conditions import reduced
from memest.sizes.dims import Dim, Guard, Opaque, expression, plain, recording, symbol
from memest.sizes.functions import compile_sizes
from memest.sizes.remembering import kept

MOST_KERNELS = 4_096
SOON = 4  # times that a kernel is played before it is compiled

Spread = tuple[int, int] | None


@runtime_checkable
class Inquiry(Protocol):
    """What stands in an :class:`Opaque` where a library is asked for a workspace."""

    def scratch(self, *sizes: int) -> tuple[int, Spread]:
        """The bytes of the scratch at these sizes (0: none), and their range where they are modelled."""


class InnerEvents(NamedTuple):
    """What a sealed kernel asks for and gives back: ``n`` and ``~n``, numbered through its ``outputs``, what libraries ``kept`` (by name),
    and its ``scratch``, each with its bytes (0: there is none). ``spreads`` are ranges of scratch by number."""

    events: tuple[int, ...]
    outputs: tuple[int, ...]
    kept: tuple[tuple[str, int], ...]
    scratch: tuple[int, ...]
    spreads: tuple[tuple[int, tuple[int, int]], ...]


@kept(REMEMBERED)
def inner_events(inner: Opaque, sizes: tuple[int, ...]) -> InnerEvents | None:
    """What the kernel that ``inner`` stands for does at these sizes; None where it leaves tensors behind that go when the row around it
    ends, or gives one twice. Equal kernels are one object, which is told at once."""
    peak = inner.function
    assert isinstance(peak, InnerPeak)
    return _kernel(inner).at(peak, sizes) or _played(peak, sizes)


class _Kernel:
    """Played a few times, then compiled."""

    __slots__ = ("_compiled", "_left")

    def __init__(self) -> None:
        self._left = SOON
        self._compiled: _Compiled | None = None

    def at(self, peak: InnerPeak, sizes: tuple[int, ...]) -> InnerEvents | None:
        """What the compiled kernel says; None where it is none, or does not hold."""
        if self._compiled is None:
            if self._left > 0:
                self._left -= 1
                return None
            self._compiled = _Compiled(peak, sizes)
        return self._compiled.at(sizes)


@kept(MOST_KERNELS)
def _kernel(inner: Opaque) -> _Kernel:
    return _Kernel()


def _played(peak: InnerPeak, sizes: tuple[int, ...]) -> InnerEvents | None:
    closed = peak.closed(sizes)
    if closed is None:
        return None
    trace, given = closed
    bytes_of = {e.slot: e.nbytes for e in trace.events if e.nbytes > 0 and e.tried is None}
    held, scratch, events = _numbered([e for e in trace.events if e.slot in bytes_of], given)
    return InnerEvents(
        events=events,
        outputs=tuple([bytes_of.get(slot, 0) for slot in given]),
        kept=tuple([(e.keep, e.nbytes) for e in held]),
        scratch=tuple([e.nbytes for e in scratch]),
        spreads=tuple([(n, e.spread) for n, e in enumerate(scratch) if e.spread is not None]),
    )


def _numbered(events: Sequence[Event], given: Sequence[int]) -> tuple[list[Event], list[Event], tuple[int, ...]]:
    """What is kept, what is scratch, and the events by number."""
    made = [e for e in events if plain(e.nbytes) != -1]
    held = [e for e in made if e.keep]
    scratch = [e for e in made if not e.keep and e.slot not in given]
    places = {slot: n for n, slot in enumerate([*given, *[e.slot for e in held], *[e.slot for e in scratch]])}
    return held, scratch, tuple([~places[e.slot] if plain(e.nbytes) == -1 else places[e.slot] for e in events])


class _Compiled:
    """A kernel that asks a library for its workspace, played once with symbols; of any other it says nothing. A sealed kernel inside it is
    asked in its turn."""

    def __init__(self, peak: InnerPeak, sizes: tuple[int, ...]) -> None:
        names = [f"a{n}" for n in range(len(sizes))]
        guards: dict[Guard, None] = {}
        with recording(guards):
            closed = peak.closed([Dim(n, symbol(s)) for n, s in zip(sizes, names, strict=True)])
        self._asks = False
        if closed is None:
            return
        trace, given = closed
        bytes_of = {e.slot: expression(e.nbytes) for e in trace.events if plain(e.nbytes) != -1 and e.tried is None}
        there = {slot for slot, size in bytes_of.items() if size != 0}
        held, scratch, self._events = _numbered([e for e in trace.events if e.slot in there], given)
        formulas = [bytes_of[s.slot] for s in scratch]
        self._opaque = [(n, size) for n, size in enumerate(formulas) if isinstance(size, Opaque)]
        outputs = tuple([bytes_of[slot] if slot in there else 0 for slot in given])
        self._absent = outputs.count(0)
        known = all(isinstance(o.function, InnerPeak | Inquiry) for _, o in self._opaque) and not any(e.spread for e in scratch)
        self._asks = known and not held and any(isinstance(o.function, Inquiry) for _, o in self._opaque)
        self._names, self._conditions = names, reduced(guards, names)
        others = tuple([0 if isinstance(size, Opaque) else size for size in formulas])
        self._values = compile_sizes((outputs, others, tuple([o.args for _, o in self._opaque])), names)

    def at(self, sizes: tuple[int, ...]) -> InnerEvents | None:
        """What it does at these sizes; None where it could do something else."""
        if not self._asks or not self._conditions.hold(dict(zip(self._names, sizes, strict=True))):
            return None
        outputs, known, arguments = self._values(*sizes)
        scratch: list[tuple[int, Spread] | InnerEvents] = [(nbytes, None) for nbytes in known]
        for (n, opaque), given in zip(self._opaque, arguments, strict=True):
            asked: Any = opaque.function
            found = inner_events(opaque, given) if isinstance(asked, InnerPeak) else asked.scratch(*given)
            if found is None:
                return None
            scratch[n] = found
        return self._spliced(outputs, scratch) if outputs.count(0) == self._absent else None

    def _spliced(self, outputs: tuple[int, ...], scratch: Sequence[tuple[int, Spread] | InnerEvents]) -> InnerEvents | None:
        """The events without scratch of no bytes, and with those of inner kernels where one number stands for them."""
        events: list[int] = []
        sizes: list[int] = []
        spreads: list[tuple[int, tuple[int, int]]] = []
        places = {n: n for n in range(len(outputs))}
        for code in self._events:
            number = max(code, ~code)
            if number not in places and code >= 0:
                here, found = len(sizes), scratch[number - len(outputs)]
                first = len(outputs) + here
                if isinstance(found, InnerEvents):
                    if found.outputs or found.kept:
                        return None
                    events += [first + n if n >= 0 else ~(first + ~n) for n in found.events]
                    sizes += found.scratch
                    spreads += [(here + n, spread) for n, spread in found.spreads]
                elif found[0]:
                    places[number] = first
                    sizes.append(found[0])
                    if found[1] is not None:
                        spreads.append((here, found[1]))
            if number in places:
                events.append(places[number] if code >= 0 else ~places[number])
        return InnerEvents(tuple(events), outputs, (), tuple(sizes), tuple(spreads))
