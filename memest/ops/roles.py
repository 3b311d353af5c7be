"""Optional inputs of a row: forward notes which were given, backward asks for gradients by role and answers in their order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from memest.ops.tape import Tape, Tensor


def note_given(k: Tape, **inputs: Tensor | None) -> None:
    """Remember which of ``inputs`` (all tensor roles of the row, in order) this call got."""
    k.note(given=tuple(role for role, t in inputs.items() if t is not None))


def wanted(k: Tape, saved: Mapping[str, Any]) -> frozenset[str]:
    """The roles whose gradients are wanted."""
    return frozenset(role for role, need in zip(saved["given"], k.needs, strict=True) if need)


def in_order(saved: Mapping[str, Any], **gradients: Tensor | None) -> list[Tensor | None]:
    """``gradients`` by role as the list a backward returns: one entry a given input."""
    return [gradients.get(role) for role in saved["given"]]
