"""Advice as a report: the combination step by step, what each change does alone, what was refused, and what binds where nothing fits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memest.planning.advice import CANDIDATES, KINDS
from memest.planning.advise import Advice, Option
from memest.render.hardware import claim_cells, claim_data
from memest.render.report import Kind, Report, Table, stamped
from memest.render.reports import heading, moment, notes, torch_cells
from memest.sizes.units import format_bytes

STEP_COLUMNS: tuple[tuple[str, Kind], ...] = (
    ("change", "literal"),
    ("peak after", "bytes"),
    ("saves", "bytes"),
    ("price", "word"),
    ("in words", "text"),
)
ALONE_COLUMNS: tuple[tuple[str, Kind], ...] = (
    ("change", "literal"),
    ("peak", "bytes"),
    ("saves", "bytes"),
    ("price", "word"),
    ("in words", "text"),
)
DROPS = ("saves", "price")
Row = tuple[str, str]  # of the table of candidates: kind and name
ORDER: dict[Row, int] = {(c.kind, c.name): n for n, c in reversed(list(enumerate(CANDIDATES)))}
SHEET_COLUMNS: tuple[tuple[str, Kind], ...] = (
    ("part", "text"),
    ("change", "text"),
    ("kind", "text"),
    ("saved_bytes", "text"),
    ("peak_bytes", "text"),
    ("in_words", "text"),
)


def advice_report(advice: Advice, graph: str, *, every: bool = False) -> Report:
    """Facts about the step as it is and as advised, then the tables: of each kind of change one form alone, or ``every`` one."""
    tables = [
        _table(_title(advice), _columns(advice, STEP_COLUMNS), advice.combined),
        _binding(advice) if not advice.bytes_fit else None,
        *_alone(advice, every),
        Table(title="Refused", columns=(("change", "text"), ("reason", "text")), rows=_refused(advice)) if advice.refused else None,
    ]
    return Report(
        title=f"{graph}: what to change {_aim(advice)}",
        facts=_facts(advice),
        tables=tuple(t for t in tables if t is not None),
        data=_plain(advice),
        sheet=_sheet(advice),
        notes=_notes(advice, every),
    )


def _columns(advice: Advice, columns: tuple[tuple[str, Kind], ...]) -> tuple[tuple[str, Kind], ...]:
    """The columns, the peak called by the figure that is held against the limit, where a step has several."""
    figure = advice.claim.figure
    return (
        columns
        if figure == "allocated" or not advice.claim.source.accelerator
        else tuple((name.replace("peak", figure), kind) for name, kind in columns)
    )


def _table(title: str, columns: tuple[tuple[str, Kind], ...], options: Sequence[Option]) -> Table | None:
    rows = tuple((*_copied(o)[:1], o.peak_bytes, o.saved_bytes, o.kind, _copied(o)[1]) for o in options)
    return Table(title=title, columns=columns, rows=rows, drops=DROPS) if rows else None


def _alone(advice: Advice, every: bool) -> tuple[Table | None, ...]:
    """What is enough by itself, the cheapest first: of each candidate the gentlest form that is. Of the others what saves most."""
    saving = [o for o in advice.alone if o.saved_bytes > 0]
    if every:
        return (_table("Alone, by the bytes saved", _columns(advice, ALONE_COLUMNS), saving),)
    forms: dict[Row, list[Option]] = {}
    for o in saving:
        forms.setdefault((o.kind, o.name), []).append(o)
    needed = bool(advice.combined)
    enough: dict[Row, Option] = {}
    for row, options in forms.items():
        fitting = [o for o in options if needed and o.peak_bytes <= advice.budget_bytes]
        if fitting:
            enough[row] = max(fitting, key=lambda o: o.peak_bytes)
    columns = _columns(advice, ALONE_COLUMNS)
    most = [max(options, key=lambda o: o.saved_bytes) for row, options in forms.items() if row not in enough]
    return (
        _table("Enough alone, the cheapest first", columns, [enough[row] for row in sorted(enough, key=ORDER.__getitem__)]),
        _table("Not enough alone: the most that each saves" if needed else "Alone: the most that each saves", columns, most),
    )


def _copied(o: Option) -> tuple[str, str]:
    """What a user copies, and the price in words with what else it means (each rank's share of the batch)."""
    change, each, own = _changes(o).partition(" batch=")
    return change, f"batch={own}: {o.price}" if each else o.price


def _facts(advice: Advice) -> tuple[tuple[str, str], ...]:
    start, reached = advice.start, advice.reached
    fits = advice.claim.words("fits")
    facts = [("step", heading(start)), ("needs now", f"{format_bytes(start.held_bytes)} ({moment(start)})")]
    free = format_bytes(advice.budget_bytes - reached.held_bytes)
    if not advice.combined and advice.bytes_fit:
        facts.append(("verdict", f"{fits} as it is: {free} free"))
    elif advice.bytes_fit:
        facts.append(("verdict", f"{fits} with {_counted(advice)}: {format_bytes(reached.held_bytes)}, {free} free"))
    else:
        least = f"the least found is {format_bytes(reached.held_bytes)}" + (f" with {_counted(advice)}" if advice.combined else "")
        facts += [
            ("verdict", f"{_nothing(advice)}: {least}, {format_bytes(advice.missing_bytes)} too much"),
            ("its peak", moment(reached)),
        ]
    if advice.largest_batch is not None:
        facts.append(("largest batch", _batches(advice)))
    facts.append(("compared", advice.claim.compared))
    return tuple(facts)


def _aim(advice: Advice) -> str:
    place = format_bytes(advice.budget_bytes)
    if advice.place.kind != "budget":
        place = f"{place} of {advice.place.name}"
    return f"to fit {place}" if advice.claim.decides else f"until {advice.claim.words('fits')} {place}"


def _nothing(advice: Advice) -> str:
    return "nothing fits" if advice.claim.decides else f"with no change {advice.claim.words('fits')}"


def _counted(advice: Advice) -> str:
    n = len(advice.combined)
    return "1 change" if n == 1 else f"{n} changes"


def _batches(advice: Advice) -> str:
    now = f"{advice.largest_batch:,} as it is"
    after = advice.largest_batch_combined
    return (
        now
        if after is None
        else f"{now}, {after:,} with the changes{' (a rank)' if any(o.kind == 'machines' for o in advice.combined) else ''}"
    )


def _title(advice: Advice) -> str:
    if not advice.bytes_fit:
        return "Together: the least that was found"
    which = "that fits" if advice.claim.decides else f"with which {advice.claim.words('fits')}"
    return f"Together: the cheapest combination found {which}"


def _binding(advice: Advice) -> Table:
    rows = tuple(sorted(advice.reached.by_category().items(), key=lambda item: -item[1]))
    return Table(title="What binds", columns=(("category", "word"), ("at its peak", "bytes")), rows=rows)


def _refused(advice: Advice) -> tuple[tuple[str, str], ...]:
    """Changes with one reason share a row."""
    reasons: dict[str, list[str]] = {}
    for r in advice.refused:
        reasons.setdefault(r.reason, []).append(r.change)
    return tuple((", ".join(changes), reason) for reason, changes in reasons.items())


def _notes(advice: Advice, every: bool) -> tuple[str, ...]:
    idle = [_changes(o) for o in advice.alone if o.saved_bytes <= 0]
    found = [f"price: {'; '.join(f'{kind}, {words}' for kind, words in KINDS.items())}"] if advice.alone else []
    if not every and len({(o.kind, o.name) for o in advice.alone}) < len(advice.alone):
        found.append(f"weaker and stronger forms of these changes: --all lists all {len(advice.alone)}")
    if idle:
        found.append(f"alone these save nothing: {', '.join(idle)}")
    return (*found, *notes(advice.start))


def _changes(o: Option) -> str:
    return ", ".join(o.changes)


def _plain(advice: Advice) -> dict[str, Any]:
    as_it_is = advice.bytes_fit and not advice.combined
    return {
        "on": advice.place.name,
        "budget_bytes": advice.budget_bytes,
        "verdict": advice.claim.words("depends" if advice.verdict.depends else "fits" if advice.bytes_fit else "does not fit"),
        "fits": advice.fits,
        "fits_as_it_is": advice.claim.fits(as_it_is),
        "bytes_fit": advice.bytes_fit,
        "bytes_fit_as_it_is": as_it_is,
        **claim_data(advice.claim),
        "notes": list(advice.notes),
        "missing_bytes": advice.missing_bytes,
        "start": advice.start.to_dict(),
        "reached": advice.reached.to_dict(),
        "combined": [_option(o) for o in advice.combined],
        "alone": [_option(o) for o in advice.alone],
        "refused": [{"change": r.change, "reason": r.reason} for r in advice.refused],
        "largest_batch": advice.largest_batch,
        "largest_batch_combined": advice.largest_batch_combined,
    }


def _option(o: Option) -> dict[str, Any]:
    return {"changes": list(o.changes), "kind": o.kind, "price": o.price, "peak_bytes": o.peak_bytes, "saved_bytes": o.saved_bytes}


def _sheet(advice: Advice) -> Table:
    rows: list[tuple[Any, ...]] = [("start", "", "", None, advice.start.held_bytes, "")]
    for part, options in (("combined", advice.combined), ("alone", advice.alone)):
        rows += [(part, _changes(o), o.kind, o.saved_bytes, o.peak_bytes, o.price) for o in options]
    rows += [("refused", r.change, "", None, None, r.reason) for r in advice.refused]
    stamp = {"on": advice.place.name, **claim_cells(advice.claim), **torch_cells(advice.start.torch)}
    return stamped(Table(title="", columns=SHEET_COLUMNS, rows=tuple(rows)), stamp)
