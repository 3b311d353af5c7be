"""Every error memest raises, and what each is for.

    MemestError
    ├── GraphError            a network that cannot be: unknown operator or attribute, dangling name, cycle, wrong shape
    │   ├── UnknownNameError  a name that is not in its table (with "did you mean")
    │   └── ShapeError        a shape that no kernel would take, named by layer
    ├── FileError             a file that cannot be read as a graph or a list of hardware: place, reason, what to try
    ├── OutOfMemoryError      a request that a card cannot hold, met while an allocator is replayed; caught by whoever plays it
    ├── UnsupportedError      valid in torch, without a rule here: names the call, the layer, the line of user code
    └── UsageError            a contradiction in what the caller asked (input shape, mode, optimizer options)

All are one line long. The command line maps GraphError, FileError and UnsupportedError to exit code 3, UsageError to 2.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from memest.shown import brief

_BESIDE = "1234567890 qwertyuiop asdfghjkl zxcvbnm"


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


class OutOfMemoryError(MemestError):
    """A request that the memory of a card cannot hold."""


class UnsupportedError(MemestError):
    """Something torch can do and memest has no rule for."""


class UsageError(MemestError):
    """The caller's request contradicts itself or the graph."""


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` or an empty string: the known name that a slip of the fingers, or an end left out, makes of ``name``."""
    from difflib import get_close_matches  # slow to load, and wanted where something is wrong

    text, names = str(name), list(known)
    close = [k for k in names if k.lower() == text.lower()]
    close += [k for k in get_close_matches(text, names, n=8) if _slips(text.lower(), k.lower()) <= max(len(text) + 1, len(k) + 1, 4) // 4]
    if not close and len(text) >= 3:
        close = sorted((k for k in names if _begins(k.lower(), text.lower())), key=len)
    return f"; did you mean {close[0]!r}?" if close else ""


def one_of(name: str, known: Iterable[str], others: Mapping[str, str] = MappingProxyType({})) -> str:
    """``; did you mean 'x'?`` where a known name is near, or where ``others`` (words people use, and ours) has one; else all there are."""
    names = list(known)
    meant = f"; did you mean {others[name]!r}?" if name in others else did_you_mean(name, names)
    return meant or f"; there are {', '.join(names)}"


def _begins(a: str, b: str) -> bool:
    """True where one is the other with more at its end."""
    return a.startswith(b) or (len(a) >= 5 and b.startswith(a))


def _slips(a: str, b: str) -> int:
    """Letters left out, added, swapped or hit beside that make ``b`` of ``a``; in short words another letter is another word (2)."""
    short = max(len(a), len(b)) <= 5
    before, row = [0] * (len(b) + 1), list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        earlier, before, row = before, row, [i]
        for j, y in enumerate(b, start=1):
            other = 0 if x == y else 2 if short and f"{x}{y}" not in _BESIDE and f"{y}{x}" not in _BESIDE else 1
            row.append(min(before[j] + 1, row[j - 1] + 1, before[j - 1] + other))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                row[j] = min(row[j], earlier[j - 2] + 1)
    return row[-1]


def kind_of(value: object) -> str:
    """What a value is, in words short enough for an error."""
    if value is None or isinstance(value, bool):
        return str(value)
    if type(value) in (int, float, str):
        text = repr(value)
        return text if len(text) <= 60 else f"{text[:57]}..."
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if any(c.__name__ == "Module" and c.__module__ == "torch.nn.modules.module" for c in type(value).__mro__):
        return f"a torch module ({type(value).__name__})"
    home = type(value).__module__.partition(".")[0]
    name = type(value).__name__ if home in ("builtins", "memest") else f"{home}.{type(value).__name__}"
    return f"{'an' if name[0] in 'AEIOUaeio' else 'a'} {name}"


def unforeseen(error: Exception) -> MemestError:
    """What a rule stumbled over, as an error of ours: sizes or attributes it was not written for."""
    if isinstance(error, OverflowError):
        return UnsupportedError("these sizes or attributes are beyond what a library's own arithmetic holds; make them smaller")
    return UnsupportedError(f"the rule cannot take these sizes or attributes ({type(error).__name__}: {error}); please report it")
