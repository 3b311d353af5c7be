"""How names and results show themselves: a line where Python prints them, in a notebook a table (:mod:`memest.render.html`).

Promises: nothing in a text that somebody else wrote steers a terminal, reorders a line or ends one, and long ones are shortened. Data
(JSON, YAML, pickles) keep what they were given; there the same characters are written as escapes.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

LONGEST = 40  # characters of a name in a result's line
LONGEST_WORD, LONGEST_LINE = 160, 1200  # characters of a message
HEAD = 3  # of what is left of a shortened text, one part in so many stands before the gap: names differ at their end
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0")  # letters and marks that show nothing


def visible(text: str, *, keep: str = "") -> str:
    r"""``text`` with an escape (``\x1b``, ``\n``, ``\u202e``) for each character that shows nothing of its own: controls, newlines,
    changes of direction, characters without width, spaces other than the plain one. Those of ``keep`` stay as they are."""
    return _replaced(text, keep, lambda c: c.encode("unicode_escape").decode())


def visible_json(text: str) -> str:
    """JSON with the same characters escaped as JSON does it: its data are what they were."""
    return _replaced(text, "\n", _json_escape)


def middle(text: str, room: float, measure: Callable[[str], float] = len, least: int = 0) -> str:
    """``text`` in at most ``room`` of what ``measure`` counts: of a long one the beginning and, twice as much of it, the end. Empty where
    fewer than ``least`` of its characters would be left."""
    if measure(text) <= room:
        return text
    few, many = 0, len(text)  # characters of which we know that they fit, and that they do not
    while many - few > 1:
        kept = (few + many) // 2
        few, many = (kept, many) if measure(_gapped(text, kept)) <= room else (few, kept)
    return _gapped(text, few) if few >= least else ""


def brief(message: str) -> str:
    """A message that quotes no more of a long text than a reader wants."""
    if len(message) <= LONGEST_WORD:
        return message
    return middle(" ".join(middle(word, LONGEST_WORD) for word in message.split(" ")), LONGEST_LINE)


def short(text: str) -> str:
    """``text`` in at most ``LONGEST`` characters, shortened in the middle, quoted."""
    return repr(middle(text, LONGEST))


def counted(n: int, thing: str) -> str:
    """``1 layer``, ``1,024 layers``."""
    return f"{n:,} {thing}{'' if n == 1 else 's'}"


class Shown:
    """What a notebook shows as a table."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        html: str = import_module("memest.render.html").shown(self)
        return html


def _replaced(text: str, keep: str, escape: Callable[[str], str]) -> str:
    if text.isprintable() and _BLANK.isdisjoint(text):
        return text
    return "".join(c if c in keep or (c.isprintable() and c not in _BLANK) else escape(c) for c in text)


def _gapped(text: str, kept: int) -> str:
    head = kept // HEAD
    return f"{text[:head]}…{text[len(text) - kept + head :]}"


def _json_escape(c: str) -> str:
    units = c.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))
