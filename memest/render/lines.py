"""Lines for a terminal: how many columns a text takes, and words in a style, written as plain text or with the terminal's colours."""

from __future__ import annotations

from collections.abc import Iterable

STYLES = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
    "bright_black": "90",
    "bright_yellow": "93",
}


def cell_len(text: str) -> int:
    """The columns that ``text`` takes; some letters take two or none, and rich knows them."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len as measured

    return measured(text)


class Line:
    """Texts side by side, each in a style of ``STYLES`` or in none."""

    __slots__ = ("_parts",)

    def __init__(self, text: str = "", style: str = "") -> None:
        self._parts = [(text, style)]

    def append(self, text: str, style: str = "") -> Line:
        """More to the right; the line itself."""
        self._parts.append((text, style))
        return self

    @property
    def cell_len(self) -> int:
        """The columns that it takes."""
        return sum(cell_len(text) for text, _ in self._parts)

    def written(self, color: bool) -> str:
        """Its characters, those that set styles among them where there is ``color``."""
        return "".join(f"\x1b[{STYLES[style]}m{text}\x1b[0m" if color and style and text else text for text, style in self._parts)


def printed(lines: Iterable[Line], color: bool) -> str:
    """The lines, in colors where they are wanted. No line ends with blanks, nor the last with an empty one."""
    return "\n".join(line.written(color).rstrip() for line in lines).rstrip() + "\n"
