"""Answers of cuDNN's that are stored: for the convolutions of the built-in and of torchvision's networks at their usual inputs.

``stored/geometries.json`` names the convolutions and the batches they were asked at; an archive for each release holds a column for each
kind of card, dtype and layout, or the release that has the same one. All questions of a column were asked but of most of 9.19's: of its
half types, and in float32 of 7.5's and of 8.9's in channels_last, 5,301 to 5,857 each, one in four (of float16 contiguous on 8.0 all), and
no answer was another than 9.20's. They are answers to the torch that brings the release (:mod:`memest.libraries.cudnn.errata`). An answer
is a formula: i copies of x, j of w and k of y, the channels of each group filled up to multiples of m, and r bytes. At another batch than
those stored the formula of its neighbours is likely, no more. Written by ``python -m validation.cuda.plans``.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from functools import cache
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from memest.libraries.cudnn.errata import passed_over, torch_with
from memest.libraries.cudnn.question import DIRECTIONS, Convolution
from memest.libraries.cudnn.workspace import Card, Formula, Release, column_name, filled_bytes, kind_of
from memest.network.tensor import Shape

STORED = Path(__file__).with_name("stored")
Geometry = tuple[Shape, Shape, Shape, Shape, Shape]
CLOCKED = frozenset({(9, 0)})
"""The architectures for which cuDNN's choice depends on the clocks, too, in 1 of 150 questions. Nothing else of a card counts."""


def stored(card: Card, release: Release, question: Convolution) -> int | None:
    """The stored answer; None where there is none, or one for a torch that takes other engines."""
    found = _row(card, release, question)
    if found is None or question.without != passed_over(torch_with(release), release, card, question):
        return None
    batches, formulas, clocks = found
    if question.x[0] not in batches or (card.capability in CLOCKED and clocks != clocks_of(card)):
        return None
    return filled_bytes(question, formulas[batches.index(question.x[0])])


def likely(card: Card, release: Release, question: Convolution) -> tuple[int, ...]:
    """What the formulas of the next stored batches below and above come to at this one, the lower first; of the nearest release that
    holds the card's architecture, whatever its clocks. () where none does."""
    name = column_name(kind_of(card), question.dtype, question.channels_last)
    held = [r for r in releases() if name in names(r)]
    if not held:
        return ()
    found = _row(card, min(held, key=lambda r: abs(r[1] - release[1])), question)
    if found is None:
        return ()
    batches, formulas, _ = found
    above = bisect_left(batches, question.x[0])
    around = formulas[max(0, above - 1) : above + 1]
    return tuple(filled_bytes(question, f) for f in around)


def geometry_of(question: Convolution) -> Geometry:
    """A question without its direction, batch, dtype and layout."""
    return question.x[1:], question.w, question.stride, question.padding, question.dilation


def archive_of(release: Release) -> Path:
    """The archive of a release."""
    return STORED / f"{release[0]}.{release[1]}.zip"


def clocks_of(card: Card) -> list[int]:
    """The clocks of the multiprocessors and of the memory, kHz."""
    properties = card.properties()
    return [properties["smClockRateKHz"], properties["memClockRateKHz"]]


@cache
def releases() -> tuple[Release, ...]:
    """The releases that have stored answers."""
    found = (path.stem.split(".") for path in STORED.glob("*.zip"))
    return tuple(sorted((int(major), int(minor)) for major, minor in found))


@cache
def names(release: Release) -> frozenset[str]:
    """The columns that are stored for a release."""
    if release not in releases():
        return frozenset()
    with ZipFile(archive_of(release)) as archive:
        return frozenset(archive.namelist())


@cache
def places() -> dict[Geometry, tuple[int, list[int]]]:
    """Each stored convolution's number, and the batches it was asked at, ascending."""
    read = json.loads((STORED / "geometries.json").read_text(encoding="utf-8"))
    found: dict[Geometry, tuple[int, list[int]]] = {}
    for number, (batches, *shapes) in enumerate(read["geometries"]):
        x, w, stride, padding, dilation = map(tuple, shapes)
        found[x, w, stride, padding, dilation] = number, read["batches"][batches]
    return found


@cache
def column(release: Release, name: str) -> dict[str, Any] | None:
    """``clocks`` of the card that was asked, ``formulas``, and ``answers``: for each convolution and direction the number of a formula, or
    one a batch, or None. None where the column is not stored."""
    if name not in names(release):
        return None
    with ZipFile(archive_of(release)) as archive:
        read = json.loads(archive.read(name))
    if isinstance(read, list):
        return column((read[0], read[1]), name)
    return dict(read)


def _row(card: Card, release: Release, question: Convolution) -> tuple[list[int], list[Formula], list[int]] | None:
    """Batches, a formula for each, and the clocks behind them."""
    if question.deterministic or not question.tf32 or min(question.alignment) < 32:
        return None
    place = places().get(geometry_of(question))
    if place is None:
        return None
    found = column(release, column_name(kind_of(card), question.dtype, question.channels_last))
    if found is None:
        return None
    number, batches = place
    answers = found["answers"][number * len(DIRECTIONS) + DIRECTIONS.index(question.direction)]
    if answers is None or answers == []:
        return None
    indices = [answers] * len(batches) if isinstance(answers, int) else answers
    return batches, [tuple(found["formulas"][i]) for i in indices], found["clocks"]
