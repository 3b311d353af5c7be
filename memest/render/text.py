"""A report for the terminal (rich): colors and width are the caller's choice, so the same report is also a plain text."""

from __future__ import annotations

from io import StringIO

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from memest.render.report import Report, Table, shown


def render(report: Report, *, width: int = 120, color: bool = False) -> str:
    """The whole report, lines of at most ``width`` columns."""
    stream = StringIO()
    console = Console(file=stream, width=width, force_terminal=color, no_color=not color, color_system="standard" if color else None)
    console.print(Text(report.title, style="bold"))
    if report.facts:
        console.print(_facts(report))
    for table in report.tables:
        console.print()
        if table.title:
            console.print(Text(table.title, style="bold"))
        console.print(_table(table))
    if report.notes:
        console.print()
    for note in report.notes:
        console.print(Padding(Text(note, style="dim"), (0, 0, 0, 2)))
    return "\n".join(line.rstrip() for line in stream.getvalue().rstrip().split("\n")) + "\n"


def _facts(report: Report) -> RichTable:
    grid = RichTable(box=None, show_header=False, padding=(0, 1), pad_edge=True)
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in report.facts:
        grid.add_row(Text(name), Text(value))
    return grid


def _table(table: Table) -> RichTable:
    grid = RichTable(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1))
    for name, kind in table.columns:
        numeric = kind in ("bytes", "count", "share")
        grid.add_column(Text(name), justify="right" if numeric else "left", no_wrap=numeric, overflow="fold")
    for row in table.rows:
        grid.add_row(*(Text(shown(value, kind)) for value, (_, kind) in zip(row, table.columns, strict=True)))
    return grid
