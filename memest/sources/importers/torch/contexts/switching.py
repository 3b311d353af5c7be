"""What code does about gradients itself where they are on at one time and off at another.

Backward (of a custom function, a hook) runs without gradients, with ``create_graph=True`` with them. It is recorded once, without; so it
is written down which of its calls stand in a context of its own that turns gradients off (``no_grad``, ``inference_mode``,
``set_grad_enabled(False)``), and where it calls a custom function, whose node is there with ``create_graph=True`` alone. A reentrant
checkpoint runs without gradients first and with them then. It is recorded with them; so it is written down which of its calls stand in a
context of its own that turns them on.

Source: torch/autograd/grad_mode.py; torch/csrc/autograd/python_function.cpp (PyNode::apply takes the engine's mode as it is).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

import torch

from memest.network.graph import Backward, Layer

CONTEXTS: dict[type[Any], Callable[[Any], bool]] = {
    torch.no_grad: lambda _: False,
    torch.enable_grad: lambda _: True,
    torch.set_grad_enabled: lambda context: bool(context.mode),
    torch.inference_mode: lambda context: not context.mode,
}
AUTOCAST, GRADIENT = "is_autocast_enabled", "is_grad_enabled"
"""torch's contexts, and whether gradients are on inside of one."""
autocast_on, gradients_on = torch.is_autocast_enabled, torch.is_grad_enabled
"""torch's own answers, of which nobody is told (see :func:`telling`)."""


class Switches:
    """The contexts that calls stand in, and what was seen of calls that run in backward, by the names of their layers."""

    def __init__(self) -> None:
        self.said: list[bool | None] = []
        self._off: set[str] = set()
        self._on: set[str] = set()
        self._asking: set[str] = set()
        self.asked: set[str] = set()  # what the code asked: whether autocast is on, whether gradients are
        self._functions: dict[str, str] = {}

    @property
    def off(self) -> bool:
        """Whether the innermost of the code's own contexts turns gradients off."""
        return bool(self.said) and self.said[-1] is False

    @contextmanager
    def anew(self) -> Iterator[None]:
        """What is said around these calls does not hold for them at all times, nor what was asked before them."""
        self.said.append(None)
        asked, self.asked = self.asked, set()
        try:
            yield
        finally:
            self.said.pop()
            self.asked = asked

    def enabling(self, names: Iterable[str]) -> tuple[str, ...]:
        """Which of the layers and calls stand in a context of the code's own that turns gradients on."""
        return tuple([name for name in names if name in self._on])

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Calls that run at another time: no context that stands here is around them."""
        outer, self.said = self.said, []
        try:
            yield
        finally:
            self.said = outer

    def seen(self, layer: str) -> None:
        """A call."""
        if AUTOCAST in self.asked:
            self._asking.add(layer)
            self.asked.discard(AUTOCAST)
        if self.said and self.said[-1] is not None:
            (self._on if self.said[-1] else self._off).add(layer)

    def applied(self, function: str, layers: Sequence[Layer]) -> None:
        """A custom function was applied there, and made these calls."""
        self._functions.update((layer.name, function) for layer in layers)

    def told(self, backward: Backward) -> Backward:
        """The same, with what is known of its calls."""
        names = [layer.name for layer in backward.layers]
        functions = [self._functions[name] for name in names if name in self._functions]
        return replace(
            backward,
            without_grad=tuple([name for name in names if name in self._off]),
            applies=functions[0] if functions else None,
            asks_autocast=not self._asking.isdisjoint(names),
        )


class Listener(Protocol):
    """Who is told."""

    switches: Switches


@contextmanager
def backward_mode(enabled: bool = False) -> Iterator[None]:
    """Gradients are off (or ``enabled``), which no context of the code's own says."""
    before = torch.is_grad_enabled()
    torch._C._set_grad_enabled(enabled)
    try:
        yield
    finally:
        torch._C._set_grad_enabled(before)


@contextmanager
def telling(listener: Callable[[], Listener | None]) -> Iterator[None]:
    """torch's contexts tell this thread's ``listener`` when they begin and end, and what is asked about them."""
    own = {kind: (kind.__enter__, kind.__exit__) for kind in CONTEXTS}
    questions = {name: getattr(torch, name) for name in (AUTOCAST, GRADIENT)}
    for kind, (enter, leave) in own.items():
        kind.__enter__, kind.__exit__ = _entering(enter, CONTEXTS[kind], listener), _leaving(leave, listener)
    for name, original in questions.items():
        setattr(torch, name, _asking(name, original, listener))
    try:
        yield
    finally:
        for kind, (enter, leave) in own.items():
            kind.__enter__, kind.__exit__ = enter, leave
        for name, original in questions.items():
            setattr(torch, name, original)


def _asking(name: str, original: Callable[..., bool], listener: Callable[[], Listener | None]) -> Callable[..., bool]:
    def ask(*device: Any, **named: Any) -> bool:
        told = listener()
        if told is not None and not sys._getframe(1).f_globals.get("__name__", "").startswith(("torch.", "memest.")):
            told.switches.asked.add(name)
        return original(*device, **named)

    return ask


def _entering(original: Callable[..., Any], says: Callable[[Any], bool], listener: Callable[[], Listener | None]) -> Callable[..., Any]:
    def enter(self: Any) -> Any:
        told = listener()
        if told is not None:
            said = says(self)
            follows = said and type(self) is torch.set_grad_enabled and GRADIENT in told.switches.asked  # it is as it was
            told.switches.said.append(None if follows else said)
        return original(self)

    return enter


def _leaving(original: Callable[..., Any], listener: Callable[[], Listener | None]) -> Callable[..., Any]:
    def leave(self: Any, *error: Any) -> Any:
        told = listener()
        if told is not None and told.switches.said:
            told.switches.said.pop()
        return original(self, *error)

    return leave
