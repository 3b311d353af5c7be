"""A recorded history as a report: its peak, what stood there, what lay idle, and whether the replay agrees with the record."""

from __future__ import annotations

from typing import Any

from memest.memory.allocators.retracing import PADDINGS
from memest.planning.recorded import Recorded, Remedied
from memest.render.report import Kind, Report, Table
from memest.shown import brief, counted
from memest.sizes.units import format_bytes

BLOCKS: tuple[tuple[str, Kind], ...] = (
    ("bytes", "bytes"),
    ("category", "text"),
    ("asked for at", "name"),
    ("event", "count"),
)


def snapshot_report(found: Recorded, source: str, others: tuple[int, ...]) -> Report:
    """Everything of one device; ``others`` are the devices of the file that it is not about."""
    history, replayed = found.history, found.retraced
    total = len(history.entries)
    peak = f"{format_bytes(replayed.allocated)} ({replayed.allocated:,} bytes), {_moment(replayed.allocated_at, total)}"
    reserved = f"{format_bytes(replayed.reserved)} ({replayed.reserved:,} bytes), {_moment(replayed.reserved_at, total)}"
    paged = () if found.expandable is None else (("expandable segments", f"{format_bytes(found.expandable.reserved)} reserved at most"),)
    share = 1 / max(replayed.allocated, 1)
    holdings = tuple((h.category, h.nbytes, h.nbytes * share, h.blocks) for h in found.holdings)
    tables = [
        Table(
            title="At the peak, by category (inferred)",
            columns=(("category", "text"), ("bytes", "bytes"), ("share", "share"), ("blocks", "count")),
            rows=holdings,
        ),
        Table(
            title="Largest blocks at the peak",
            columns=BLOCKS,
            rows=tuple((h.nbytes, h.category, h.where, None if h.event < 0 else h.event) for h in found.largest),
            drops=("event",),
        ),
    ]
    if replayed.exhaustions:
        tables.append(
            Table(
                title="Out of memory",
                columns=(
                    ("event", "count"),
                    ("asked", "bytes"),
                    ("free on the card", "bytes"),
                    ("allocated", "bytes"),
                    ("reserved", "bytes"),
                    ("largest free block", "bytes"),
                    ("asked for at", "name"),
                    ("would have helped", "text"),
                ),
                rows=tuple(_shortage_row(s) for s in found.shortages),
                drops=("event", "largest free block", "reserved"),
            )
        )
    return Report(
        title=f"{source}, device {history.device}",
        facts=(
            ("peak allocated", f"{peak}, {found.where}" if found.where else peak),
            ("peak reserved", reserved),
            ("fragmentation", _idle(found)),
            ("began", "empty" if not replayed.began_with else f"with {format_bytes(replayed.began_with)} reserved"),
            ("replay", _agreement(found)),
            ("settings", history.settings_text or ("expandable_segments:True" if history.settings.expandable_segments else "default")),
            *paged,
        ),
        tables=tuple(tables),
        data=_data(found, source, others),
        sheet=_sheet(found),
        notes=_notes(found, others),
    )


def _moment(event: int, total: int) -> str:
    return "before its first event" if event < 0 else f"event {event:,} of {total:,}"


def _idle(found: Recorded) -> str:
    peak = found.retraced.at_peak
    split = format_bytes(peak.inactive_split)
    return f"{format_bytes(found.fragmentation)} reserved and not allocated at the peak, {split} of it in split blocks"


def _agreement(found: Recorded) -> str:
    r = found.retraced
    text = f"{r.placed:,} of {counted(r.allocations, 'allocation')} at their recorded address"
    if unknown := found.history.unknown:
        passed = ", ".join(f"{counted(number, 'record')} of {brief(repr(action))}" for action, number in unknown)
        text = f"{text}; passed over, an action not known here: {passed}"
    if r.partings:
        return f"{text}; first parted at event {r.partings[0].event:,}: {r.partings[0].why}"
    return f"{text}; segments and blocks at the end {'as recorded' if r.layout else 'differ from the record'}"


def _shortage_row(s: Remedied) -> tuple[Any, ...]:
    e = s.shortage
    helps = "; ".join(f"{name} ({format_bytes(o.reserved)} reserved)" for name, o in s.tried.items() if o.fits)
    over = e.allocated + e.asked - e.reserved - e.device_free
    if over > 0:
        helps = f"nothing: {format_bytes(over)} more than the card has"
    return e.event, e.asked, e.device_free, e.allocated, e.reserved, e.largest, s.where, helps or "none of: " + "; ".join(s.tried)


def _notes(found: Recorded, others: tuple[int, ...]) -> tuple[str, ...]:
    r = found.retraced
    notes = ["categories are inferred from frames and lifetimes; the record names none"]
    if r.began_with:
        notes.append("what stood before the first event was found by undoing the events from the end; its blocks have no frames")
    if r.padding:
        notes.append(f"replayed as {PADDINGS[r.padding]}")
    if r.given_up_at is not None:
        notes.append(
            f"the replay was given up at event {r.given_up_at:,}: the record is of an allocator, or of settings, that it does not know"
        )
    if r.exhaustions:
        notes.append("what would have helped was played from an empty card, what stood before the record first")
    if len(r.exhaustions) > len(found.shortages):
        notes.append(f"{counted(len(r.exhaustions), 'request')} found no room; the first {len(found.shortages)} are listed")
    if others:
        notes.append(f"the file has more devices: --device {', '.join(map(str, others))}")
    return tuple(notes)


def _data(found: Recorded, source: str, others: tuple[int, ...]) -> dict[str, Any]:
    r, peak = found.retraced, found.retraced.at_peak
    return {
        "file": source,
        "device": found.history.device,
        "other_devices": list(others),
        "settings": found.history.settings_text,
        "events": len(found.history.entries),
        "peak": {
            "allocated": r.allocated,
            "event": r.allocated_at,
            "reserved": peak.reserved,
            "requested": peak.requested,
            "where": found.where,
        },
        "peak_reserved": {"reserved": r.reserved, "event": r.reserved_at},
        "fragmentation": {"idle": found.fragmentation, "inactive_split": peak.inactive_split},
        "holdings": [{"category": h.category, "bytes": h.nbytes, "blocks": h.blocks, "basis": "inferred"} for h in found.holdings],
        "largest": [h._asdict() for h in found.largest],
        "replay": {
            "allocations": r.allocations,
            "placed": r.placed,
            "layout_as_recorded": r.layout,
            "began_with": r.began_with,
            "padding": r.padding,
            "given_up_at": r.given_up_at,
            "partings": [p._asdict() for p in r.partings[:20]],
        },
        "out_of_memory": [
            {
                **s.shortage._asdict(),
                "where": s.where,
                "tried": {name: {"reserved": o.reserved, "fits": o.fits} for name, o in s.tried.items()},
            }
            for s in found.shortages
        ],
        "expandable_segments_reserved": None if found.expandable is None else found.expandable.reserved,
    }


def _sheet(found: Recorded) -> Table:
    columns: tuple[tuple[str, Kind], ...] = (
        ("bytes", "text"),
        ("asked", "text"),
        ("category", "text"),
        ("asked for at", "name"),
        ("event", "text"),
    )
    return Table(title="", columns=columns, rows=tuple((h.nbytes, h.asked, h.category, h.where, h.event) for h in found.largest))
