"""Every error memest raises, and what each is for.

    MemestError
    ├── GraphError            a network that cannot be: unknown operator or attribute, dangling name, cycle, wrong shape
    │   ├── UnknownNameError  a name that is not in its table (with "did you mean")
    │   └── ShapeError        a shape that no kernel would take, named by layer
    ├── FileError             a file that cannot be read as a graph or a list of hardware: place, reason, what to try
    ├── UnsupportedError      valid in torch, without a rule here: names the call, the layer, the line of user code
    └── UsageError            a contradiction in what the caller asked (input shape, mode, optimizer options)

All are one line long. The command line maps GraphError, FileError and UnsupportedError to exit code 3, UsageError to 2.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from types import MappingProxyType

from memest.names import brief


class MemestError(Exception):
    """Base of all errors of this package; ``str()`` is one line that names the place and says what to try. Of what it quotes, long texts
    are shortened."""

    def __init__(self, message: str = "") -> None:
        super().__init__(brief(message))

    def at(self, place: str) -> MemestError:
        """The same error with ``place`` (a layer, a file position) put in front, unless it already begins with it."""
        text = str(self)
        return self if text.startswith(place) else type(self)(f"{place}: {text}")


class GraphError(MemestError):
    """The described network is not one torch could run."""


class UnknownNameError(GraphError):
    """A name that is not in its table."""


class ShapeError(GraphError):
    """Shapes that do not fit an operator."""


class FileError(MemestError):
    """A file that is not what it should be: a graph, or a list of hardware."""


class UnsupportedError(MemestError):
    """Something torch can do and memest has no rule for."""


class UsageError(MemestError):
    """The caller's request contradicts itself or the graph."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` or an empty string."""
    close = get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def one_of(name: str, known: Iterable[str], others: Mapping[str, str] = MappingProxyType({})) -> str:
    """``; did you mean 'x'?`` where a known name is near, or where ``others`` (words people use, and ours) has one; else all there are."""
    names = list(known)
    meant = f"; did you mean {others[name]!r}?" if name in others else did_you_mean(name, names)
    return meant or f"; there are {', '.join(names)}"


def unforeseen(error: Exception) -> MemestError:
    """What a rule stumbled over, as an error of ours: sizes or attributes it was not written for."""
    return UnsupportedError(f"the rule cannot take these sizes or attributes ({type(error).__name__}: {error}); please report it")
