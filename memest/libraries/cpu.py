"""The processor as the kernel libraries see it: instruction set, threads and cache sizes.

oneDNN chooses implementations and blockings from these numbers alone, so they are part of a runtime's description.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from memest.errors import UsageError, kind_of

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

    def __post_init__(self) -> None:
        """UsageError for what no processor is."""
        if self.isa not in get_args(Isa):
            raise UsageError(f"Cpu: isa is {' or '.join(get_args(Isa))}, got {kind_of(self.isa)}")
        for name in ("threads", "l1_bytes", "l2_bytes", "l3_bytes"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UsageError(f"Cpu: {name} is a whole number of at least 1, got {kind_of(value)}")

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
