"""A report's sheet as CSV (RFC 4180 quoting, one header line, raw numbers)."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from io import StringIO

from memest.render.report import Report, plain
from memest.shown import visible


def render(report: Report) -> str:
    """The sheet; cells that a spreadsheet would run as a formula are given a leading apostrophe."""
    sheet = report.sheet
    rows = ([_cell(value, plain(value, kind)) for value, (_, kind) in zip(row, sheet.columns, strict=True)] for row in sheet.rows)
    return _written([[visible(name) for name, _ in sheet.columns], *rows])


def line(texts: Iterable[str | None]) -> str:
    """One line of texts, without its end."""
    return _written([[_cell(text, plain(text, "text")) for text in texts]])[:-1]


def _written(rows: Iterable[Sequence[str]]) -> str:
    stream = StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()


def _cell(value: object, text: str) -> str:
    return f"'{text}" if isinstance(value, str) and text[:1] in ("=", "+", "-", "@") else text
