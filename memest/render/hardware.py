"""Hardware and verdicts as reports: the list, one entry in full, and what an estimate says beside its peak."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from memest.machines.claims import Claim
from memest.machines.entry import Hardware
from memest.machines.verdicts import Verdict
from memest.render.report import Kind, Report, Table
from memest.sizes.units import format_bytes

LIST_COLUMNS: tuple[tuple[str, Kind], ...] = (
    ("hardware", "name"),
    ("kind", "word"),
    ("memory", "word"),
    ("bytes", "bytes"),
    ("usable", "bytes"),
    ("title", "text"),
)
TIER_COLUMNS: tuple[tuple[str, Kind], ...] = (("memory", "word"), ("bytes", "bytes"), ("usable", "bytes"), ("usable rests on", "text"))
VERDICT_COLUMNS: tuple[tuple[str, Kind], ...] = (
    ("on", "name"),
    ("memory", "word"),
    ("usable", "bytes"),
    ("used", "bytes"),
    ("free", "bytes"),
    ("verdict", "text"),
)
SHEET_COLUMNS: tuple[tuple[str, Kind], ...] = (
    ("on", "text"),
    ("verdict", "text"),
    ("usable_bytes", "text"),
    ("headroom_bytes", "text"),
    ("spilled_bytes", "text"),
    ("short_bytes", "text"),
    ("figure", "text"),
    ("low_bytes", "text"),
    ("high_bytes", "text"),
    ("bytes_of", "text"),
    ("missing", "text"),
)
LIST_DROPS = ("bytes", "memory", "kind")
VERDICT_DROPS = ("memory", "used", "usable")


def catalogue_report(entries: Sequence[Hardware]) -> Report:
    """Every entry, a row a tier."""
    rows = tuple((e.name, e.kind, t.name, t.nbytes, t.usable_bytes, e.title) for e in entries for t in e.tiers)
    sheet = Table(title="", columns=_plain_columns(LIST_COLUMNS), rows=rows)
    return Report(
        title=f"{len(entries)} machines",
        facts=(),
        tables=(Table(title="", columns=LIST_COLUMNS, rows=rows, drops=LIST_DROPS),),
        data=[_entry_data(e) for e in entries],
        sheet=sheet,
        notes=("memest hardware NAME says where the numbers are from; entries of your own come from a file (--hardware FILE)",),
    )


def entry_report(entry: Hardware) -> Report:
    """One entry with its tiers, their rules and the source."""
    rows = tuple((t.name, t.nbytes, t.usable_bytes, t.basis) for t in entry.tiers)
    return Report(
        title=f"{entry.name}: {entry.title}",
        facts=(("kind", entry.kind), ("usable", format_bytes(entry.usable_bytes)), ("source", entry.source)),
        tables=(Table(title="Memory, in the order it fills", columns=TIER_COLUMNS, rows=rows, drops=("bytes", "memory")),),
        data=_entry_data(entry),
        sheet=Table(title="", columns=_plain_columns(TIER_COLUMNS), rows=rows),
    )


def with_verdicts(report: Report, verdicts: Sequence[Verdict], played: Sequence[Report]) -> Report:
    """An estimate's report with the verdicts in: facts and a table for people, ``verdicts`` in the data, a row each in the sheet.
    ``played`` are the reports of what each verdict rests on, mostly ``report`` itself; what was played for other cards has its figures
    beside its verdict."""
    if not verdicts:
        return report
    rows = [
        (v.hardware.name, u.tier.name, u.tier.usable_bytes, u.used_bytes, u.free_bytes, v.outcome if u is v.tiers[0] else "")
        for v in verdicts
        for u in v.tiers
    ]
    compared = dict.fromkeys(v.claim.compared for v in verdicts)
    others = {v.hardware.name: o for v, o in zip(verdicts, played, strict=True) if o.title != report.title}
    return replace(
        report,
        facts=(*report.facts, *((v.hardware.name, str(v)) for v in verdicts), *(("compared", c) for c in compared)),
        notes=(*report.notes, *(f"{name}: {note}" for name, o in others.items() for note in o.notes if note not in report.notes)),
        tables=(Table(title="Does it fit", columns=VERDICT_COLUMNS, rows=tuple(rows), drops=VERDICT_DROPS), *report.tables),
        data={**report.data, "verdicts": [_verdict_data(v) for v in verdicts], **_of_others(others)},
        sheet=_sheet([other.sheet for other in played], verdicts),
    )


def claim_cells(claim: Claim) -> dict[str, str]:
    """Whose bytes are compared and what is missing, as the columns of a sheet."""
    return {"bytes_of": claim.bytes_of, "missing": "; ".join(claim.missing)}


def claim_data(claim: Claim) -> dict[str, Any]:
    """The same as plain data."""
    return {"bytes_of": claim.bytes_of, "missing": list(claim.missing)}


def _of_others(others: Mapping[str, Report]) -> dict[str, Any]:
    """What was played for other cards than the first, as plain data."""
    return {"others": [{k: v for k, v in o.data.items() if k != "holdings"} for o in others.values()]} if others else {}


def _sheet(sheets: Sequence[Table], verdicts: Sequence[Verdict]) -> Table:
    cells = [
        (
            v.hardware.name,
            v.outcome,
            v.hardware.usable_bytes,
            v.headroom_bytes,
            v.spilled_bytes,
            v.short_bytes,
            v.figure,
            v.low_bytes,
            v.high_bytes,
            *claim_cells(v.claim).values(),
        )
        for v in verdicts
    ]
    rows = tuple((*row, *c) for sheet, c in zip(sheets, cells, strict=True) for row in sheet.rows)
    return Table(title="", columns=(*sheets[0].columns, *SHEET_COLUMNS), rows=rows)


def _entry_data(e: Hardware) -> dict[str, Any]:
    return {
        "hardware": e.name,
        "title": e.title,
        "kind": e.kind,
        "tiers": [{"name": t.name, "bytes": t.nbytes, "usable_bytes": t.usable_bytes, "basis": t.basis} for t in e.tiers],
        "usable_bytes": e.usable_bytes,
        "source": e.source,
    }


def _verdict_data(v: Verdict) -> dict[str, Any]:
    return {
        "on": v.hardware.name,
        "verdict": v.outcome,
        "fits": v.fits,
        "bytes_fit": v.bytes_fit,
        **claim_data(v.claim),
        "usable_bytes": v.hardware.usable_bytes,
        "headroom_bytes": v.headroom_bytes,
        "spilled_bytes": v.spilled_bytes,
        "short_bytes": v.short_bytes,
        "figure": v.figure,
        "peak_bytes": v.peak_bytes,
        "low_bytes": v.low_bytes,
        "high_bytes": v.high_bytes,
        "tiers": [
            {"name": u.tier.name, "usable_bytes": u.tier.usable_bytes, "used_bytes": u.used_bytes, "free_bytes": u.free_bytes}
            for u in v.tiers
        ],
    }


def _plain_columns(columns: tuple[tuple[str, Kind], ...]) -> tuple[tuple[str, Kind], ...]:
    names = {"usable": "usable_bytes", "usable rests on": "basis"}
    return tuple((names.get(name, name), kind) for name, kind in columns)
