"""A number read from a tensor while nothing is computed: good for logging, and for nothing that decides what runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from memest.errors import UnsupportedError

Refusal = Callable[[str], UnsupportedError]


class Unknown(float):
    """What ``loss.item()`` gives. It counts, formats and prints as a number (1.0); whoever compares it is refused, while the recording that
    it comes from goes on."""

    _refuse: Refusal | None

    def __new__(cls, refuse: Refusal | None) -> Unknown:
        """``refuse`` gives the error that says where; None when the recording is over."""
        made = super().__new__(cls, 1.0)
        made._refuse = refuse
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return Unknown, (None,)


def _counting(name: str) -> Callable[..., Any]:
    def method(self: Unknown, *others: Any) -> Any:
        result = getattr(float, name)(self, *others)
        return Unknown(self._refuse) if isinstance(result, float) else result

    return method


def _deciding(name: str) -> Callable[..., Any]:
    def method(self: Unknown, *others: Any) -> Any:
        if self._refuse is not None:
            raise self._refuse("a decision by a number read from a tensor (.item(), float()), which nobody knows before anything runs")
        return getattr(float, name)(self, *others)

    return method


for _name in ("add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "pow", "neg", "abs"):
    setattr(Unknown, f"__{_name}__", _counting(f"__{_name}__"))
for _name in ("lt", "le", "gt", "ge", "eq", "ne", "bool", "int", "trunc", "floor", "ceil", "round"):
    setattr(Unknown, f"__{_name}__", _deciding(f"__{_name}__"))
Unknown.__hash__ = float.__hash__  # type: ignore[method-assign]
