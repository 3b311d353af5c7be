"""Steps played with symbolic sizes until every setting is covered: a network may run differently at a batch of 1, or at a small side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from memest.errors import MemestError, UnsupportedError
from memest.estimate.estimate import Estimate
from memest.estimate.inputs import check_guards
from memest.memory.stream import Stream
from memest.network.tensor import Shape
from memest.planning.page.grid import shapes_at
from memest.runtimes.table import play
from memest.sizes.conditions import Conditions, reduced
from memest.sizes.dims import Dim, Expr, Guard, recording, symbol

MAX_PIECES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A step with symbolic sizes, and where it holds."""

    timeline: Stream
    conditions: Conditions


@dataclass(frozen=True, slots=True, kw_only=True)
class Covered:
    """The pieces, and for each setting the number of its piece, or why the network cannot run there."""

    pieces: tuple[Piece, ...]
    found: tuple[int | str, ...]


def played_piece(estimate: Estimate, sizes: Mapping[str, int]) -> Piece:
    """The step of ``estimate`` played with symbolic sizes at the example ``sizes``."""
    symbolic = {name: Dim(n, symbol(name)) for name, n in sizes.items()}
    shapes: dict[str, Shape] = {}
    for name, shape in shapes_at(estimate.played, sizes).items():
        dims = next(i.shape for i in estimate.played.inputs if i.name == name)
        shapes[name] = tuple(Dim(n, d) if isinstance(d, Expr) else n for d, n in zip(dims, shape, strict=True))
    guards: dict[Guard, None] = {}
    with recording(guards):
        timeline = play(estimate.played, shapes, symbolic, estimate.recipe, remember=False)
    return Piece(timeline=timeline, conditions=reduced(guards, tuple(sizes)))


def cover(estimate: Estimate, settings: Sequence[Mapping[str, int]], start: int) -> Covered:
    """Pieces of the step of ``estimate`` for all ``settings``; the one at ``start`` is number 0.

    Raises what the network raises at ``start``, and UnsupportedError where it runs differently nearly everywhere."""
    pieces: list[Piece] = []
    found: list[int | str | None] = [None] * len(settings)
    for number in (start, *range(len(settings))):
        if found[number] is not None:
            continue
        try:
            check_guards(estimate.played, settings[number])
            piece = played_piece(estimate, settings[number])
        except MemestError as e:
            if number == start:
                raise
            found[number] = str(e)
            continue
        if len(pieces) == MAX_PIECES:
            raise UnsupportedError(f"{estimate.graph} runs differently at nearly every size: name fewer --sizes or --batches")
        for i, sizes in enumerate(settings):
            if found[i] is None and (i == number or piece.conditions.hold(sizes)):
                found[i] = len(pieces)
        pieces.append(piece)
    return Covered(pieces=tuple(pieces), found=tuple(f for f in found if f is not None))
