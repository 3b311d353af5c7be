"""A table as lines of characters: which columns there is room for, how wide each is, and what stands on which line.

No line is wider than asked for. A number is never cut, a name never folded: columns that the table can spare go first
(``Table.drops``), then names are shortened in the middle. Prose wraps between words. A text to be copied (``literal``) stands whole on
a line of its own where its column is too narrow for it; where even that line is, a backslash ends each part, as a shell reads it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from memest.render.lines import cell_len
from memest.render.report import NUMBERS, Kind, Table, shown
from memest.shown import middle

MARGIN, GAP = 1, 2
NAME, WORD, PROSE, LITERAL = 24, 16, 20, 24  # columns that each kind is left before the table spares a column
LEAST = 8
BREAK = re.compile(r"[/+·]|,(?!\d)")  # behind it, a word that is longer than its line goes on in the next


@dataclass(frozen=True, slots=True, kw_only=True)
class Laid:
    """The lines of a table, and the titles of columns that had no room."""

    header: tuple[str, ...]
    rule: str
    body: tuple[str, ...]
    spared: tuple[str, ...]


@dataclass(slots=True)
class _Column:
    """Its title and cells; ``floor`` is the width it should have at least, ``wish`` the most it has use for."""

    title: str
    kind: Kind
    cells: tuple[str, ...]
    floor: int
    wish: int
    width: int = 0

    @property
    def soft(self) -> bool:
        """True when it can be narrower than its longest word."""
        return self.kind not in NUMBERS


def laid(table: Table, width: int) -> Laid:
    """``table`` in lines of at most ``width`` columns."""
    columns = _columns(table, width)
    shown_ones = _with_room(columns, table.drops, width)
    _widen(shown_ones, width)
    names = [c.title for c in shown_ones]
    rule = "─" * min(width, MARGIN + sum(c.width for c in shown_ones) + GAP * (len(shown_ones) - 1) + 1)
    body = [line for i in range(len(table.rows)) for line in _row([c.cells[i] for c in shown_ones], shown_ones, width)]
    titles = [wrapped(c.title, c.width) for c in shown_ones]
    tall = max(map(len, titles), default=0)
    header = [_line([t[i - tall + len(t)] if i >= tall - len(t) else "" for t in titles], shown_ones) for i in range(tall)]
    return Laid(header=tuple(header), rule=rule, body=tuple(body), spared=tuple(c.title for c in columns if c.title not in names))


def wrapped(text: str, room: int) -> list[str]:
    """``text`` in lines of at most ``room`` columns, broken between words. A word longer than that goes on in the next line behind a
    ``BREAK``; what has none is shortened in the middle."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        joined = f"{line} {word}" if line else word
        if cell_len(joined) <= room:
            line = joined
            continue
        if line:
            lines.append(line)
        *whole, line = _parts(word, room)
        lines += whole
    return [*lines, line]


def literal(text: str, room: int) -> list[str]:
    """``text`` to be copied, in one line where it fits and else in lines that a shell reads as one."""
    return [text] if cell_len(text) <= room else [f"{p}\\" if more else p for p, more in _marked(_parts(text, room - 1, cut=False))]


def _marked(parts: Sequence[str]) -> list[tuple[str, bool]]:
    return [(p, i < len(parts) - 1) for i, p in enumerate(parts)]


def _parts(word: str, room: int, *, cut: bool = True) -> list[str]:
    """A word in parts of at most ``room``, each ending with a ``BREAK``; what has none is shortened, or broken without ``cut``."""
    parts: list[str] = []
    while cell_len(word) > room:
        ends = [m.end() for m in BREAK.finditer(word) if cell_len(word[: m.end()]) <= room]
        if not ends and cut:
            return [*parts, middle(word, room, cell_len)]
        end = ends[-1] if ends else max(1, _fitting(word, room))
        parts.append(word[:end])
        word = word[end:]
    return [*parts, word] if word or not parts else parts


def _fitting(word: str, room: int) -> int:
    """How many of its characters fit."""
    return next(n for n in range(len(word), -1, -1) if cell_len(word[:n]) <= room)


def _columns(table: Table, width: int) -> list[_Column]:
    found: list[_Column] = []
    for i, (title, kind) in enumerate(table.columns):
        cells = tuple(shown(row[i], kind) for row in table.rows)
        longest = max((cell_len(c) for c in cells), default=0)
        words = max((cell_len(w) for c in cells for w in c.split()), default=0)
        head = max((cell_len(w) for w in title.split()), default=0)
        if kind in NUMBERS:
            floor = longest
        elif kind == "shapes":
            floor = words
        elif kind == "name":
            floor = min(longest, max(NAME, 2 * width // 5))
        elif kind == "word":
            floor = min(longest, WORD)
        elif kind == "literal":
            floor = min(longest, LITERAL)
        else:
            floor = min(longest, max(PROSE, min(words, 2 * width // 5)))
        wish = min(longest, max(LITERAL + 4, width // 3)) if kind == "literal" else longest
        found.append(_Column(title, kind, cells, max(floor, head), max(floor, wish, cell_len(title))))
    return found


def _with_room(columns: Sequence[_Column], drops: Sequence[str], width: int) -> list[_Column]:
    """The columns that stay, at widths that fit: those that can be spared go first, then names and prose give way, then the last."""
    kept = list(columns)
    for title in drops:
        if _total([c.floor for c in kept]) <= width:
            break
        kept = [c for c in kept if c.title != title]
    while True:
        for c in kept:
            c.width = c.floor
        while _total([c.width for c in kept]) > width:
            widest = max((c for c in kept if c.soft and c.width > LEAST), key=lambda c: c.width, default=None)
            if widest is None:
                break
            widest.width -= 1
        if _total([c.width for c in kept]) <= width or len(kept) <= 1:
            return kept
        kept.pop()


def _widen(columns: Sequence[_Column], width: int) -> None:
    """What is left goes to names, then to titles of numbers, then to the prose that has most lines."""
    left = width - _total([c.width for c in columns])
    order = {"name": 0, "literal": 0, "word": 1, "shapes": 1, **dict.fromkeys(NUMBERS, 2)}
    for c in sorted((c for c in columns if c.kind in order), key=lambda c: order[c.kind]):
        more = max(0, min(left, c.wish - c.width))
        c.width, left = c.width + more, left - more
    prose = [c for c in columns if c.kind == "text"]
    while left > 0 and (narrow := [c for c in prose if c.width < c.wish]):
        max(narrow, key=lambda c: c.wish / max(c.width, 1)).width += 1
        left -= 1


def _total(widths: Sequence[int]) -> int:
    return MARGIN + sum(widths) + GAP * max(0, len(widths) - 1)


def _row(cells: Sequence[str], columns: Sequence[_Column], width: int) -> list[str]:
    """The lines of one row."""
    above: list[str] = []
    blocks: list[list[str]] = []
    for cell, c in zip(cells, columns, strict=True):
        if c.kind == "literal" and cell_len(cell) > c.width:
            above += [" " * MARGIN + cell] if cell_len(cell) <= width - MARGIN else literal(cell, width)
            blocks.append([])
        elif c.kind in ("name", "word", *NUMBERS):
            blocks.append([middle(cell, c.width, cell_len)])
        else:
            blocks.append(wrapped(cell, c.width))
    tall = max((len(b) for b in blocks), default=0)
    return above + [_line([b[i] if i < len(b) else "" for b in blocks], columns) for i in range(tall)]


def _line(cells: Sequence[str], columns: Sequence[_Column]) -> str:
    padded = []
    for cell, c in zip(cells, columns, strict=True):
        blank = " " * max(0, c.width - cell_len(cell))
        padded.append(blank + cell if c.kind in NUMBERS else cell + blank)
    return (" " * MARGIN + (" " * GAP).join(padded)).rstrip()
