"""What a user states about values that nobody knows before anything runs: how many boxes are kept, how many elements a mask picks.

A statement stands under a kind (``boxes``), a kind within a module (``roi_heads.boxes``), or a line of code (``net.py:31``); the nearest
counts. It is a number (at most; where there are fewer, all), a share of what there is (``30%``), ``all``, a list of these for one call
after the other, or true or false for a line that branches on a value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from fractions import Fraction
from typing import Any, NamedTuple

from memest.errors import UnsupportedError, UsageError, did_you_mean, kind_of
from memest.sizes import asked

SELECTED, BOXES, UNIQUE, BINS, DRAWN, SIZE, LENGTH = "selected", "boxes", "unique", "bins", "drawn", "size", "length"
EVALUATIONS = "evaluations"
KINDS = {
    SELECTED: "elements that a mask, torch.nonzero or torch.where picks",
    BOXES: "boxes that non-maximum suppression keeps",
    UNIQUE: "different values that torch.unique finds",
    BINS: "bins that torch.bincount makes: one more than the greatest value",
    DRAWN: "of whole numbers that are drawn at random",
    LENGTH: "steps of each sequence that is packed, labels of each target of a CTC loss",
    EVALUATIONS: "calls of the closure that each line search of LBFGS makes",
    SIZE: "whole number that a tensor holds where a size is wanted",
}
SHARED = (SELECTED, BOXES, UNIQUE, DRAWN, LENGTH)
"""Kinds of which there can be a share of what there is."""
ALL = "all"
MOST_SHOWN = 12
_FORMS = 'a number, "all", a share such as "30%", true or false, or a list of these for one call after the other'


class Share(Fraction):
    """A part of what there is."""


Statement = int | bool | Share


class Found(NamedTuple):
    """A statement, and what it stands under."""

    key: str
    value: Statement


class Assumptions:
    """The statements of one import. ``given`` is false where nobody said anything: then nothing is assumed. ``used`` are the keys that
    something was answered by, ``asked`` the kinds that were asked for (empty: what goes by lines alone), each with the lines that did.
    ``open`` is the line that an import ended at because nobody says which way it goes, ``wanting`` the kind that it ended at because nobody
    says how many there are."""

    def __init__(self, given: Mapping[str, Any] | None = None) -> None:
        """UsageError for what is no statement."""
        if given is not None and not isinstance(given, Mapping):
            raise UsageError(f'assume takes names and numbers, such as assume={{"boxes": 300}}, got {kind_of(given)}')
        self.given = given is not None
        self.used: set[str] = set()
        self.asked: dict[str, dict[str, None]] = {}
        self.open = ""
        self.wanting = ""
        self._given = dict(given or {})
        self._stated = {_key(key): _read(key, value) for key, value in self._given.items()}

    def going(self, line: str, way: bool) -> Assumptions:
        """The same, and which way a line goes."""
        other = copy(self)
        other._given, other._stated = {**self._given, line: way}, {**self._stated, line: way}
        return other

    def tried(self, kind: str) -> Assumptions:
        """The same with anything stated of a kind, to see what else an import asks for."""
        other = copy(self)
        other.given, other.wanting = True, ""
        other._given, other._stated = {**self._given, kind: ""}, {**self._stated, kind: Share(1) if kind in SHARED else 1}
        return other

    def wants(self, asked: Mapping[str, Mapping[str, None]]) -> str:
        """What else an import asks for than one count of the kind that is ``wanting``, given all kinds and lines that it ``asked`` for;
        nothing where that is all."""
        kinds = {k: lines for k, lines in asked.items() if k in KINDS and k not in self._stated}
        found = sorted((k, lines) for k, lines in kinds.items() if k != self.wanting or len(lines) > 1)
        return f"; asked for are, in all, {'; '.join(f'{k} at {_first(lines)}' for k, lines in found)}" if found else ""

    def shown(self, key: str) -> str:
        """What is stated under a key, as it was written."""
        value = self._given[key]
        parts = [str(v) for v in (value if isinstance(value, list | tuple) else [value])]
        return ",".join(parts[:MOST_SHOWN]) + (f",… ({len(parts)} in all)" if len(parts) > MOST_SHOWN else "")

    def found(self, kind: str, path: str, lines: Sequence[str], taken: dict[str, int]) -> Found | None:
        """What is stated of the next count of this ``kind`` in the module ``path``, reached by these ``lines`` of code. ``taken`` counts
        how many values of each list were taken."""
        self.asked.setdefault(kind, {}).update(dict.fromkeys(lines[:1]))
        key = self._nearest(kind, path, lines)
        if key is None:
            return None
        self.used.add(key)
        return Found(key, self._next(key, taken))

    def has(self, kind: str, path: str, lines: Sequence[str]) -> bool:
        """Whether anything is stated of it."""
        return self._nearest(kind, path, lines) is not None

    def goes(self, lines: Sequence[str]) -> bool:
        """Whether what is stated of these lines is which way they go, true or false."""
        key = self._nearest("", "", lines)
        value = None if key is None else self._stated[key]
        return isinstance(value[0] if isinstance(value, tuple) else value, bool)

    def ever(self, key: str) -> bool:
        """Whether one value stands for every call."""
        return not isinstance(self._stated[key], tuple)

    def _nearest(self, kind: str, path: str, lines: Sequence[str]) -> str | None:
        return next((key for key in (*lines, *(_within(path, kind) if kind else ())) if key in self._stated), None)

    def _next(self, key: str, taken: dict[str, int]) -> Statement:
        value = self._stated[key]
        if not isinstance(value, tuple):
            return value
        number = taken[key] = taken.get(key, 0) + 1
        if number > len(value):
            raise UsageError(f"assume: {key!r} lists {len(value)} values, and there are more calls")
        return value[number - 1]

    def check_taken(self, taken: Mapping[str, int]) -> None:
        """UsageError where a list has more values than there were calls."""
        for key, number in taken.items():
            value = self._stated[key]
            if isinstance(value, tuple) and number < len(value):
                raise UsageError(f"assume: {key!r} lists {len(value)} values for {number} calls")

    def check_used(self) -> None:
        """UsageError for a statement that nothing in the network asks for."""
        unused = next((key for key in self._stated if key not in self.used), None)
        if unused is not None:
            asked = [f"{kind or 'branches and numbers read'} at {_first(lines)}" for kind, lines in sorted(self.asked.items())]
            seen = f"; it goes by {'; '.join(asked)}" if asked else ""
            raise UsageError(f"assume: nothing in the network depends on {unused!r}{seen}")


def _first(lines: Sequence[str] | Mapping[str, None]) -> str:
    found = list(lines)
    more = len(found) - MOST_SHOWN
    return (", ".join(found[:MOST_SHOWN]) or "no line of yours") + (f" and {more} more lines" if more > 0 else "")


def from_texts(texts: Sequence[str]) -> dict[str, Any] | None:
    """``boxes=300``, ``net.py:31=true``, ``selected=5,7,all`` as statements; None where there are none."""
    stated: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"assume: expected NAME=NUMBER such as boxes=300, got {text!r}")
        parts = [_value(part.strip()) for part in value.split(",")]
        stated[key.strip()] = parts[0] if len(parts) == 1 else parts
    return stated or None


def _value(text: str) -> Any:
    return {"true": True, "false": False}.get(text.lower(), int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else text)


def _within(path: str, kind: str) -> list[str]:
    """The names that a kind has in a module, the nearest first: ``a.b.boxes``, ``a.boxes``, ``boxes``."""
    parts = path.split(".") if path else []
    return [".".join([*parts[:n], kind]) for n in range(len(parts), -1, -1)]


def _key(key: Any) -> str:
    if not isinstance(key, str) or not key:
        raise UsageError(f"assume: names are texts such as 'boxes' or 'net.py:31', got {kind_of(key)}")
    kind = key.rpartition(".")[2]
    line = key.rpartition(":")[2]
    if kind not in KINDS and not (":" in key and line.isascii() and line.isdigit()):
        hint = f"{did_you_mean(kind, KINDS)}; the kinds are {', '.join(KINDS)}, a line is net.py:31"
        raise UsageError(f"assume: {key!r} is no kind and no line of code{hint}")
    return key


def _read(key: str, value: Any) -> Statement | tuple[Statement, ...]:
    if isinstance(value, list | tuple):
        if not value:
            raise UsageError(f"assume: {key!r} is an empty list; give {_FORMS}")
        return tuple(_one(key, v) for v in value)
    return _one(key, value)


def _one(key: str, value: Any) -> Statement:
    if isinstance(value, bool):
        return value
    number = asked.whole(value)
    if number is not None and number >= 0:
        return number
    if value == ALL:
        return Share(1)
    if isinstance(value, str) and value.endswith("%"):
        try:
            share = Share(value[:-1].strip()) / 100
        except (ValueError, ZeroDivisionError):
            share = Fraction(-1)
        if 0 <= share <= 1 and len(value) <= 12:
            return Share(share)
    raise UsageError(f"assume: {key!r} is {kind_of(value)}; give {_FORMS}")


def stating(line: str, value: str) -> str:
    """How the value of a line of code is stated: ``N``, ``True`` or a list of truths."""
    text = value if value == "N" else value.strip("[]").replace(" ", "").lower()
    return f"assume={{{line!r}: {value}}}, in a command --assume {line}={text}"


def unstated(place: str, line: str, code: str, written: str, kind: str, most: int, *, default: bool) -> UnsupportedError:
    """The refusal of a size that depends on values at a ``place`` (in a ``line`` that reads ``code``), with what to state."""
    also = f" ({KINDS[kind]})" if default else f" ({KINDS[kind]}; there is no default)"
    alone = f" (or for this line alone: assume={{{line!r}: N}})" if line else ""
    shape = "; or keep the shape: torch.where(mask, x, 0)" if kind == SELECTED else ""
    return UnsupportedError(
        f"{place}: {f'{code}: ' * bool(code)}{written} depends on values; say how many of {most:,} there are{also}:"
        f" assume={{'{kind}': N}}, in a command --assume {kind}=N{alone}{shape}"
    )
