"""Calls of ``torch.utils.checkpoint`` in a network: how each is made, which layers it wraps, and which stand in which."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from memest.errors import GraphError
from memest.network.layers import Packing


@dataclass(frozen=True, slots=True, order=True)
class Checkpoint:
    """How a call of ``torch.utils.checkpoint.checkpoint`` is made: its keywords, the tensors that it is given (of one that is not
    reentrant only where that says more than what its layers read), the call that it stands ``inside`` of, what its layers read that its
    function had ``captured`` instead of being given it, whether it is a ``selective`` one, and whether results that this keeps may be
    written into meanwhile. Of a reentrant one ``results`` are what it returns, though nobody reads it, and ``enabling`` the layers (and
    calls) in it that turn gradients on for themselves, so that they have them the first time, too. ``grad`` is false for a call under
    ``torch.no_grad()``, which keeps nothing; ``packing`` is what hooks do with each argument."""

    reentrant: bool = False
    preserve_rng_state: bool = True
    early_stop: bool = True
    arguments: tuple[str, ...] = ()
    inside: str | None = None
    captured: tuple[str, ...] = ()
    selective: bool = False
    allow_cache_entry_mutation: bool = False
    results: tuple[str, ...] = ()
    enabling: tuple[str, ...] = ()
    grad: bool = True
    packing: tuple[Packing, ...] = ()


USUAL = Checkpoint()


@dataclass(frozen=True, slots=True, order=True)
class Segment:
    """The layers number ``start`` up to ``end`` (not included) of a graph: a call of ``torch.utils.checkpoint.checkpoint`` wraps them.
    ``inner`` are the calls inside it, in order."""

    start: int
    end: int
    name: str = ""
    call: Checkpoint = USUAL
    inner: tuple[Segment, ...] = ()


def way_to(name: str, calls: Mapping[str, Checkpoint]) -> tuple[str, ...]:
    """The calls around a checkpoint and itself, the outermost first; GraphError for one that stands inside itself."""
    way = [name]
    while (outer := calls.get(way[0], USUAL).inside) is not None:
        if outer in way:
            raise GraphError(f"checkpoint {name!r} stands inside itself")
        way.insert(0, outer)
    return tuple(way)


def nested(names: Sequence[str | None], calls: Mapping[str, Checkpoint]) -> tuple[Segment, ...]:
    """The outermost calls, in order, from the name of the innermost one around each layer."""
    ways = {name: way_to(name, calls) for name in dict.fromkeys(names) if name is not None}

    def runs(start: int, end: int, depth: int) -> tuple[Segment, ...]:
        found: list[Segment] = []
        i = start
        while i < end:
            name, first = _at(names[i], depth), i
            while i < end and _at(names[i], depth) == name:
                i += 1
            if name is not None:
                found.append(Segment(first, i, name, calls.get(name, USUAL), runs(first, i, depth + 1)))
        return tuple(found)

    def _at(name: str | None, depth: int) -> str | None:
        way = () if name is None else ways[name]
        return way[depth] if depth < len(way) else None

    return runs(0, len(names), 0) if ways else ()


def flat(segments: Sequence[Segment]) -> Iterator[Segment]:
    """Each, followed by those inside it."""
    for s in segments:
        yield s
        yield from flat(s.inner)
