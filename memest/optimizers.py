"""Optimizers: state per parameter, and what a step allocates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memest.ledger import Ledger, Value


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimizer:
    name: str


def play_step(optimizer: Optimizer, ledger: Ledger, parameters: Sequence[Value], names: Sequence[str], first_step: bool) -> None:
    """Play one ``optimizer.step()`` on the ledger."""
