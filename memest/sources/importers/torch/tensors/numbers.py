"""A number read from a tensor while nothing is computed: good for logging, and for nothing that decides what runs."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any, Protocol

import torch

from memest.errors import UnsupportedError
from memest.sizes.dims import Dim
from memest.sources.assumptions import stating

Refusal = Callable[[str], UnsupportedError]
Answer = Callable[[Any, Any, Any], Any]
CHECKS = frozenset({("torch.nn.functional", "gaussian_nll_loss")})
"""Functions of torch that ask for a value only to raise where it is wrong."""
STAND_INS = (300.0, 1e-6, 3.0)
"""What numbers read from tensors are, in one recording and in others: apart, and such that logarithms and exponentials of them exist."""
SEVERAL = " (of a line that reads several, a list: [0, 9])"
PRINTED = "a tensor is printed in it: what torch makes while it writes the text (some KiB, gone at once) is not counted"


class Unknown(float):
    """What ``loss.item()`` gives. It counts, formats and prints as the number that ``numbers`` stands for; whoever compares it is refused,
    while the recording that it comes from goes on."""

    _numbers: Numbers | None
    _name: str

    def __new__(cls, number: float, numbers: Numbers | None, name: str = "") -> Unknown:
        """``numbers`` are those of the recording; None when it is over. ``name`` is that of the tensor that holds the number itself."""
        made = super().__new__(cls, number)
        made._numbers, made._name = numbers, name
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return float, (float.__add__(self, 0.0),)


class UnknownWhole(int):
    """The same of a tensor of integers or truths."""

    _numbers: Numbers | None
    _name: str

    def __new__(cls, number: float, numbers: Numbers | None, name: str = "") -> UnknownWhole:
        """As of the other."""
        made = super().__new__(cls, number)
        made._numbers, made._name = numbers, name
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return int, (int.__add__(self, 0),)


class Stated(Protocol):
    """What the user states of the line of code that runs."""

    def truth(self) -> bool | None:
        """Which way a comparison goes; None where nothing is said."""

    def whole(self) -> int | None:
        """Which whole number is read; None where nothing is said."""

    def stated_size(self) -> int | None:
        """The next size that is stated; None where none is."""

    def line(self) -> str:
        """The line, as statements name it."""

    def name(self, t: torch.Tensor) -> str:
        """What a tensor is called."""

    def unwritten(self, name: str) -> bool:
        """Whether nothing is written into the tensor of that name."""

    def says_way(self) -> bool:
        """Whether it is stated which way the line goes."""

    def finite(self) -> None:
        """It is taken for granted that a number is finite."""

    def leave_open(self) -> None:
        """Nobody knows which way the line goes."""


class _Nothing:
    """Nobody states anything."""

    def truth(self) -> None:
        return None

    def whole(self) -> None:
        return None

    def stated_size(self) -> None:
        return None

    def line(self) -> str:
        return "FILE.py:LINE"

    def name(self, t: torch.Tensor) -> str:
        return ""

    def unwritten(self, name: str) -> bool:
        return False

    def says_way(self) -> bool:
        return False

    def finite(self) -> None:
        pass

    def leave_open(self) -> None:
        pass


def plain(value: Any) -> Any:
    """A whole number that was read, as an int that may decide: where nothing depends on which one it is."""
    return int.__add__(value, 0) if isinstance(value, UnknownWhole) else value


class Drawn(Unknown):
    """A number drawn at random: ``whole`` is the whole number that it is taken to be where somebody asks for that."""

    whole: Callable[[], int]

    def __int__(self) -> int:
        """``int(x)``."""
        return self.whole()


def is_torchs_check() -> bool:
    """Whether a function of torch asks for a truth that would make it raise."""
    frame: Any = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").startswith("memest."):
        frame = frame.f_back
    return frame is not None and (frame.f_globals.get("__name__"), frame.f_code.co_name) in CHECKS


def depends(value: Any) -> bool:
    """Whether a number that was read stands in ``value``: itself, or in a structure."""
    if isinstance(value, Mapping):
        return any(map(depends, value.values()))
    return isinstance(value, Unknown | UnknownWhole) or (isinstance(value, list | tuple) and any(map(depends, value)))


class Numbers:
    """The numbers read in one recording. ``stand_in`` is what they all are: another recording with another one shows whether they decided
    anything unseen (in C code, or as plain floats). ``place`` is the line that read the first (of plain ones, where there are any: only
    those decide unseen), ``zeros`` are tensors whose number is known to be 0, ``printed`` says that a tensor was written out. Where numbers
    of Python's ``move`` from call to call, a window lies as they say."""

    def __init__(
        self,
        refuse: Refusal,
        where: Callable[[], str],
        stand_in: float,
        known: Callable[[torch.Tensor], Any] = lambda t: None,
        listed: Callable[[torch.Tensor], Any] = lambda t: None,
        stated: Stated | None = None,
    ) -> None:
        """``known`` gives the number of a tensor where it is none that nobody knows, ``listed`` all that it holds."""
        self.stand_in = stand_in
        self.read = 0
        self.plain = False
        self.move = False
        self.where = ""
        self.over = False
        self.printed = False
        self.place = ""
        self._line = ""
        self._stated = stated or _Nothing()
        self.zeros: list[torch.Tensor] = []
        self._refuse = refuse
        self._where = where
        self._known = known
        self._listed = listed

    @property
    def answers(self) -> dict[str, Answer]:
        """What is done instead of the calls of torch that read numbers, by torch's names."""
        return {
            "item": lambda f, a, k: self._of(a[0]),
            "__float__": lambda f, a, k: float(self._plain(a[0])),
            "__int__": lambda f, a, k: self._int(a[0]),
            "tolist": lambda f, a, k: self._all(a[0]) if (known := self._listed(a[0])) is None else known,
            "__format__": lambda f, a, k: format(self._of(a[0]), a[1]) if a[0].dim() == 0 else self._shown(),
            "__repr__": lambda f, a, k: self._shown(),
        }

    def _of(self, t: torch.Tensor) -> Unknown | UnknownWhole | float:
        if t.numel() != 1:
            raise RuntimeError(f"a tensor with {int(t.numel())} elements cannot be converted to one number")
        if any(t is z for z in self.zeros):
            return 0.0
        known = self._known(t)
        if callable(known):
            drawn = Drawn(self.stand_in, self)
            drawn.whole = known
            self._noted()
            return drawn
        return self._one(t) if known is None else known

    @property
    def anywhere(self) -> bool:
        """Whether windows and places may lie as a number says that nobody knows."""
        return self.read > 0 or self.move

    def _plain(self, t: torch.Tensor) -> float:
        """Python's own float, which ``float(t)`` must give."""
        found = self._of(t)
        if not isinstance(found, Unknown | UnknownWhole):
            return found
        self._noted_plain()
        return self.stand_in

    def _int(self, t: torch.Tensor) -> int:
        """``int(t)``, which a statement of sizes answers, too."""
        found = self._of(t)
        if not isinstance(found, Unknown | UnknownWhole):
            return int(found)
        stated = None if self.over else self._stated.stated_size()
        if stated is not None:
            return stated
        self._noted_plain()
        return int(self.stand_in)

    def _all(self, t: torch.Tensor, dims: int = 0) -> Any:
        """A list in a list for each dim."""
        return [self._all(t, dims + 1) for _ in range(t.shape[dims])] if dims < t.dim() else self._one(t)

    def _shown(self) -> Any:
        self.printed = True
        return NotImplemented

    def _one(self, t: torch.Tensor) -> Unknown | UnknownWhole | float:
        floats = t.dtype.is_floating_point or t.dtype.is_complex
        stated = self._stated.whole()
        if stated is not None:
            return float(stated) if floats else stated
        self._noted()
        kind = Unknown if floats else UnknownWhole
        return kind(self.stand_in, self, self._stated.name(t))

    def _noted(self) -> None:
        """A number is read that nobody knows."""
        self.place, self._line = self.place or self._where(), self._line or self._stated.line()
        self.read += 1

    def _noted_plain(self) -> None:
        """The number is Python's own from now on, which decides unseen."""
        if not self.plain:
            self.plain, self.place, self._line = True, self._where(), self._stated.line()

    @property
    def undecided(self) -> str:
        """Why a recording is refused in which the numbers read decide something."""
        return _decides("the number", self.statement)

    @property
    def statement(self) -> str:
        """What states the number that was read first."""
        return stating(self._line or self._stated.line(), "N") + SEVERAL

    def truth(self) -> bool | None:
        """What is stated of a comparison in the line that runs; None once the recording is over. UnsupportedError where nothing is."""
        if self.over:
            return None
        found = self._stated.truth()
        if found is None:
            self._stated.leave_open()
            raise self._refuse(_decides("which way it goes", stating(self._stated.line(), "True")))
        return found

    def follows(self, one: Any, other: Any) -> bool:
        """Whether numbers compare the same whatever they are, as long as they are finite: a number and itself, a number and infinity."""
        if self.over or self._stated.says_way():
            return False
        itself = one is other or (self._of_this(other) and one._name == other._name != "" and self._stated.unwritten(one._name))
        found = itself or (type(other) is float and not isfinite(other))
        if found:
            self._stated.finite()
        return found

    def _of_this(self, number: Any) -> bool:
        return isinstance(number, Unknown | UnknownWhole) and number._numbers is self

    def whole(self) -> int | None:
        """The same of a whole number that is wanted."""
        if self.over:
            return None
        found = self._stated.whole()
        found = self._stated.stated_size() if found is None else found
        if found is None:
            raise self._refuse(_decides("the number", stating(self._stated.line(), "N") + SEVERAL))
        return found


def _counting(base: type, name: str) -> Callable[..., Any]:
    def method(self: Any, *others: Any) -> Any:
        if base is int and any(isinstance(o, Dim) for o in others):  # a size keeps its symbol
            return getattr(operator, name)(plain(self), *others)
        result = getattr(base, name)(self, *others)
        kind = {float: Unknown, int: UnknownWhole}.get(type(result))
        return result if kind is None else kind(result, self._numbers)

    return method


def _comparing(base: type, name: str) -> Callable[..., Any]:
    def method(self: Any, *others: Any) -> Any:
        if self._numbers is not None and others and self._numbers.follows(self, others[0]):
            return getattr(base, name)(self, *others)
        stated = None if self._numbers is None else self._numbers.truth()
        return getattr(base, name)(self, *others) if stated is None else stated

    return method


def _deciding(base: type, name: str) -> Callable[..., Any]:
    def method(self: Any, *others: Any) -> Any:
        stated = None if self._numbers is None else self._numbers.whole()
        return getattr(base, name)(self, *others) if stated is None else getattr(int, name, int)(stated, *others)

    return method


def _decides(what: str, statement: str) -> str:
    """What is refused where a number that was read decides."""
    return (
        "what depends on a number read from a tensor (.item(), float(), int(), tolist()), which nobody knows before anything runs:"
        f" let it depend on shapes or on an argument, or state {what}: {statement}"
    )


_COUNTING = "add radd sub rsub mul rmul truediv rtruediv floordiv rfloordiv mod rmod pow rpow neg pos abs"
_COMPARING = "lt le gt ge eq ne bool"
_DECIDING = "int index trunc floor ceil round and or xor lshift rshift"
for _kind, _base in ((Unknown, float), (UnknownWhole, int)):
    for _names, _method in ((_COUNTING, _counting), (_COMPARING, _comparing), (_DECIDING, _deciding)):
        for _name in (f"__{n}__" for n in _names.split() if hasattr(_base, f"__{n}__")):
            setattr(_kind, _name, _method(_base, _name))
    _kind.__hash__ = _base.__hash__  # type: ignore[method-assign]
