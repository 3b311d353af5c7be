"""The ``torch.autocast`` contexts that stand around the layers of a graph while it is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from memest.network.graph import Casting

DEVICES = ("cpu", "cuda")


class Contexts:
    """The contexts that stand around a call, outermost first. ``castings`` is what a layer says of them."""

    castings: tuple[Casting, ...]
    casts_to: str | None
    """The type that calls on the CPU, where a network is recorded and described, are cast to."""

    def __init__(self) -> None:
        self.castings, self.casts_to = (), None
        self._stack: list[tuple[str, str | None, bool]] = []
        self._scope = ""

    def begin(self, device: str, dtype: str | None, cache: bool, scope: Callable[[], str]) -> None:
        """Another one; the outermost is named by ``scope``."""
        if not self._stack:
            self._scope = scope()
        self._stack.append((device, dtype, cache))
        self._settle()

    def end(self) -> str | None:
        """The innermost one ends; the scope's name where it was the outermost."""
        self._stack.pop()
        self._settle()
        return None if self._stack else self._scope

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Calls that run at another time, with contexts of their own."""
        outer = self._stack, self._scope
        self._stack = []
        self._settle()
        try:
            yield
        finally:
            self._stack, self._scope = outer
            self._settle()

    def _settle(self) -> None:
        said = {device: dtype for device, dtype, _ in self._stack}
        cache = self._stack[-1][2] if self._stack else True
        self.castings = tuple([Casting(device=d, dtype=said[d], cache=cache, scope=self._scope) for d in DEVICES if d in said])
        self.casts_to = cast_to(self.castings)


def cast_to(castings: tuple[Casting, ...], device: str = "cpu") -> str | None:
    """The type that calls in these contexts are cast to on a kind of device; None where nothing is cast."""
    return next((c.dtype for c in castings if c.device == device), None)
