"""An accelerator as the kernel libraries see it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """An accelerator: its name in the catalogue and the bytes of its memory that a program meets."""

    name: str
    memory_bytes: int
