"""The counts of one recording: asked for where a size depends on values, answered by the user's statements or by a default that is said."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from inspect import unwrap
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch

from memest.errors import UnsupportedError, UsageError
from memest.network.graph import Layer
from memest.runtimes.torch.ledger import Value
from memest.sizes.dims import plain
from memest.sources.assumptions import (
    ALL,
    BINS,
    DRAWN,
    EVALUATIONS,
    KINDS,
    LENGTH,
    SELECTED,
    SIZE,
    UNIQUE,
    Assumptions,
    Found,
    Share,
    stating,
    unstated,
)
from memest.sources.importers.torch.assuming.branches import code_of, is_inside_while, is_loop, picks_one, turns_around, way_that_runs
from memest.sources.importers.torch.assuming.following import made_by, root_of, siblings, terms
from memest.sources.importers.torch.assuming.lengths import Even, Whole, element, even, fixed, traced
from memest.sources.importers.torch.refusals import ADVICE, is_users
from memest.sources.importers.torch.tensors.constants import Constants
from memest.sources.importers.torch.tensors.live import LiveTensors
from memest.sources.importers.torch.tensors.numbers import is_torchs_check
from memest.sources.importers.torch.tensors.values import of_list

PACKING = "torch.nn.utils.rnn.pack_padded_sequence()"
MOST_FRAMES = 100
MOST_PLACES = 4
TURNED = " (what is stated is the truth of the tensor, which this line turns around by `not`)"
MOST_PASSES = 1_000  # of a loop whose condition is stated once for all


class Recording(Protocol):
    """What is asked of the recorder."""

    layers: list[Layer]
    live: LiveTensors
    constants: Constants

    def path(self) -> str: ...

    def place(self) -> str: ...

    def record(self, inputs: Mapping[str, torch.Tensor], call: Callable[[Mapping[str, torch.Tensor]], Any]) -> None: ...


class Assumed:
    """Counts, and what was said of them. Where nothing is stated at all, whoever asks is refused."""

    def __init__(self, stated: Assumptions, recorder: Recording) -> None:
        self._stated = stated
        self._recorder = recorder
        self._outermost = unwrap(type(recorder).record).__code__
        self._counts: dict[str, int] = {}
        self._sizes: dict[str, int] = {}
        self._literals: dict[str, float] = {}
        self.literal: Any = None  # the number that the tensor being made holds, or lists of numbers
        self.listed: Whole | None = None  # the numbers in the last of the tensors being made
        self.lists: dict[str, Whole] = {}
        self._taken: dict[str, int] = {}
        self._passes: Counter[str] = Counter()
        self._notes: dict[str, dict[str, None]] = {}
        self.asked = False  # something went by what is assumed, or follows

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed, and where."""
        self._stated.check_taken(self._taken)
        return tuple(f"{what} ({_shortened(list(places))})" for what, places in self._notes.items())

    def noticed(self, outputs: Sequence[str], values: Sequence[Value]) -> None:
        """These were made; of masks the sizes are kept, as sums of them outlive them, and of literals the numbers."""
        if self.literal is not None and len(outputs) == 1:
            if isinstance(self.literal, list | tuple):
                self._recorder.constants.held[outputs[0]] = of_list(self.literal)
            else:
                self._literals[outputs[0]] = self.literal
        if self.listed is not None:
            self.lists[outputs[-1]] = self.listed
        self.literal = self.listed = None
        for i, value in enumerate(values):
            if value.spec.dtype == "bool":
                self._sizes[outputs[i]] = elements_of(value)

    # counts --------------------------------------------------------------------------------------------------------------

    def of_mask(self, mask: torch.Tensor, written: str) -> int:
        """How many elements a mask picks (or how many of a tensor are not 0): as many each time."""
        return self._of(self._name(mask), written)

    def _of(self, name: str, written: str) -> int:
        found = self._known(name)
        return self._picked(name, self.count(SELECTED, self._left(name), written)) if found is None else found

    def _name(self, t: torch.Tensor) -> str:
        self.asked = True
        entry = self._recorder.live.known(t)
        self._sizes.setdefault(entry.names[-1], elements_of(entry.value))
        return entry.names[-1]

    def learn(self, mask: torch.Tensor, count: int) -> None:
        """It follows from something else how many a mask picks."""
        name = self._name(mask)
        if self._known(name) is None:
            self._picked(name, count)

    def count(self, kind: str, most: int, written: str) -> int:
        """How many of ``most`` there are of a ``kind``, where the code has ``written`` what depends on it. UnsupportedError where nobody
        says so."""
        self.asked = True
        found = self._found(kind)
        if found is None:
            if not self._stated.given or kind == UNIQUE:
                default = kind != UNIQUE
                self._stated.wanting = kind
                frame = next(self._frames(), None)
                line, code = ("", "") if frame is None else (_line(frame), code_of(frame))
                raise unstated(self._recorder.place(), line, code, written, kind, most, default=default)
            self.say(f"assumed, as nothing is stated: {kind}={ALL}, the most {KINDS[kind]}")
            return most
        if isinstance(found.value, bool):
            raise UsageError(f"assume: {found.key!r} is {found.value}, and {self._recorder.place()} asks how many")
        number = found.value
        if isinstance(number, Share):
            self.say(f"assumed as stated: {found.key}={self._stated.shown(found.key)}")
            return most * number.numerator // number.denominator
        self.say(f"assumed as stated: {found.key}={self._stated.shown(found.key)}")
        return number if number < most else most

    def bins(self, least: int) -> int:
        """How many bins torch.bincount makes: ``least``, its ``minlength``, or more. UnsupportedError where nobody says so."""
        self.asked = True
        found = self._found(BINS)
        if found is None and self._stated.given and not (type(least) is int and least == 0):
            self.say("assumed, as nothing is stated: torch.bincount() makes as many bins as its minlength says")
            return least
        if found is None:
            self._stated.wanting = BINS
            raise UnsupportedError(
                f"{self._recorder.place()}: torch.bincount() makes a bin for each value up to the greatest; say how many those are:"
                f" assume={{'{BINS}': N}}, in a command --assume {BINS}=N"
            )
        if type(found.value) is not int:
            raise UsageError(f"assume: {found.key!r} is no whole number, and {self._recorder.place()} asks how many bins there are")
        self.say(f"assumed as stated: {found.key}={self._stated.shown(found.key)}")
        return found.value if found.value > least else least

    def _known(self, name: str) -> int | None:
        root, others = root_of(self._recorder.layers, name)
        count = self._counts.get(root)
        return self._sizes[name] - count if others and count is not None else count

    def _picked(self, name: str, count: int) -> int:
        root, others = root_of(self._recorder.layers, name)
        self._counts[root] = self._sizes[name] - count if others else count
        return count

    def _left(self, name: str) -> int:
        """The most that a mask can pick: what others that share a tensor out have left."""
        root, others = root_of(self._recorder.layers, name)
        left = self._sizes[name]
        if not others:
            for other in siblings(self._recorder.layers, root):
                left = left - self._counts.get(other, 0)
        return left

    # lengths -------------------------------------------------------------------------------------------------------------

    def numbers_in(self, t: torch.Tensor) -> Whole | None:
        """The whole numbers in a small tensor; None where they do not follow."""
        return traced(self._recorder.layers, {**self._recorder.live.whole, **self.lists}, self._recorder.live.known(t).names[-1])

    def lengths(self, t: torch.Tensor, batch: int, steps: int, written: str = PACKING) -> Whole:
        """How long sequences are: as in the list or the example that they come from, else as stated, all alike."""
        self.asked = True
        found = self.numbers_in(t)
        if found is None:
            length = self.count(LENGTH, steps, written)
            return even(batch, plain(length) if length == plain(length) else 0)
        found = found if isinstance(found, Even) else fixed(found)
        shown = ", ".join(str(n) for n in found[:MOST_PLACES]) + (", …" if len(found) > MOST_PLACES else "")
        self.say(f"sequences are as long as in the list or the example given: {shown}")
        return found

    # numbers and truths --------------------------------------------------------------------------------------------------

    def number(self, t: torch.Tensor, asking: str = "") -> Any:
        """The number or the truth that a tensor holds, where it follows from a count or from how the tensor was made; of one drawn between
        whole numbers a function that says which; None where nothing follows."""
        entry = self._recorder.live.found(t)
        if entry is None or t.numel() != 1:
            return None
        stated = self.whole()
        if stated is not None:
            return stated
        name = entry.names[-1]
        layer = made_by(self._recorder.layers, name)
        if layer is not None and layer.op == "uniform_":
            return partial(self._drawn, layer)
        number = self._number(name, {})
        if number is None:
            number = self._recorder.constants.number(t, asking)
        self.asked = self.asked or number is not None
        return number

    def numbers(self, t: torch.Tensor) -> Any:
        """All numbers that a tensor holds, as lists in lists; None where they do not follow."""
        found = self._recorder.constants.numbers(t)
        self.asked = self.asked or found is not None
        return found

    def size(self, t: torch.Tensor) -> int:
        """The whole number of a tensor that stands where a size is wanted."""
        number = self.number(t)
        if isinstance(number, int) and not isinstance(number, bool):
            return number
        return self.stated_or_refused("a tensor as a size depends on values; say which number it holds")

    def stated_or_refused(self, what: str) -> int:
        """The next size that is stated; UnsupportedError, which says ``what`` is wanted, where none is."""
        stated, line = self.stated_size(), self.line()
        if stated is None:
            self._stated.wanting = SIZE
            raise UnsupportedError(
                f"{self._recorder.place()}: {what} (there is no default): assume={{'{SIZE}': N}} or assume={{'{line}': N}}, in a command"
                f" --assume {SIZE}=N"
            )
        return stated

    def stated_size(self) -> int | None:
        """The next whole number that is stated for where a size is wanted, if any is."""
        self.asked = True
        found = self._found(SIZE)
        if found is None:
            return None
        if type(found.value) is not int:
            raise UsageError(f"assume: {found.key!r} is no whole number, and {self._recorder.place()} asks for a size")
        self.say(f"assumed as stated: {found.key}={self._stated.shown(found.key)}")
        return found.value

    def says_size(self) -> bool:
        """Whether a number is stated for where a size is wanted here."""
        return self._stated.has(SIZE, self._recorder.path(), self._lines())

    def bound(self, t: torch.Tensor) -> int | None:
        """The whole number of a tensor that bounds a window, where it is known or stated for the line."""
        number = self.number(t)
        return number if type(number) is int else None

    def evaluations(self) -> int:
        """How often a line search of LBFGS calls its closure."""
        found = self._found(EVALUATIONS)
        if found is None:
            self.say(f"assumed, as nothing is stated: {EVALUATIONS}=1, {KINDS[EVALUATIONS]}")
            return 1
        if type(found.value) is not int or not found.value:
            raise UsageError(
                f"assume: {found.key!r} is no whole number from 1 on, and {self._recorder.place()} asks for {KINDS[EVALUATIONS]}"
            )
        self.say(f"assumed as stated: {found.key}={self._stated.shown(found.key)}")
        return found.value

    def _drawn(self, layer: Layer) -> int:
        """A whole number, where one was drawn evenly and rounded down. Where only one can be drawn it is that."""
        attributes = dict(layer.attributes)
        low, high = int(attributes.get("from_", 0)), int(attributes.get("to", 1))
        return low if high - low < 2 else low + self.count(DRAWN, high - low - 1, "a whole number drawn at random")

    def _number(self, name: str, asked: dict[str, Any]) -> Any:
        """The number called ``name``; ``asked`` has those that were asked for on the way, each once."""
        if name not in asked:
            layers = self._recorder.layers
            layer = made_by(layers, name)
            if name in self._literals:
                asked[name] = self._literals[name]
            elif layer is None or not layer.reads:
                asked[name] = None
            elif (picked := element(layers, self.lists, layer)) is not None:
                asked[name] = picked
            elif layer.op in ("sum", "any", "all") and dict(layer.attributes).get("dim") is None:
                asked[name] = self._of_all(layer)
            else:
                asked[name] = terms(layers, layer, lambda other: self._number(other, asked))
        return asked[name]

    def _of_all(self, layer: Layer) -> Any:
        """The sum of a mask, or whether any or every element of it is true."""
        mask = layer.reads[0]
        if mask not in self._sizes or not self._stated.given:
            return None
        count = self._known(mask)
        lines = self._lines()
        if (
            count is None
            and not self._stated.goes(lines)
            and (layer.op == "sum" or self._stated.has(SELECTED, self._recorder.path(), lines))
        ):
            count = self._of(mask, "the sum of a mask, a number that was read,")
        if count is None:
            return None
        return count if layer.op == "sum" else count > 0 if layer.op == "any" else count == self._sizes[mask]

    def decide(self, func: Any, args: Any, kwargs: Any) -> Any:
        """``bool(t)``."""
        return False if is_torchs_check() else self.way("a tensor as a condition", args[0])

    def way(self, written: str, t: torch.Tensor | None = None) -> bool:
        """Which way a branch goes that is ``written`` so: as is stated for the line, as follows from a count, or the way that does not
        raise. UnsupportedError where nobody says so; ``t`` is the tensor whose truth is asked for, where there is one."""
        self.asked = True
        stated = self._stated_truth()
        if stated is not None:
            return stated
        frame = next(self._frames(), None)
        way = None if frame is None else True if _in_torchs_assert() else way_that_runs(frame)
        if way is None:
            number = None if t is None else self.number(t, self._recorder.place())
            if number is None and frame is not None and self._stated.given and picks_one(frame):
                self.say("assumed, as nothing is stated for the line: max() and min() of numbers in tensors give the first of them")
                return False
            if number is None:
                self.leave_open()
                raise UnsupportedError(f"{self._recorder.place()}: {written} branches on a tensor's value; {self._decided_by(frame)}")
            return bool(number)
        self.say("assumed: checks of values pass, the branch that raises or warns is not taken")
        return way

    def _decided_by(self, frame: FrameType | None) -> str:
        """What to do about a branch."""
        many = frame is not None and is_loop(frame)
        statement = stating(self.line(), "[True, False]" if many else "True")
        turned = frame is not None and turns_around(frame)
        return f"{ADVICE}, or state which way it goes{' in each pass of the loop' * many}: {statement}{TURNED * turned}"

    def _stated_truth(self) -> bool | None:
        """Which way the line goes, as is stated."""
        found = self._found(None)
        if found is None:
            return None
        if not isinstance(found.value, bool):
            raise UsageError(f"assume: {found.key!r} is {found.value}, and {self._recorder.place()} branches: state true or false")
        self._passes[found.key] += self._stated.ever(found.key) and any(map(is_loop, self._frames()))
        if self._passes[found.key] > MOST_PASSES:
            raise UsageError(
                f"assume: with {found.key!r} {str(found.value).lower()} for every pass the loop never ends; list a value for each pass,"
                " such as [True, True, False]"
            )
        self.say(f"assumed as stated: {found.key}={self._stated.shown(found.key).lower()}")
        return found.value

    # numbers that are read: what is stated of the line -------------------------------------------------------------------

    def truth(self) -> bool | None:
        """Which way a comparison of a number goes; None where nothing is stated."""
        stated = self._stated_truth()
        self.asked = self.asked or stated is not None
        return stated

    def whole(self) -> int | None:
        """Which number the line reads; None where no number is stated of it."""
        lines = self._lines()[:1]
        if not lines or self._stated.goes(lines):
            return None
        found = self._stated.found("", "", lines, self._taken)
        if found is None:
            return None
        if isinstance(found.value, Share):  # of what a mask picks in that line
            return None
        self.asked = True
        self.say(f"assumed as stated: {found.key}={self._stated.shown(found.key)}")
        return int(found.value)

    def line(self) -> str:
        """The line of the user's code that runs, as statements name it."""
        return next(iter(self._lines()), "FILE.py:LINE")

    def name(self, t: torch.Tensor) -> str:
        """What a tensor is called."""
        return self._recorder.live.known(t).names[-1]

    def unwritten(self, name: str) -> bool:
        """Whether nothing is written into the tensor of that name."""
        return self._recorder.constants.is_unwritten(name)

    def says_way(self) -> bool:
        """Whether it is stated which way the line goes."""
        return self._stated.has("", "", self._lines())

    def finite(self) -> None:
        """It is taken for granted that a number is finite."""
        self._recorder.constants.finite()

    def leave_open(self) -> None:
        """Nobody knows which way the line goes; inside a ``while``, which may never end on one of them, that is not looked into."""
        self._stated.open = "" if any(map(is_inside_while, self._frames())) else self.line()

    # places --------------------------------------------------------------------------------------------------------------

    def _found(self, kind: str | None) -> Found | None:
        return self._stated.found(kind or "", self._recorder.path() if kind else "", self._lines(), self._taken)

    def _lines(self) -> list[str]:
        return list(dict.fromkeys(map(_line, self._frames())))

    def _frames(self) -> Iterator[FrameType]:
        """The frames of the recorded code that is the user's (or of a library that is neither torch nor memest), the innermost first."""
        frame: FrameType | None = sys._getframe(1)
        for _ in range(MOST_FRAMES):
            if frame is None or frame.f_code is self._outermost:
                return
            if is_users(frame.f_code.co_filename):
                yield frame
            frame = frame.f_back

    def say(self, what: str) -> None:
        """Note ``what``, and where."""
        self._notes.setdefault(what, {})[self._recorder.place()] = None


def _in_torchs_assert() -> bool:
    """Whether ``torch._assert(condition, message)`` asks."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_globals.get("__name__", "").startswith("memest."):
        frame = frame.f_back
    return frame is not None and frame.f_code is torch._assert.__code__


def elements_of(value: Value) -> int:
    """The number of elements of a value."""
    total: Any = 1
    for n in value.spec.shape:
        total = n * total
    return total


def _shortened(places: list[str]) -> str:
    more = len(places) - MOST_PLACES
    return ", ".join(places[:MOST_PLACES]) + (f" and {more} more places" if more > 0 else "")


def _line(frame: FrameType) -> str:
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
