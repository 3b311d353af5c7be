"""The processor as the kernel libraries see it: instruction set, threads and cache sizes.

oneDNN chooses implementations and blockings from these numbers alone, so they are part of a runtime's description. The processor at hand
is read from the operating system, as oneDNN reads cpuid; the environment counts as it does for the libraries: ``ONEDNN_MAX_CPU_ISA``
limits the instruction set, ``OMP_NUM_THREADS`` the threads. Where the system does not tell, a common server core stands in.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from memest.errors import UsageError, kind_of
from memest.sizes.remembering import kept

Isa = Literal["avx2", "avx512"]
_SIZES = {"K": 1024, "M": 1024 * 1024}
_AT_HAND: ContextVar[Cpu | None] = ContextVar("at_hand", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """What the heuristics of the CPU libraries depend on. Cache sizes are bytes per core (a shared level divided by its sharers).

    ``bf16`` says whether an AVX-512 processor also multiplies bfloat16 (avx512_bf16) without having matrix units (AMX), for which the
    libraries have other kernels; it is about tensors of bfloat16 alone. ``l3_total_bytes`` is the whole last level as the processor itself
    reports it (``getconf LEVEL3_CACHE_SIZE``; None: ``l3_bytes`` for each thread), by which Eigen sizes its buffers.
    """

    isa: Isa = "avx512"
    bf16: bool = True
    threads: int = 2
    l1_bytes: int = 48 * 1024
    l2_bytes: int = 1024 * 1024
    l3_bytes: int = 16 * 1024 * 1024
    l3_total_bytes: int | None = None

    def __post_init__(self) -> None:
        """UsageError for what no processor is."""
        if self.isa not in get_args(Isa):
            raise UsageError(f"Cpu: isa is {' or '.join(get_args(Isa))}, got {kind_of(self.isa)}")
        for name in ("threads", "l1_bytes", "l2_bytes", "l3_bytes"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UsageError(f"Cpu: {name} is a whole number of at least 1, got {kind_of(value)}")
        total = self.l3_total_bytes
        if total is not None and (isinstance(total, bool) or not isinstance(total, int) or total < 1):
            raise UsageError(f"Cpu: l3_total_bytes is a whole number of at least 1, got {kind_of(total)}")

    @property
    def reported_l3(self) -> int:
        """Bytes of the last level that the processor reports, shared or not."""
        return self.l3_total_bytes or self.l3_bytes * self.threads

    @property
    def vector_floats(self) -> int:
        """Floats in one vector register (oneDNN's ``simd_w`` for f32)."""
        return 16 if self.isa == "avx512" else 8

    @property
    def has_bf16(self) -> bool:
        """Whether kernels may multiply bfloat16."""
        return self.isa == "avx512" and self.bf16

    @staticmethod
    def detect() -> Cpu:
        """This machine, as oneDNN would see it (environment limits included); inside :func:`at_hand` the one that is named there."""
        named = _AT_HAND.get()
        if named is not None:
            return named
        limit = os.environ.get("ONEDNN_MAX_CPU_ISA", os.environ.get("DNNL_MAX_CPU_ISA", ""))
        threads = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
        return _under(limit.upper(), int(threads) if threads.isdigit() and int(threads) > 0 else 0)

    def with_(self, **changes: object) -> Cpu:
        """The same processor with some fields changed."""
        return replace(self, **changes)  # type: ignore[arg-type]


@contextmanager
def at_hand(cpu: Cpu) -> Iterator[None]:
    """Inside, ``cpu`` is the machine at hand: that of whoever asks, where another machine computes."""
    token = _AT_HAND.set(cpu)
    try:
        yield
    finally:
        _AT_HAND.reset(token)


@kept(8)
def _under(limit: str, threads: int) -> Cpu:
    caches = _caches()
    default = Cpu()
    return Cpu(
        isa=_isa(limit),
        bf16=_multiplies_bf16(limit),
        threads=threads or _physical_cores(),
        l1_bytes=caches.get(1, default.l1_bytes),
        l2_bytes=caches.get(2, default.l2_bytes),
        l3_bytes=caches.get(3, default.l3_bytes),
    )


def _isa(limit: str) -> Isa:
    if limit in ("AVX2", "AVX2_VNNI", "AVX2_VNNI_2"):
        return "avx2"
    flags = _flags()
    return "avx512" if {"avx512f", "avx512bw", "avx512vl", "avx512dq"} <= flags or not flags else "avx2"


def _multiplies_bf16(limit: str) -> bool:
    """Whether there are bfloat16 instructions but no matrix units in use."""
    if limit in ("AVX512_CORE", "AVX512_CORE_VNNI"):
        return False
    flags = _flags()
    has_matrices = "amx_tile" in flags and limit != "AVX512_CORE_BF16"
    return not flags or ("avx512_bf16" in flags and not has_matrices)


def _flags() -> frozenset[str]:
    """What the processor can, in Linux's words; nothing where the system does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    return frozenset(text.partition("flags")[2].partition("\n")[0].split())


def _physical_cores() -> int:
    """torch's default thread count: the physical cores this process may use."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    siblings = Path("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list")
    try:
        shared = len(_cpu_list(siblings.read_text(encoding="ascii")))
    except (OSError, ValueError):
        shared = 1
    return max(1, available // max(1, shared))


def _cpu_list(text: str) -> list[int]:
    cpus: list[int] = []
    for part in text.strip().split(","):
        low, _, high = part.partition("-")
        cpus.extend(range(int(low), int(high or low) + 1))
    return cpus


def _caches() -> dict[int, int]:
    """Bytes per core of each data cache level: the size divided by the logical processors that share it."""
    found: dict[int, int] = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            if (index / "type").read_text(encoding="ascii").strip() == "Instruction":
                continue
            level = int((index / "level").read_text(encoding="ascii"))
            text = (index / "size").read_text(encoding="ascii").strip()
            size = int(text.rstrip("KM")) * _SIZES.get(text[-1], 1)
            found[level] = size // len(_cpu_list((index / "shared_cpu_list").read_text(encoding="ascii")))
        except (OSError, ValueError):
            continue
    return found
