"""The processor as the kernel libraries see it: instruction set, threads and cache sizes.

oneDNN chooses implementations and blockings from these numbers alone, so they are part of a runtime's description.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Isa = Literal["avx2", "avx512"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """What the heuristics of the CPU libraries depend on. Cache sizes are bytes per core (a shared level divided by its sharers).

    ``bf16`` says whether an AVX-512 processor also multiplies bfloat16 (avx512_bf16) without having matrix units (AMX), for which the
    libraries have other kernels; it is about tensors of bfloat16 alone.
    """

    isa: Isa = "avx512"
    bf16: bool = True
    threads: int = 2
    l1_bytes: int = 48 * 1024
    l2_bytes: int = 1024 * 1024
    l3_bytes: int = 16 * 1024 * 1024

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
        """This machine, as oneDNN would see it (environment limits included)."""
        from memest.libraries.detect import detected

        return detected()

    def with_(self, **changes: object) -> Cpu:
        """The same processor with some fields changed."""
        return replace(self, **changes)  # type: ignore[arg-type]
