"""A report for the terminal: colors and width are the caller's choice, so the same report is also a plain text (rich gives the colors)."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from memest.render.layout import laid, wrapped
from memest.render.report import Report
from memest.shown import visible

LABEL = 24  # of a line, at most, for the name of a fact


def render(report: Report, *, width: int = 120, color: bool = False) -> str:
    """The whole report, lines of at most ``width`` columns."""
    lines = [Text(line, style="bold") for line in wrapped(visible(report.title), width)]
    lines += _facts(report.facts, width)
    spared: dict[str, None] = {}
    for table in report.tables:
        found = laid(table, width)
        spared.update(dict.fromkeys(found.spared))
        lines.append(Text())
        lines += [Text(line, style="bold") for line in (wrapped(visible(table.title), width) if table.title else ())]
        lines += [Text(line, style="bold") for line in found.header]
        lines += [Text(line) for line in (found.rule, *found.body)]
    notes = [*report.notes, *([f"no room here for: {', '.join(spared)}"] if spared else [])]
    lines += [Text()] if notes else []
    lines += [Text(f"  {line}", style="dim") for note in notes for line in wrapped(visible(note), width - 2)]
    return printed(lines, width, color)


def printed(lines: Sequence[Text], width: int, color: bool) -> str:
    """Lines that fit ``width``, in colors where they are wanted."""
    stream = StringIO()
    console = Console(file=stream, width=width, force_terminal=color, no_color=not color, color_system="standard" if color else None)
    for line in lines:
        console.print(line, no_wrap=True, overflow="ignore", crop=False)
    return "\n".join(line.rstrip() for line in stream.getvalue().rstrip().split("\n")) + "\n"


def _facts(facts: Sequence[tuple[str, str]], width: int) -> list[Text]:
    """A line or more a fact: its name, and its words beside it."""
    names = [wrapped(visible(name), LABEL) for name, _ in facts]
    label = max((cell_len(line) for name in names for line in name), default=0)
    found: list[Text] = []
    for name, (_, value) in zip(names, facts, strict=True):
        words = wrapped(visible(value), width - label - 3)
        for i in range(max(len(name), len(words))):
            first = name[i] if i < len(name) else ""
            line = Text(" ").append(first, style="bold").append(" " * (label - cell_len(first) + 2))
            found.append(line.append(words[i] if i < len(words) else ""))
    return found
