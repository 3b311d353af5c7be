"""What NVIDIA's compute capabilities fix: the limits of a multiprocessor and of a block of threads.

Source: CUDA C++ Programming Guide, "Technical Specifications per Compute Capability" (3.7: the guide of CUDA 11), which gives shared memory
in KB; from 8.0 on CUDA keeps 1 KB of it for itself in each block.
"""

from __future__ import annotations

from dataclasses import dataclass

from memest.errors import UsageError

Capability = tuple[int, int]
KIB = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """One compute capability. A block may ask for ``shared_bytes`` of shared memory, by an opt-in where that is more than 48 KiB;
    ``cooperative`` says whether a grid can be launched as a whole."""

    name: str
    threads_per_multiprocessor: int
    blocks_per_multiprocessor: int
    registers_per_multiprocessor: int
    shared_bytes: int
    shared_bytes_reserved: int
    cooperative: bool


def _row(
    name: str, threads: int, blocks: int, shared_kib: int, *, registers: int = 64 * KIB, reserved: int = 0, cooperative: bool = True
) -> Architecture:
    return Architecture(
        name=name,
        threads_per_multiprocessor=threads,
        blocks_per_multiprocessor=blocks,
        registers_per_multiprocessor=registers,
        shared_bytes=shared_kib * KIB,
        shared_bytes_reserved=reserved,
        cooperative=cooperative,
    )


ARCHITECTURES: dict[Capability, Architecture] = {
    (3, 7): _row("Kepler", 2048, 16, 48, registers=128 * KIB, cooperative=False),
    (6, 0): _row("Pascal", 2048, 32, 48),
    (6, 1): _row("Pascal", 2048, 32, 48),
    (7, 0): _row("Volta", 2048, 32, 96),
    (7, 5): _row("Turing", 1024, 16, 64),
    (8, 0): _row("Ampere", 2048, 32, 163, reserved=KIB),
    (8, 6): _row("Ampere", 1536, 16, 99, reserved=KIB),
    (8, 9): _row("Ada Lovelace", 1536, 24, 99, reserved=KIB),
    (9, 0): _row("Hopper", 2048, 32, 227, reserved=KIB),
    (10, 0): _row("Blackwell", 2048, 32, 227, reserved=KIB),
    (12, 0): _row("Blackwell", 1536, 24, 99, reserved=KIB),
}


def architecture_of(capability: Capability) -> Architecture:
    """The limits of a compute capability; UsageError for one that is not described."""
    found = ARCHITECTURES.get(capability)
    if found is None:
        known = ", ".join(capability_text(c) for c in ARCHITECTURES)
        raise UsageError(f"compute capability {capability_text(capability)} is not described; known are {known}")
    return found


def capability_text(capability: Capability) -> str:
    """``8.6`` of (8, 6)."""
    return ".".join(map(str, capability))
