"""What the process around a step of torch on a CPU is told: the C library's allocator, and what an environment sets of it.

``glibc`` as it comes moves its mmap threshold; each of the tunables below fixes it (malloc/malloc.c, ``do_set_mmap_threshold`` and its
neighbours set ``no_dyn_threshold``).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar, Literal, get_args

from memest.errors import UnknownNameError, UnsupportedError, UsageError, did_you_mean, one_of
from memest.sizes.remembering import kept
from memest.sizes.units import format_bytes, parse_bytes

Name = Literal["glibc", "jemalloc"]
Thread = Literal["main", "worker", "fresh"]
IMPORTS = ("torch", "torchvision")
UNMEASURED = {"tcmalloc": "glibc or jemalloc", "mimalloc": "glibc or jemalloc"}
MOST_THRESHOLD = 32 << 20  # DEFAULT_MMAP_THRESHOLD_MAX, 64 bits
MOST_BYTES = 1 << 46
MOST_ARENAS = 4096
SIZES = {"mmap_threshold": MOST_THRESHOLD, "trim_threshold": MOST_BYTES, "top_pad": MOST_BYTES}


@dataclass(frozen=True, slots=True, kw_only=True)
class Malloc:
    """``mmap_threshold``, ``trim_threshold``, ``top_pad`` (bytes) and ``arena_max`` are glibc's MALLOC_MMAP_THRESHOLD_ and so on (None:
    not set). ``thread`` calls the step: the ``main`` one, one ``worker`` for all steps, or a ``fresh`` one for each."""

    name: Name = "glibc"
    mmap_threshold: int | None = None
    trim_threshold: int | None = None
    top_pad: int | None = None
    arena_max: int | None = None
    thread: Thread = "main"

    @property
    def moves(self) -> bool:
        """Whether the mmap threshold follows what is freed."""
        return self.name == "glibc" and self.mmap_threshold is None and self.trim_threshold is None and self.top_pad is None

    def __str__(self) -> str:
        found = [f"{f.name}={getattr(self, f.name)}" for f in fields(self)[1:] if getattr(self, f.name) != f.default]
        return ":".join((self.name, ",".join(found))) if found else self.name


OPTIONS = tuple(f.name for f in fields(Malloc))[1:]


@kept(64)
def malloc_named(text: str) -> Malloc:
    """The allocator written as ``name`` or ``name:option=value,option=value``; sizes in bytes, or with a unit. UnsupportedError for one
    that nothing was measured of, UnknownNameError and UsageError for what cannot be meant."""
    name, colon, tail = (part.strip() for part in text.partition(":"))
    name = name.lower()
    if name in UNMEASURED:
        raise UnsupportedError(f"malloc {name!r} is not modelled: nothing was measured of it; use {UNMEASURED[name]}")
    if name not in get_args(Name):
        raise UnknownNameError(f"unknown malloc {name!r}{one_of(name, get_args(Name))}")
    if colon and not tail:
        raise UsageError(f"malloc {text!r}: nothing follows the colon; write {name}:option=value, or {name} alone")
    known = OPTIONS if name == "glibc" else ("thread",)
    given: dict[str, int | str] = {}
    for item in filter(None, (part.strip() for part in tail.split(","))):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals:
            raise UsageError(f"malloc {name!r}: option {item!r} is not written option=value")
        if key not in known:
            raise UnknownNameError(f"malloc {name!r} has no option {key!r}{one_of(key, known)}")
        if key in given:
            raise UsageError(f"malloc {name!r}: option {key!r} is given twice")
        given[key] = _value(name, key, value)
    return Malloc(name=name, **given)  # type: ignore[arg-type]


def _value(name: str, key: str, value: str) -> int | str:
    if key == "thread":
        if value not in get_args(Thread):
            raise UsageError(f"malloc {name!r}, option 'thread': {value!r} is none{one_of(value, get_args(Thread))}")
        return value
    plain = value.isascii() and value.isdigit()
    if key == "arena_max":
        if not plain or not 1 <= _whole(value) <= MOST_ARENAS:
            raise UsageError(f"malloc {name!r}, option 'arena_max': a whole number from 1 to {MOST_ARENAS}, got {value[:60]!r}")
        return _whole(value)
    try:
        nbytes = _whole(value) if plain else parse_bytes(value)
    except UsageError as e:
        raise UsageError(f"malloc {name!r}, option {key!r}: {e}") from None
    if nbytes > SIZES[key]:
        raise UsageError(
            f"malloc {name!r}, option {key!r}: {value[:60]} is more than {format_bytes(SIZES[key])}, the most that glibc takes"
        )
    return nbytes


def _whole(digits: str) -> int:
    """The number; of one that is beyond every bound, its first digits."""
    return int(digits.lstrip("0")[:20] or "0")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSettings:
    """``malloc`` is the C library's allocator, ``imports`` what the program imports of torch. Told of a process, a runtime counts it."""

    runtime: ClassVar[str] = "torch-cpu"

    malloc: Malloc = Malloc()
    imports: str = "torch"

    def __post_init__(self) -> None:
        """UsageError for what nothing was measured of."""
        if self.imports not in IMPORTS:
            raise UsageError(f"imports {self.imports!r} is not one of {', '.join(IMPORTS)}{did_you_mean(self.imports, IMPORTS)}")
