"""An accelerator as the kernel libraries see it."""

from __future__ import annotations

from dataclasses import dataclass

from memest.errors import UsageError, kind_of
from memest.machines.devices import Device


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """An accelerator: its name in the catalogue, the bytes of its memory that a program meets, and what kernels ask of it (None: it is
    not described)."""

    name: str
    memory_bytes: int
    device: Device | None = None

    def __post_init__(self) -> None:
        """UsageError for what no accelerator is."""
        if not isinstance(self.name, str) or not self.name:
            raise UsageError(f"Gpu: name is a text, got {kind_of(self.name)}")
        if isinstance(self.memory_bytes, bool) or not isinstance(self.memory_bytes, int) or self.memory_bytes < 1:
            raise UsageError(f"Gpu: memory_bytes is a whole number of at least 1, got {kind_of(self.memory_bytes)}")
