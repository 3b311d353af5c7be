"""Accelerators and servers as data, shipped and read from files.

    hardware:
      lab-server:
        title: The lab's server
        kind: server                       # or accelerator
        sockets: 2                         # of the whole machine, where they matter (memest cluster)
        cores: 64
        tiers:                             # in the order they fill: DRAM first, persistent memory after it
          - {name: DRAM, bytes: 256GiB, usable: 250GiB, basis: free -b}
          - {name: PMem, bytes: 1TiB}
        source: the order of 2021

Promises: every entry of the catalogue names the source of its size and the rule behind what is usable. Vendors say GB and TB of memory
and mean powers of two (JEDEC JESD100B), so the catalogue writes GiB and TiB. ``usable`` is the total a program meets, where somebody
documented it: the CUDA runtime's total (torch prints it in hundredths of a GiB when memory runs out, so it is known to 5 MiB), else the
driver's; where nobody did it is the nominal size, and ``basis`` says so (drivers differ: newer ones
keep more for themselves). Refuses to subtract what depends on the program: the CUDA
context, the caching allocator's rounding, the operating system: a verdict on an accelerator names what is
missing, and does not say that a step fits.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from memest.errors import FileError, UsageError, did_you_mean, kind_of
from memest.machines.entry import Hardware, Tier
from memest.sizes.units import format_bytes, parse_budget

CATALOGUE = Path(__file__).with_name("catalogue.json")
KINDS = ("accelerator", "server")
ENTRY_FIELDS = ("title", "kind", "sockets", "cores", "tiers", "source")
TIER_FIELDS = ("name", "bytes", "usable", "basis")
NOMINAL = "nominal"
Place = tuple[str | int, ...]


class _FieldError(Exception):
    """What is wrong, and the path in the file to it."""

    def __init__(self, place: Place, problem: str) -> None:
        super().__init__(problem)
        self.place = place


def hardware(extra: Iterable[Hardware] = ()) -> tuple[Hardware, ...]:
    """The catalogue in its own order, after the ``extra`` entries, which replace those of the same name."""
    own = _checked(extra)
    replaced = {plain_name(e.name) for e in own}
    return (*own, *(e for e in _catalogue() if plain_name(e.name) not in replaced))


@cache
def _catalogue() -> tuple[Hardware, ...]:
    return _entries(json.loads(CATALOGUE.read_text(encoding="utf-8")), source="")


def load_hardware(path: str | Path) -> tuple[Hardware, ...]:
    """The entries of a YAML or JSON file (its form is shown in this module's docstring).

    Raises UsageError when there is no such file, FileError naming file, line, entry and field when it is not a list of hardware."""
    from memest import files

    if not isinstance(path, str | Path):
        raise UsageError(f"load_hardware takes the path of a file, got {kind_of(path)}")
    path = Path(path)
    try:
        with path.open("rb") as f:
            raw = f.read(files.MAX_BYTES + 1)
    except OSError as e:
        raise UsageError(f"{path}: {e.strerror or e}") from None
    text = files.decode(raw, str(path))
    try:
        return _entries(files.parse(text, "json" if path.suffix.lower() == ".json" else "yaml", str(path)), source=str(path))
    except _FieldError as e:
        line = files.line_of(text, e.place)
        raise FileError(f"{path}: {'' if line is None else f'line {line}: '}{e}") from None


def _checked(extra: Iterable[Hardware]) -> tuple[Hardware, ...]:
    own = tuple(extra) if isinstance(extra, Iterable) else (extra,)
    for entry in own:
        if not isinstance(entry, Hardware):
            raise UsageError(f"more hardware is what memest.load_hardware(path) gives, got {kind_of(entry)}")
    return own


def hardware_named(name: str, extra: Iterable[Hardware] = ()) -> Hardware:
    """The entry called ``name``, in ``extra`` first and then in the catalogue; capitals, blanks and underscores do not count.

    Raises UsageError with the nearest name when there is none."""
    if not isinstance(name, str):
        raise UsageError(f"hardware is asked for by name, got {kind_of(name)}; memest.hardware() lists what is known")
    known = {plain_name(e.name): e for e in hardware(extra)}
    wanted = plain_name(name)
    if wanted not in known:
        near = _near(wanted, known)
        hint = f"; did you mean {' or '.join(map(repr, near[:4]))}?" if near else did_you_mean(wanted, known)
        raise UsageError(f"unknown hardware {name!r}{hint or '; memest hardware lists what is known'}")
    return known[wanted]


def plain_name(name: str) -> str:
    """A name as names are compared: capitals, blanks and underscores do not count."""
    return "-".join(name.lower().replace("_", " ").split())


def _near(wanted: str, known: Mapping[str, Hardware]) -> list[str]:
    """Names that begin with the one wanted, then those that hold it, hyphens aside: ``rtx6000`` is in two of them."""
    part = wanted.replace("-", "")
    if len(part) < 2:
        return []
    whole = {plain.replace("-", ""): e.name for plain, e in known.items()}
    begin = [name for plain, name in whole.items() if plain.startswith(part)]
    return begin + [name for plain, name in whole.items() if part in plain and name not in begin]


def _entries(data: Any, source: str) -> tuple[Hardware, ...]:
    top = _fields(data, (), "the file", ("hardware",), ("hardware",))
    listed = top["hardware"]
    if not isinstance(listed, Mapping) or not listed:
        raise _FieldError(("hardware",), "'hardware' is a mapping of names to entries")
    entries = tuple(_entry(name, entry, source) for name, entry in listed.items())
    seen: dict[str, str] = {}
    for e in entries:
        if seen.setdefault(plain_name(e.name), e.name) != e.name:
            raise _FieldError(("hardware", e.name), f"entry {e.name!r} is called the same as {seen[plain_name(e.name)]!r}")
    return entries


def _entry(name: Any, data: Any, source: str) -> Hardware:
    place: Place = ("hardware", str(name))
    if not isinstance(name, str) or not name.strip():
        raise _FieldError(place, f"an entry's name is a text, got {name!r}")
    whose = f"entry {name!r}"
    fields = _fields(data, place, whose, ENTRY_FIELDS, ("kind", "tiers"))
    kind = _text(fields, "kind", place, whose)
    if kind not in KINDS:
        raise _FieldError((*place, "kind"), f"{whose}: unknown kind {kind!r}{did_you_mean(kind, KINDS) or '; use ' + ' or '.join(KINDS)}")
    tiers = fields["tiers"]
    if not isinstance(tiers, list) or not tiers:
        raise _FieldError((*place, "tiers"), f"{whose}: 'tiers' is a list of at least one memory, such as [{{name: DRAM, bytes: 192GiB}}]")
    read = tuple(_tier(t, (*place, "tiers", i), f"{whose}, tier {i + 1}") for i, t in enumerate(tiers))
    for i, t in enumerate(read):
        if t.name in [other.name for other in read[:i]]:
            raise _FieldError((*place, "tiers", i, "name"), f"{whose}, tier {i + 1}: there is a tier {t.name!r} already")
    return Hardware(
        name=name,
        title=_text(fields, "title", place, whose, name),
        kind=kind,
        tiers=read,
        source=_text(fields, "source", place, whose, source),
        sockets=_count(fields, "sockets", place, whose),
        cores=_count(fields, "cores", place, whose),
    )


def _tier(data: Any, place: Place, whose: str) -> Tier:
    fields = _fields(data, place, whose, TIER_FIELDS, ("name", "bytes"))
    nbytes = _size(fields, "bytes", place, whose)
    usable = _size(fields, "usable", place, whose) if "usable" in fields else nbytes
    if usable > nbytes:
        raise _FieldError((*place, "usable"), f"{whose}: usable {format_bytes(usable)} is more than its {format_bytes(nbytes)}")
    basis = _text(fields, "basis", place, whose, "as stated" if "usable" in fields else NOMINAL)
    return Tier(name=_text(fields, "name", place, whose), nbytes=nbytes, usable_bytes=usable, basis=basis)


def _fields(data: Any, place: Place, whose: str, known: tuple[str, ...], needed: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise _FieldError(place, f"{whose} is a mapping with {', '.join(known)}")
    for name in data:
        if name not in known:
            hint = did_you_mean(str(name), known) or f"; known are {', '.join(known)}"
            raise _FieldError((*place, str(name)), f"{whose}: unknown field {name!r}{hint}")
    for name in needed:
        if name not in data:
            raise _FieldError(place, f"{whose}: the field {name!r} is missing")
    return data


def _text(fields: Mapping[str, Any], name: str, place: Place, whose: str, default: str | None = None) -> str:
    value = fields.get(name, default)
    if not isinstance(value, str) or (not value.strip() and value != default):
        raise _FieldError((*place, name), f"{whose}: {name!r} is a text, got {value!r}")
    return " ".join(value.split())


def _count(fields: Mapping[str, Any], name: str, place: Place, whose: str) -> int | None:
    value = fields.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise _FieldError((*place, name), f"{whose}: {name!r} is a whole number of at least 1, got {value!r}")
    return value


def _size(fields: Mapping[str, Any], name: str, place: Place, whose: str) -> int:
    value = fields[name]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _FieldError((*place, name), f"{whose}: {name!r} is a size such as 192GiB, got {value!r}")
    try:
        return parse_budget(str(value))
    except UsageError as e:
        raise _FieldError((*place, name), f"{whose}: {name!r}: {e}") from None
