"""A report for the terminal: colors and width are the caller's choice, so the same report is also a plain text."""

from __future__ import annotations

from collections.abc import Sequence

from memest.render.layout import laid, wrapped
from memest.render.lines import Line, cell_len, printed
from memest.render.report import Report
from memest.shown import visible

LABEL = 24  # of a line, at most, for the name of a fact


def render(report: Report, *, width: int = 120, color: bool = False) -> str:
    """The whole report, lines of at most ``width`` columns."""
    lines = [Line(line, style="bold") for line in wrapped(visible(report.title), width)]
    lines += _facts(report.facts, width)
    spared: dict[str, None] = {}
    for table in report.tables:
        found = laid(table, width)
        spared.update(dict.fromkeys(found.spared))
        lines.append(Line())
        lines += [Line(line, style="bold") for line in (wrapped(visible(table.title), width) if table.title else ())]
        lines += [Line(line, style="bold") for line in found.header]
        lines += [Line(line) for line in (found.rule, *found.body)]
    notes = [*report.notes, *([f"no room here for: {', '.join(spared)}"] if spared else [])]
    lines += [Line()] if notes else []
    lines += [Line(f"  {line}", style="dim") for note in notes for line in wrapped(visible(note), width - 2)]
    return printed(lines, color)


def _facts(facts: Sequence[tuple[str, str]], width: int) -> list[Line]:
    """A line or more a fact: its name, and its words beside it."""
    names = [wrapped(visible(name), LABEL) for name, _ in facts]
    label = max((cell_len(line) for name in names for line in name), default=0)
    found: list[Line] = []
    for name, (_, value) in zip(names, facts, strict=True):
        words = wrapped(visible(value), width - label - 3)
        for i in range(max(len(name), len(words))):
            first = name[i] if i < len(name) else ""
            line = Line(" ").append(first, style="bold").append(" " * (label - cell_len(first) + 2))
            found.append(line.append(words[i] if i < len(words) else ""))
    return found
