"""Settings of torch's CUDA caching allocator, read from the text that ``PYTORCH_CUDA_ALLOC_CONF`` or ``PYTORCH_ALLOC_CONF`` takes.

Names, bounds and defaults are those of c10/core/AllocatorConfig.h and c10/cuda/CUDAAllocatorConfig.h in torch 2.9.1, 2.11.0, 2.13.0
and 2.14.1. What torch takes by accident (a list left empty, a fraction of MiB cut off) is refused here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from memest.errors import UsageError, did_you_mean

MIB = 1 << 20
UNLIMITED = 1 << 62
CLASSES = 16  # of roundup_power2_divisions: from 1 MiB, doubled, to 64 GiB

Version = tuple[int, int]
NEWEST: Version = (2, 14)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the allocator rounds, splits and gives back. Sizes in bytes; ``divisions`` by size class from 1 MiB on, 0 where nothing is
    rounded to steps between powers of two; ``padding`` is what an allocator of this family adds to each request (torch_npu: 32)."""

    expandable_segments: bool = False
    max_split_size: int = UNLIMITED
    max_non_split_rounding: int = 20 * MIB
    divisions: tuple[int, ...] = (0,) * CLASSES
    garbage_collection_threshold: float = 0.0
    large_segment_size: int = 20 * MIB
    per_process_memory_fraction: float = 1.0
    throw_on_cudamalloc_oom: bool = False
    padding: int = 0


DEFAULT = Settings()

SINCE: dict[str, Version] = {  # keys that concern the device's memory, and the first of those four releases that has them
    "backend": (2, 9),
    "expandable_segments": (2, 9),
    "garbage_collection_threshold": (2, 9),
    "large_segment_size_mb": (2, 11),
    "max_non_split_rounding_mb": (2, 9),
    "max_split_size_mb": (2, 9),
    "per_process_memory_fraction": (2, 11),
    "roundup_power2_divisions": (2, 9),
    "throw_on_cudamalloc_oom": (2, 13),
}
ELSEWHERE = (  # memory of the host, locks, captured graphs: nothing that is played here changes
    "graph_capture_record_stream_reuse",
    "pinned_free_catch_all",
    "pinned_max_cached_size_mb",
    "pinned_max_round_threshold_mb",
    "pinned_num_register_threads",
    "pinned_reserve_segment_size_mb",
    "pinned_use_background_threads",
    "pinned_use_cuda_host_register",
    "pinned_use_hip_host_register",
    "release_lock_on_cudamalloc",
    "release_lock_on_hipmalloc",
)


def read_settings(text: str, version: Version = NEWEST) -> Settings:
    """The settings that ``text`` asks of torch ``version``; UsageError for a name or a value that it does not take."""
    pairs = _pairs(text)
    if "backend" in pairs:
        _backend(pairs.pop("backend"))
    found: dict[str, Any] = {}
    # the size of large segments bounds two others, wherever it stands
    for key in sorted(pairs, key=lambda k: k != "large_segment_size_mb"):
        if key in ELSEWHERE:
            continue
        if key not in SINCE:
            raise UsageError(f"alloc_conf: unknown {key!r}{did_you_mean(key, (*SINCE, *ELSEWHERE))}")
        if version < SINCE[key]:
            asked, since = (".".join(map(str, v)) for v in (version, SINCE[key]))
            raise UsageError(f"alloc_conf: torch {asked} has no {key}, which came with {since}")
        field, read = _READERS[key]
        found[field] = read(key, pairs[key], found.get("large_segment_size", DEFAULT.large_segment_size))
    if "large_segment_size" in found:
        found.setdefault("max_non_split_rounding", found["large_segment_size"])
    return replace(DEFAULT, **found)


def written(settings: Settings) -> str:
    """The text that asks for these settings, as :func:`read_settings` reads it; empty for those that torch has without one."""
    parts = []
    for key, (field, _) in _READERS.items():
        value = getattr(settings, field)
        if value == getattr(DEFAULT, field):
            continue
        if key.endswith("_mb"):
            value //= MIB
        elif field == "divisions":
            value = "[" + ",".join(f"{1 << power}:{steps}" for power, steps in enumerate(value)) + "]"
        parts.append(f"{key}:{value}")
    return ",".join(parts)


def _pairs(text: str) -> dict[str, str]:
    """Names and values; a list in brackets is one value."""
    bare = "".join(text.split())
    variable = re.match(r"PYTORCH_(?:CUDA_)?ALLOC_CONF=", bare)
    if variable:
        raise UsageError(f"alloc_conf: give the value alone, {bare[variable.end() :]!r}, without {variable[0]!r}")
    if bare.count("[") != bare.count("]"):
        raise UsageError(f"alloc_conf: a bracket has no other one in {bare!r}; a list is written [64:8,256:4,>:1]")
    pairs: dict[str, str] = {}
    for part in re.findall(r"(?:\[[^\]]*\]|[^,\[])+|[\[]", bare):
        key, colon, value = part.partition(":")
        if not key or not colon or not value:
            raise UsageError(f"alloc_conf: {part!r} is not name:value, as in 'expandable_segments:True,max_split_size_mb:128'")
        pairs[key] = value
    return pairs


def _backend(value: str) -> None:
    if value == "cudaMallocAsync":
        raise UsageError("alloc_conf: backend:cudaMallocAsync is CUDA's own allocator, which is not described; use backend:native")
    if value != "native":
        raise UsageError(f"alloc_conf: backend is native or cudaMallocAsync, got {value!r}{did_you_mean(value, ['native'])}")


def _whole(key: str, value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", value, re.ASCII):
        raise UsageError(f"alloc_conf: {key} is a whole number, got {value!r}")
    return int(value)


def _mebibytes(key: str, value: str, large: int, *, least: int | None = None) -> int:
    number, bound = _whole(key, value), large // MIB if least is None else least
    if number < bound:
        raise UsageError(f"alloc_conf: {key} is at least {bound}, got {number}")
    return min(number * MIB, UNLIMITED)


def _switch(key: str, value: str, large: int) -> bool:
    if value not in ("True", "False"):
        raise UsageError(f"alloc_conf: {key} is True or False, got {value!r}{did_you_mean(value, ['True', 'False'])}")
    return value == "True"


def _fraction(key: str, value: str, large: int, *, inclusive: bool) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not (0 <= number <= 1 if inclusive else 0 < number < 1):
        raise UsageError(f"alloc_conf: {key} lies {'from 0 to 1' if inclusive else 'between 0 and 1'}, got {value!r}")
    return number


def _divisions(key: str, value: str, large: int) -> tuple[int, ...]:
    """One number for all size classes, or ``[MiB:number,...,>:number]``: the classes below the first named one have its number, ``>`` is
    for those above the last, and any that is not named keeps 0."""
    if not value.startswith("["):
        return (_power_of_two(key, value, least=1),) * CLASSES
    steps, first, last = [0] * CLASSES, True, 0
    for pair in filter(None, value.strip("[]").split(",")):
        size, colon, number = pair.partition(":")
        if not colon:
            raise UsageError(f"alloc_conf: {key}: {pair!r} is not MiB:number, as in [64:8,256:4,>:1]")
        count = _power_of_two(key, number, least=0)
        if size == ">":
            steps[last + 1 :] = [count] * (CLASSES - last - 1)
            continue
        last = min(_power_of_two(key, size, least=1).bit_length() - 1, CLASSES - 1)
        if first:
            steps[:last] = [count] * last
        first, steps[last] = False, count
    return tuple(steps)


def _power_of_two(key: str, value: str, *, least: int) -> int:
    number = _whole(key, value)
    if number < least or number & (number - 1):
        raise UsageError(f"alloc_conf: {key} takes powers of two{' or 0' if not least else ''}, got {value}")
    return number


_READERS: dict[str, tuple[str, Callable[[str, str, int], Any]]] = {
    "expandable_segments": ("expandable_segments", _switch),
    "garbage_collection_threshold": ("garbage_collection_threshold", partial(_fraction, inclusive=False)),
    "large_segment_size_mb": ("large_segment_size", partial(_mebibytes, least=11)),
    "max_non_split_rounding_mb": ("max_non_split_rounding", _mebibytes),
    "max_split_size_mb": ("max_split_size", _mebibytes),
    "per_process_memory_fraction": ("per_process_memory_fraction", partial(_fraction, inclusive=True)),
    "roundup_power2_divisions": ("divisions", _divisions),
    "throw_on_cudamalloc_oom": ("throw_on_cudamalloc_oom", _switch),
}
