"""What kernels ask of an accelerator."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """``title`` is the name the driver gives; sizes are bytes, clocks kHz."""

    title: str
    capability: tuple[int, int]
    multiprocessors: int
    threads_per_multiprocessor: int
    l2_bytes: int
    sm_clock_khz: int
    memory_clock_khz: int
    memory_bytes: int


_KNOWN = {
    "h100-80gb": ("NVIDIA H100 80GB HBM3", (9, 0), 132, 2048, 52428800, 1980000, 2619000, 85_000_000_000),
    "a100-40gb": ("NVIDIA A100-SXM4-40GB", (8, 0), 108, 2048, 41943040, 1410000, 1215000, 42_000_000_000),
    "v100-16gb": ("Tesla V100-SXM2-16GB", (7, 0), 80, 2048, 6291456, 1530000, 877000, 16_900_000_000),
    "t4": ("Tesla T4", (7, 5), 40, 1024, 4194304, 1590000, 5001000, 15_800_000_000),
}


def device_named(name: str) -> Device | None:
    """The description of an accelerator of the catalogue; None where there is none."""
    found = _KNOWN.get(name)
    if found is None:
        return None
    title, capability, multiprocessors, threads, l2, sm_clock, memory_clock, memory = found
    return Device(
        title=title,
        capability=capability,
        multiprocessors=multiprocessors,
        threads_per_multiprocessor=threads,
        l2_bytes=l2,
        sm_clock_khz=sm_clock,
        memory_clock_khz=memory_clock,
        memory_bytes=memory,
    )
