"""A report as GitHub-flavoured Markdown: a heading, facts as a list, tables, notes."""

from __future__ import annotations

from memest.render.report import NUMBERS, Report, Table, shown
from memest.shown import visible


def render(report: Report) -> str:
    """The whole report."""
    parts = [f"## {_plain(report.title)}"]
    if report.facts:
        parts.append("\n".join(f"- **{_plain(name)}**: {_plain(value)}" for name, value in report.facts))
    parts += [_table(t) for t in report.tables]
    if report.notes:
        parts.append("\n".join(f"> {_plain(n)}" for n in report.notes))
    return "\n\n".join(parts) + "\n"


def _table(table: Table) -> str:
    header = "| " + " | ".join(_plain(name) for name, _ in table.columns) + " |"
    rule = "|" + "|".join(" ---: " if kind in NUMBERS else " --- " for _, kind in table.columns) + "|"
    rows = ["| " + " | ".join(_plain(shown(v, k)) for v, (_, k) in zip(row, table.columns, strict=True)) + " |" for row in table.rows]
    title = [f"**{_plain(table.title)}**", ""] if table.title else []
    return "\n".join([*title, header, rule, *rows])


def _plain(text: str) -> str:
    """Text that cannot break out of its cell or be read as markup."""
    text = visible(text)
    for char in ("\\", "|", "`", "*", "_", "<"):
        text = text.replace(char, f"\\{char}")
    return " ".join(text.split())
