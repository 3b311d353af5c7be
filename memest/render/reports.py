"""From results to reports: which facts, tables and data each command shows. Words live here, looks in the formats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memest.estimate.estimate import Estimate
from memest.estimate.holdings import EventRow, Group, LayerTable, holdings_by_reason
from memest.machines.cpu import Cpu
from memest.machines.gpu import Gpu
from memest.machines.versions import Torch
from memest.memory.figure import Figure
from memest.render.report import Kind, Report, Table, shapes, stamped
from memest.runtimes.table import runtime_named
from memest.shown import visible
from memest.sizes.units import format_bytes

EVENT_COLUMNS: tuple[tuple[str, Kind], ...] = (
    ("event", "count"),
    ("phase", "word"),
    ("layer", "name"),
    ("operator", "word"),
    ("category", "word"),
    ("change", "bytes"),
    ("alive", "bytes"),
)
LAYER_COLUMNS: tuple[tuple[str, Kind], ...] = (
    ("layer", "name"),
    ("operator", "word"),
    ("output", "shapes"),
    ("parameters", "count"),
    ("parameter bytes", "bytes"),
    ("kept for backward", "bytes"),
)
LAYER_DROPS = ("parameter bytes", "parameters", "output", "operator")
EVENT_DROPS = ("event", "category", "operator")
HOLDING_DROPS = ("share", "category")
HOLDING_COLUMNS: tuple[tuple[str, Kind], ...] = (
    ("bytes", "bytes"),
    ("share", "share"),
    ("category", "word"),
    ("owner", "name"),
    ("why it is there", "text"),
)


def estimate_report(estimate: Estimate, top: int) -> Report:
    """The peak, its moment, what it is made of, and the ``top`` largest holdings with their reasons."""
    groups = holdings_by_reason(estimate)
    peak = max(estimate.peak_bytes, 1)
    categories = tuple((name, n, n / peak) for name, n in sorted(estimate.by_category().items(), key=lambda item: -item[1]))
    return Report(
        title=heading(estimate),
        facts=(
            *peak_facts(estimate),
            ("moment", moment(estimate)),
            ("standing", f"{_both(estimate.standing_bytes)} before the step begins"),
        ),
        tables=(
            Table(
                title="At the peak, by category", columns=(("category", "word"), ("bytes", "bytes"), ("share", "share")), rows=categories
            ),
            *((_largest(groups, top),) if top else ()),
        ),
        data={**estimate.to_dict(), "holdings": [_holding_data(g) for g in groups]},
        sheet=_one_row(estimate),
        notes=notes(estimate),
    )


def peak_facts(estimate: Estimate) -> tuple[tuple[str, str], ...]:
    """The peak; where an allocator is played, what it takes and what the driver shows, too, each with its range."""
    fed = _fed(estimate)
    if not estimate.replays:
        process = estimate.figures.process
        counted = (("process", figure_text(process)),) if process.bytes is not None else ()
        return (("peak", _both(estimate.peak_bytes)), *counted, *fed)
    found = [("allocated", estimate.allocated), ("reserved", estimate.reserved), *estimate.figures.besides, ("process", estimate.process)]
    return (*((name, figure_text(figure)) for name, figure in found if figure.bytes is not None), *fed)


def _fed(estimate: Estimate) -> tuple[tuple[str, str], ...]:
    """What a data loader adds, where one feeds the step."""
    found = estimate.loaders
    if found is None:
        return ()
    reads = found.parent.bytes != estimate.process.bytes  # the process itself, with more than its step's peak
    named = (
        *((("parent", found.parent),) if reads else ()),
        ("each worker", found.worker),
        ("/dev/shm", found.shm),
        ("pinned", found.pinned),
        ("workers keep", found.kept),
        ("node", found.node),
    )
    pins = found.loader.pin_memory and not found.pinned.bytes
    nothing = (("pinned", f"nothing: {found.pinned.reason}"),) if pins else ()
    return (*((name, f"{figure_text(figure)}; {figure.reason}") for name, figure in named if figure.bytes), *nothing)


def _asked_for(estimate: Estimate) -> tuple[tuple[str, str], ...]:
    """Where an allocator is played: the most that is asked for and alive, which is what events and layers add up to."""
    return (("asked for", f"{_both(estimate.requested_bytes)} at most, as the events below add up"),) if estimate.replays else ()


def highest(estimate: Estimate, *, exact: bool = False) -> str:
    """What a picture of a step is drawn up to: its peak, or what is allocated with the bytes asked for at that moment, which are drawn."""
    show = _both if exact else format_bytes
    if not estimate.replays:
        return f"peak {show(estimate.peak_bytes)}"
    drawn = sum(estimate.by_category().values())
    return f"allocated {show(estimate.peak_bytes)}, of which {format_bytes(drawn)} asked for are drawn"


def figure_cells(estimate: Estimate) -> dict[str, int | str | None]:
    """The figures of an allocator that is played, as the columns of a sheet."""
    if not runtime_named(estimate.runtime).replays and estimate.recipe.target.process is None:
        return {}
    cells: dict[str, int | str | None] = {"requested_bytes": estimate.requested_bytes}
    found = estimate.loaders
    fed = () if found is None else (("worker", found.worker), ("shm", found.shm), ("node", found.node))
    for name, figure in (("allocated", estimate.allocated), ("reserved", estimate.reserved), ("process", estimate.process), *fed):
        cells |= {f"{name}_bytes": figure.bytes, f"{name}_low_bytes": figure.low, f"{name}_high_bytes": figure.high}
        cells[f"{name}_claim"] = figure.claim
    return cells


def figure_text(figure: Figure) -> str:
    """Bytes, with the range of those that are modelled."""
    assert figure.bytes is not None
    if figure.claim == "exact":
        return _both(figure.bytes)
    assert figure.low is not None and figure.high is not None
    return f"{_both(figure.bytes)}, modelled{range_text(figure, ': ')}"


def range_text(figure: Figure, before: str = "", after: str = "") -> str:
    """From the low to the high one, in units, or to the byte where units do not tell them apart."""
    if figure.low is None or figure.high is None:
        return ""
    if figure.low == figure.high:
        return f"{before}the same throughout its range{after}"
    low, high = format_bytes(figure.low), format_bytes(figure.high)
    found = f"{figure.low:,} to {figure.high:,} bytes" if low == high else f"{low} to {high}"
    return f"{before}{found}{after}"


def timeline_report(estimate: Estimate, phases: Sequence[EventRow], events: Sequence[EventRow], title: str) -> Report:
    """The peak of each phase, and the given events."""
    rows = tuple(_event(e) for e in events)
    table = Table(title=title, columns=EVENT_COLUMNS, rows=rows, drops=EVENT_DROPS)
    highest = tuple(_event(e) for e in phases)
    return Report(
        title=heading(estimate),
        facts=(*peak_facts(estimate), *_asked_for(estimate), ("moment", moment(estimate)), ("events", f"{len(estimate.events):,}")),
        tables=(Table(title="Highest moment of each phase", columns=EVENT_COLUMNS, rows=highest, drops=EVENT_DROPS), table),
        data={
            **{k: v for k, v in estimate.to_dict().items() if k not in ("by_layer", "by_category")},
            "events": [_event_data(e) for e in events],
        },
        sheet=_sheet(EVENT_COLUMNS, rows, estimate),
        notes=torch_notes(estimate.torch),
    )


def layers_report(estimate: Estimate, table: LayerTable) -> Report:
    """One row a layer, and the totals."""
    rows = tuple((r.name, r.op, r.output_shapes, r.parameters, r.parameter_bytes, r.activation_bytes) for r in table.rows)
    total = ("total", "", (), table.parameters, table.parameter_bytes, table.activation_bytes)
    return Report(
        title=heading(estimate),
        facts=(
            ("parameters", f"{table.parameters:,} ({table.trainable:,} trainable), {format_bytes(table.parameter_bytes)}"),
            ("buffers", format_bytes(table.buffer_bytes)),
            ("kept for backward", _both(table.activation_bytes)),
            *peak_facts(estimate),
        ),
        tables=(Table(title="", columns=LAYER_COLUMNS, rows=(*rows, total), drops=LAYER_DROPS),),
        data=_layers_data(estimate, table),
        sheet=_sheet(LAYER_COLUMNS, rows, estimate),
        notes=(
            *torch_notes(estimate.torch),
            "A kept activation is counted once, at the layer that made it, however many layers keep it.",
        ),
    )


def listing_report(
    title: str,
    columns: tuple[tuple[str, Kind], ...],
    rows: Sequence[tuple[Any, ...]],
    notes: tuple[str, ...] = (),
    drops: tuple[str, ...] = (),
) -> Report:
    """A plain table of names: JSON gives a list of objects."""
    table = Table(title="", columns=columns, rows=tuple(rows), drops=drops)
    data = [dict(zip((_data_name(n) for n, _ in columns), row, strict=True)) for row in rows]
    return Report(title=title, facts=(), tables=(table,), data=data, sheet=table, notes=notes)


def heading(estimate: Estimate) -> str:
    """What was asked, on one line that can be shown."""
    inputs = ", ".join(f"{name} {shapes([shape])}" for name, shape in estimate.input_shapes.items())
    how = "".join((estimate.how, *(f", {lever}" for lever in estimate.levers), *(f", {inputs}" if inputs else "")))
    return visible(f"{estimate.graph}: {how}, {estimate.dtype}, {estimate.where}")


def moment(estimate: Estimate) -> str:
    """When the peak is reached, in words."""
    m = estimate.moment
    if m.index < 0:
        return "before the step: nothing is allocated on top of what stands before it"
    return visible(f"{m.phase}, layer {m.layer} ({m.op}), event {m.index:,} of {len(estimate.events):,}")


def notes(estimate: Estimate) -> tuple[str, ...]:
    """What the numbers promise, and what they leave out."""
    allocated, runtime = estimate.allocated, runtime_named(estimate.runtime)
    scratch = estimate.by_category().get("workspace", 0)
    inside = f"; {format_bytes(scratch)} of the peak is library scratch" if scratch else ""
    return (
        *estimate.notes,
        f"{allocated.claim}: {allocated.reason}, for {runtime.measured(estimate.recipe.target)}{inside}",
        estimate.figures.process.reason,
    )


def torch_notes(torch: Torch) -> tuple[str, ...]:
    """Which torch the numbers speak of, for a report that does not say it otherwise."""
    return (*torch.notes, f"for {torch}")


def machine_cells(machine: Cpu | Gpu) -> dict[str, Any]:
    """What it runs on, as the columns of a sheet."""
    if isinstance(machine, Cpu):
        return {"isa": machine.isa, "threads": machine.threads}
    return {"card": machine.name}


def torch_cells(torch: Torch) -> dict[str, str | None]:
    """Which torch the numbers speak of, as the columns of a sheet."""
    found = torch.to_dict()
    return {"torch": found["modelled"], **{f"torch_{k}": found[k] for k in ("measured_on", "recorded", "installed")}}


def _both(n: int) -> str:
    return format_bytes(n) if n < 1024 else f"{n:,} bytes ({format_bytes(n)})"


def _largest(groups: Sequence[Group], top: int) -> Table:
    title = "What is alive at the peak" if len(groups) <= top else f"What is alive at the peak: the {top} largest of {len(groups):,}"
    return Table(title=title, columns=HOLDING_COLUMNS, rows=tuple(_holding(g) for g in groups[:top]), drops=HOLDING_DROPS)


def _holding(g: Group) -> tuple[Any, ...]:
    return (g.nbytes, g.share, g.category, g.layer, g.reason if g.tensors == 1 else f"{g.reason} ({g.tensors:,} tensors)")


def _holding_data(g: Group) -> dict[str, Any]:
    return {"bytes": g.nbytes, "category": g.category, "owner": g.layer, "reason": g.reason, "tensors": g.tensors}


def _event(e: EventRow) -> tuple[Any, ...]:
    return (e.index, e.phase, e.layer, e.op, e.category, e.delta_bytes, e.alive_bytes)


def _event_data(e: EventRow) -> dict[str, Any]:
    return dict(zip((_data_name(n) for n, _ in EVENT_COLUMNS), _event(e), strict=True))


def _layers_data(estimate: Estimate, table: LayerTable) -> dict[str, Any]:
    return {
        "graph": estimate.graph,
        "mode": estimate.mode,
        "torch": estimate.torch.to_dict(),
        "notes": list(estimate.notes),
        "parameters": table.parameters,
        "trainable_parameters": table.trainable,
        "parameter_bytes": table.parameter_bytes,
        "buffer_bytes": table.buffer_bytes,
        "activation_bytes": table.activation_bytes,
        "peak_bytes": estimate.peak_bytes,
        "layers": [
            {
                "layer": r.name,
                "operator": r.op,
                "output_shapes": [list(s) for s in r.output_shapes],
                "parameters": r.parameters,
                "parameter_bytes": r.parameter_bytes,
                "activation_bytes": r.activation_bytes,
            }
            for r in table.rows
        ],
    }


def _data_name(name: str) -> str:
    names = {"change": "change_bytes", "alive": "alive_bytes", "kept for backward": "activation_bytes"}
    return names.get(name, name.replace(" ", "_"))


def _sheet(columns: tuple[tuple[str, Kind], ...], rows: tuple[tuple[Any, ...], ...], estimate: Estimate) -> Table:
    sheet = Table(title="", columns=tuple((_data_name(name), kind) for name, kind in columns), rows=rows)
    return stamped(sheet, torch_cells(estimate.torch))


def _one_row(estimate: Estimate) -> Table:
    """The whole estimate as one CSV row, so that runs can be concatenated."""
    from memest.estimate.peak import CATEGORIES

    d, m, by = estimate.to_dict(), estimate.moment, estimate.by_category()
    inputs = ";".join(f"{name}={shapes([shape])}" for name, shape in estimate.input_shapes.items())
    cells: dict[str, Any] = {
        **{k: d[k] for k in ("graph", "mode", "optimizer", "loss", "runtime", "device", "dtype")},
        "levers": ";".join(estimate.levers),
        **machine_cells(estimate.machine),
        **torch_cells(estimate.torch),
        "input": inputs,
        "peak_bytes": estimate.peak_bytes,
        **figure_cells(estimate),
        "standing_bytes": estimate.standing_bytes,
        "peak_phase": m.phase,
        "peak_layer": m.layer,
        "peak_operator": m.op,
        **{f"{c}_bytes": by.get(c, 0) for c in CATEGORIES},
    }
    return Table(title="", columns=tuple((k, "text") for k in cells), rows=(tuple(cells.values()),))
