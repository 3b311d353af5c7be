"""The ways to predict one volume, as a report: a row a way, a column of verdicts a place."""

from __future__ import annotations

from memest.planning.volumes import VolumePlan, VolumeWay
from memest.render.report import Kind, Report, Table
from memest.render.reports import heading, notes
from memest.shown import visible

COLUMNS: tuple[tuple[str, Kind], ...] = (
    ("way", "word"),
    ("how", "text"),
    ("bytes", "bytes"),
    ("calls", "count"),
    ("more work", "share"),
    ("result", "text"),
)
DROPS = ("how", "calls")


def volume_report(found: VolumePlan) -> Report:
    """The table of ways; what there is not is said below it."""
    halo = "how far the network sees is not known" if found.halo is None else f"{'x'.join(map(str, found.halo))} on each side"
    places = [v.hardware.name for v in found.ways[0].verdicts]
    columns: tuple[tuple[str, Kind], ...] = (*COLUMNS, *((name, "text") for name in places))
    rows = tuple(_row(way) for way in found.ways)
    return Report(
        title=heading(found.whole),
        facts=(("halo", halo),),
        tables=(Table(title="One volume; bytes are those of one process", columns=columns, rows=rows, drops=DROPS),),
        data={
            **found.whole.to_dict(),
            "halo": None if found.halo is None else list(found.halo),
            "ways": [_data(way) for way in found.ways],
            "refused": list(found.refused),
        },
        sheet=Table(title="", columns=tuple((name, "text") for name, _ in columns), rows=rows),
        notes=(*notes(found.whole), *(visible(line) for line in found.refused)),
    )


def _row(way: VolumeWay) -> tuple[object, ...]:
    return (way.name, way.how, way.held_bytes, way.calls, way.recomputed, way.result, *(v.outcome for v in way.verdicts))


def _data(way: VolumeWay) -> dict[str, object]:
    return {
        "way": way.name,
        "how": way.how,
        "bytes": way.held_bytes,
        "allocated": way.estimate.allocated.bytes,
        "calls": way.calls,
        "workers": way.workers,
        "recomputed": way.recomputed,
        "result": way.result,
        "verdicts": {v.hardware.name: v.outcome for v in way.verdicts},
    }
