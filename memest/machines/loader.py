"""How a step is fed: torch's data loader (``torch.utils.data.DataLoader``), written as ``workers=4,prefetch=2``."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from memest.errors import UnknownNameError, UsageError, kind_of, one_of
from memest.sizes.remembering import kept

Start = Literal["fork", "spawn", "forkserver"]
MOST_WORKERS, MOST_PREFETCH = 4096, 4096
ABOUT_WORKERS = ("prefetch", "start", "persistent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loader:
    """``workers`` is DataLoader's num_workers (0: the process itself reads), ``prefetch`` its prefetch_factor, ``start`` its
    multiprocessing_context, ``persistent`` its persistent_workers; ``pin_memory`` pins batches where there is CUDA."""

    workers: int = 0
    prefetch: int = 2
    start: Start = "fork"
    persistent: bool = False
    pin_memory: bool = False

    def __post_init__(self) -> None:
        """UsageError for what torch refuses, or no loader is."""
        for name, least, most in (("workers", 0, MOST_WORKERS), ("prefetch", 1, MOST_PREFETCH)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise UsageError(f"loader: {name} is a whole number from {least} to {most}, got {kind_of(value)}")
        if self.start not in get_args(Start):
            raise UnknownNameError(f"loader: unknown start {self.start!r}{one_of(str(self.start), get_args(Start))}")
        alone = [f.name for f in fields(self) if f.name in ABOUT_WORKERS and getattr(self, f.name) != f.default]
        if alone and not self.workers:
            raise UsageError(f"loader: {alone[0]} is about workers, and there are none; give workers=1 or more (torch refuses it, too)")

    @property
    def ahead(self) -> int:
        """Batches that workers have made or are making while the loop holds one."""
        return self.workers * self.prefetch

    @property
    def inherits(self) -> bool:
        """Whether workers of a later epoch are forked while the loop still holds the last batch of the one before, and keep it."""
        return self.workers > 0 and self.start == "fork" and not self.persistent

    def __str__(self) -> str:
        given = ((f.name, getattr(self, f.name)) for f in fields(self) if f.name == "workers" or getattr(self, f.name) != f.default)
        return ",".join(f"{name}={str(value).lower()}" for name, value in given)


OPTIONS = tuple(f.name for f in fields(Loader))
FLAGS = {"true": True, "false": False}


@kept(64)
def loader_named(text: str) -> Loader:
    """The loader written as ``workers=4,prefetch=2``. UsageError and UnknownNameError for what cannot be meant."""
    given: dict[str, Any] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = (part.strip() for part in item.partition("="))
        if key not in OPTIONS:
            raise UnknownNameError(f"loader has no option {key!r}{one_of(key, OPTIONS)}")
        if not equals:
            raise UsageError(f"loader: option {item!r} is not written option=value")
        if key in given:
            raise UsageError(f"loader: option {key!r} is given twice")
        given[key] = _value(key, value)
    if "workers" not in given:
        raise UsageError("loader: say how many workers there are: workers=4 (0: the process itself reads)")
    return Loader(**given)


def _value(key: str, value: str) -> Any:
    if key in ("persistent", "pin_memory"):
        if value not in FLAGS:
            raise UsageError(f"loader: {key} is true or false, got {value!r}")
        return FLAGS[value]
    return int(value) if value.isascii() and value.isdigit() and len(value) <= 18 else value
