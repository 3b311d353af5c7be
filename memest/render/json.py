"""A report's data as JSON: bytes are whole numbers, whatever their size."""

from __future__ import annotations

import json

from memest.render.report import Report
from memest.shown import visible_json


def render(report: Report) -> str:
    """The data, indented."""
    data = report.data() if callable(report.data) else report.data
    return visible_json(json.dumps(data, indent=2, ensure_ascii=False)) + "\n"
