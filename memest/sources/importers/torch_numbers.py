"""A number read from a tensor while nothing is computed: good for logging, and for nothing that decides what runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from memest.errors import UnsupportedError

Refusal = Callable[[str], UnsupportedError]
DECIDES = "a decision by a number read from a tensor (.item(), float()), which nobody knows before anything runs"


class Unknown(float):
    """What ``loss.item()`` gives. It counts, formats and prints as the number that ``numbers`` stands for; whoever compares it is refused,
    while the recording that it comes from goes on."""

    _numbers: Numbers | None

    def __new__(cls, numbers: Numbers | None) -> Unknown:
        """``numbers`` are those of the recording; None when it is over."""
        made = super().__new__(cls, 1.0 if numbers is None else numbers.stand_in)
        made._numbers = numbers
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return Unknown, (None,)


class Numbers:
    """The numbers read in one recording, the last of them ``where``. ``stand_in`` is what they all are: another recording with another one
    shows whether they decided anything unseen (in C code, or as plain floats)."""

    def __init__(self, refuse: Refusal, stand_in: float) -> None:
        self.stand_in = stand_in
        self.read = 0
        self.where = ""
        self.over = False
        self._refuse = refuse

    def one(self) -> Unknown:
        """A number that was read."""
        self.read += 1
        return Unknown(self)

    def check(self) -> None:
        """UnsupportedError while the recording goes on: somebody decides by a number."""
        if not self.over:
            raise self._refuse(DECIDES)


def _counting(name: str) -> Callable[..., Any]:
    def method(self: Unknown, *others: Any) -> Any:
        result = getattr(float, name)(self, *others)
        return Unknown(self._numbers) if isinstance(result, float) else result

    return method


def _deciding(name: str) -> Callable[..., Any]:
    def method(self: Unknown, *others: Any) -> Any:
        if self._numbers is not None:
            self._numbers.check()
        return getattr(float, name)(self, *others)

    return method


for _name in ("add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "pow", "neg", "abs"):
    setattr(Unknown, f"__{_name}__", _counting(f"__{_name}__"))
for _name in ("lt", "le", "gt", "ge", "eq", "ne", "bool", "int", "trunc", "floor", "ceil", "round"):
    setattr(Unknown, f"__{_name}__", _deciding(f"__{_name}__"))
Unknown.__hash__ = float.__hash__  # type: ignore[method-assign]


def plain_float(number: float) -> float:
    """The number as Python's own ``float``, which is what ``__float__`` must give."""
    return float.__add__(number, 0.0)
