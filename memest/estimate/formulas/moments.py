"""What is alive at a moment, as expressions: by category, what a sealed kernel holds included.

A kernel's own sizes follow from the call's; which of its events is the highest, and what its library chooses, are those at the sizes
at hand. So an :class:`Inside` is exact at these sizes, and its formula is held against the kernel itself wherever it is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from memest.libraries.onednn.symbolic import Same
from memest.memory.live_sets import Instant, LiveSets
from memest.ops.searched import InnerPeak
from memest.sizes.dims import Dim, Expr, Opaque, expression, plain, recording

Sums = dict[str, "int | Expr"]


@dataclass(frozen=True, kw_only=True)
class Inside:
    """What a sealed kernel holds at its highest event: tensors as (position among the call's results, -1 for none; bytes), the bytes
    of library scratch at the sizes at hand, and the implementations that were chosen there."""

    tensors: tuple[tuple[int, int | Expr], ...]
    scratch: tuple[int | Expr, ...]
    scratchpad_bytes: int
    implementations: tuple[str, ...]


def inside(inner: Opaque, sizes: Mapping[str, int]) -> Inside:
    """The kernel's call played with symbolic sizes, at ``sizes``."""
    assert isinstance(inner.function, InnerPeak)
    arguments = [Dim(a.evaluate(sizes), a) if isinstance(a, Expr) else a for a in inner.args]
    guards: dict[Any, None] = {}
    with recording(guards):
        trace = inner.function.trace(arguments)
    alive: dict[int, tuple[Any, bool]] = {}
    held: dict[int, tuple[Any, bool]] = {}
    running = highest = 0
    for slot, nbytes, scratch, keep, _, tried, _ in trace.events:
        if keep or tried is not None:
            continue
        size = plain(nbytes)
        if size < 0:
            running -= plain(alive.pop(slot)[0])
            continue
        alive[slot] = nbytes, scratch
        running += size
        if running > highest:
            highest, held = running, dict(alive)
    results = {out.slot: i for i, out in enumerate(o for o in trace.outputs if o is not None)}
    found = [(results.get(slot, -1), expression(size), scratch) for slot, (size, scratch) in held.items()]
    chosen = [g.left.function.plan.implementation for g in guards if isinstance(g.left, Opaque) and isinstance(g.left.function, Same)]
    return Inside(
        tensors=tuple((position, size) for position, size, scratch in found if not scratch),
        scratch=tuple(size for _, size, scratch in found if scratch and not isinstance(size, Opaque)),
        scratchpad_bytes=sum(size.evaluate(sizes) for _, size, scratch in found if scratch and isinstance(size, Opaque)),
        implementations=tuple(dict.fromkeys(chosen)),
    )


def alive_at(program: LiveSets, instant: Instant | None, within: Inside | None) -> Iterator[tuple[str, str, int | Expr]]:
    """(category, owner, bytes) of everything alive at ``instant`` (None: before the step); scratchpads are left out."""
    for s in program.residents:
        yield s.category, s.layer, expression(s.nbytes)
    if instant is None:
        return
    alive = {}
    for step in program.events[: instant.event + 1]:
        if plain(step.delta) > 0:
            alive[step.storage.id] = step.storage
        else:
            alive.pop(step.storage.id, None)
    for s in alive.values():
        if not isinstance(expression(s.nbytes), Opaque):
            yield s.category, s.layer, expression(s.nbytes)
    if within is None:
        return
    results = [step.storage.category for step in program.events[instant.event + 2 :][: 1 + max((p for p, _ in within.tensors), default=-1)]]
    for position, size in within.tensors:
        yield "temporary" if position < 0 else results[position], instant.layer, size
    for size in within.scratch:
        yield "workspace", instant.layer, size
