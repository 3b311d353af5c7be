"""The largest that fits and sweeps, as reports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from memest.planning.fit import Fit
from memest.planning.swept import Sweep, Sweeps
from memest.planning.written import csv_text, json_text
from memest.render.csv import line
from memest.render.hardware import claim_cells, claim_data
from memest.render.report import Kind, Report, Table, stamped
from memest.render.reports import torch_cells, torch_notes
from memest.shown import visible_json
from memest.sizes.units import format_bytes

ROWS_SHOWN = 40


def fit_report(found: Fit, graph: str) -> Report:
    """What fits, what the next larger would need, and for several free sizes the front."""
    title = f"{graph}: largest {' and '.join('='.join(group) for group in found.varied)} within {_place(found)}"
    data = fit_data(found)
    if not found.bytes_fit:
        return _nothing(found, title, data)
    fits = found.front or (found,)
    names = list(fits[0].sizes or ())
    what = "peak" if found.figure == "allocated" else found.figure
    later = f"next {what}"
    columns: tuple[tuple[str, Kind], ...] = (*((n, "count") for n in names), (what, "bytes"), ("next", "text"), (later, "bytes"))
    rows = tuple((*((f.sizes or {})[n] for n in names), f.peak_bytes, _moved(f), f.next_bytes) for f in fits)
    kind: tuple[tuple[str, Kind], ...] = (*((n, "text") for n in names), ("peak_bytes", "text"), ("next_bytes", "text"))
    sheet = tuple((*((f.sizes or {})[n] for n in names), f.peak_bytes, f.next_bytes) for f in fits)
    steps = [f"{'='.join(g)} in steps of {n:,}" for g, n in zip(found.varied, found.step, strict=True) if n > 1]
    return Report(
        title=title,
        facts=(*_free(found), _compared(found)),
        tables=(Table(title=_heading(found), columns=columns, rows=rows, drops=(later, "next")),),
        data=data,
        sheet=_stamped(found, Table(title="", columns=kind, rows=sheet)),
        notes=(*steps, *torch_notes(found.torch)),
    )


def _nothing(found: Fit, title: str, data: Mapping[str, Any]) -> Report:
    least = found.smallest
    assert least is not None
    at = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in least.input_shapes.items())
    m = least.moment
    categories = tuple((name, n) for name, n in sorted(least.by_category().items(), key=lambda item: -item[1]))
    binding = Table(title="What binds", columns=(("category", "word"), ("at its peak", "bytes")), rows=categories)
    return Report(
        title=title,
        facts=(
            (found.claim.words("fits"), "nothing"),
            ("smallest", f"{at} needs {format_bytes(least.held_bytes)}"),
            ("short by", format_bytes(least.held_bytes - found.budget_bytes)),
            ("peak at", f"{m.phase}, {m.layer or 'before the step'} {m.op}".strip()),
            _compared(found),
        ),
        tables=(binding,),
        data=data,
        sheet=_stamped(found, binding),
        notes=torch_notes(found.torch),
    )


def _place(found: Fit) -> str:
    """``24.00 GiB``, or ``39.39 GiB of a100-40gb``."""
    size = format_bytes(found.budget_bytes)
    return size if found.place.kind == "budget" else f"{size} of {found.place.name}"


def _heading(found: Fit) -> str:
    words = found.claim.words("fits")
    return f"{words[0].upper()}{words[1:]}{', as far as expected' if found.depends else ''}"


def _free(found: Fit) -> tuple[tuple[str, str], ...]:
    if found.front:
        return ()
    free = format_bytes(found.budget_bytes - (found.peak_bytes or 0))
    if found.low_bytes is not None and found.high_bytes is not None and found.low_bytes < found.high_bytes:
        short, left = found.budget_bytes - found.high_bytes, format_bytes(found.budget_bytes - found.low_bytes)
        least = format_bytes(short) if short >= 0 else f"{format_bytes(-short)} too little"
        free = f"{free} as expected; {least} to {left}"
    return (("free", free if found.claim.decides else f"{free}, for all that is missing"),)


def _compared(found: Fit) -> tuple[str, str]:
    return ("compared", found.claim.compared)


def _stamped(found: Fit, sheet: Table) -> Table:
    """The sheet, with the place, whose bytes these are and which torch's in every row."""
    return stamped(sheet, {"on": found.place.name, **claim_cells(found.claim), **torch_cells(found.torch)})


def _moved(f: Fit) -> str:
    if f.next_sizes is None or f.sizes is None:
        return ""
    return ", ".join(f"{name} {n:,}" for name, n in f.next_sizes.items() if n != f.sizes[name])


def fit_data(found: Fit) -> dict[str, Any]:
    """What was found, as plain data."""
    return {
        "on": found.place.name,
        "budget_bytes": found.budget_bytes,
        **claim_data(found.claim),
        "torch": found.torch.to_dict(),
        "notes": list(found.notes),
        "varied": ["=".join(group) for group in found.varied],
        "step": list(found.step),
        "verdict": found.claim.words("depends" if found.depends else "fits" if found.bytes_fit else "does not fit"),
        "fits": found.fits,
        "bytes_fit": found.bytes_fit,
        "sizes": found.sizes,
        "peak_bytes": found.peak_bytes,
        "figure": found.figure,
        "low_bytes": found.peak_bytes if found.low_bytes is None else found.low_bytes,
        "high_bytes": found.peak_bytes if found.high_bytes is None else found.high_bytes,
        "next_sizes": found.next_sizes,
        "next_bytes": found.next_bytes,
        "smallest": None if found.smallest is None else found.smallest.to_dict(),
        "front": [fit_data(f) for f in found.front],
    }


def sweep_report(found: Sweep, graph: str) -> Report:
    """The columns; a person is shown the first and last rows of a long one."""
    kinds: tuple[tuple[str, Kind], ...] = tuple((name, _kind(name, kind)) for name, kind in found.kinds.items())
    half, left_out = ROWS_SHOWN // 2, max(found.points - ROWS_SHOWN, 0)
    ends = (slice(half), slice(found.points - half, None)) if left_out else (slice(None),)
    rows = [row for end in ends for row in zip(*(c[end].tolist() for c in found.columns.values()), strict=True)]
    table = Table(title="Peak", columns=kinds, rows=rows, drops=_spared(found))
    return Report(
        title=f"{graph}: {found.points:,} configurations",
        facts=(),
        tables=(table,),
        data={},
        sheet=table,
        notes=(
            *((f"{left_out:,} rows in the middle are left out; --format csv or json has all",) if left_out else ()),
            *found.about,
            *torch_notes(found.torch),
        ),
    )


def _spared(found: Sweep) -> tuple[str, ...]:
    """The columns that go first where there is no room for all: ranges, what stands twice, what stands before the step."""
    ranges = (name for name in found.kinds if name.endswith(("_low_bytes", "_high_bytes")))
    twice = ("peak_bytes",) if "allocated_bytes" in found.kinds else ()
    return (*ranges, *twice, "standing_bytes")


def sweep_csv(parts: Sweeps) -> Iterator[str]:
    """The sheet of a sweep, piece by piece: every row says which torch's bytes it has."""
    cells = torch_cells(parts.torch)
    return csv_text(parts.kinds, parts.blocks(), (f",{line(cells)}", f",{line(cells.values())}"))


def sweep_json(parts: Sweeps) -> Iterator[str]:
    """The data of a sweep, piece by piece."""
    pieces = json_text(
        parts.kinds, parts.blocks(), {"torch": parts.torch.to_dict(), "notes": [*parts.about, *parts.torch.notes]}, indent=True
    )
    yield visible_json(next(pieces))
    yield from pieces
    yield "\n"


def _kind(name: str, kind: type) -> Kind:
    return "bytes" if name.endswith("_bytes") else "word" if kind is str else "count"
