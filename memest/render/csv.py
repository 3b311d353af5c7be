"""A report's sheet as CSV (RFC 4180 quoting, one header line, raw numbers)."""

from __future__ import annotations

import csv
from io import StringIO

from memest.render.report import Report, plain
from memest.shown import visible


def render(report: Report) -> str:
    """The sheet; cells that a spreadsheet would run as a formula are given a leading apostrophe."""
    stream = StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    sheet = report.sheet
    writer.writerow([visible(name) for name, _ in sheet.columns])
    for row in sheet.rows:
        writer.writerow([_cell(value, plain(value, kind)) for value, (_, kind) in zip(row, sheet.columns, strict=True)])
    return stream.getvalue()


def _cell(value: object, text: str) -> str:
    return f"'{text}" if isinstance(value, str) and text[:1] in ("=", "+", "-", "@") else text
