"""Texts from files and their way to a reader: nothing in them steers a terminal or reorders a line, and long ones are shortened."""

from __future__ import annotations

from collections.abc import Callable

HEAD = 3  # of what is left of a shortened text, one part in so many stands before the gap: names differ at their end
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0")  # letters and marks that show nothing


def visible(text: str) -> str:
    r"""``text`` with an escape (``\x1b``, ``\n``, ``\u202e``) for each character that shows nothing of its own: controls, newlines,
    changes of direction, characters without width, spaces other than the plain one."""
    if text.isprintable() and _BLANK.isdisjoint(text):
        return text
    return "".join(c if c.isprintable() and c not in _BLANK else _escape(c) for c in text)


def visible_json(text: str) -> str:
    """JSON with the same characters escaped as JSON does it: its data stay what they were. Line ends between its tokens stay, too."""
    if text.replace("\n", "").isprintable() and _BLANK.isdisjoint(text):
        return text
    return "".join(c if c == "\n" or (c.isprintable() and c not in _BLANK) else _json_escape(c) for c in text)


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


def _gapped(text: str, kept: int) -> str:
    head = kept // HEAD
    return f"{text[:head]}…{text[len(text) - kept + head :]}"


def _escape(c: str) -> str:
    return c.encode("unicode_escape").decode()


def _json_escape(c: str) -> str:
    units = c.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))
