"""All that an import asks for, told at once: where nobody says how many there are, it goes on with anything, to see what else it asks."""

from __future__ import annotations

from collections.abc import Callable

from memest.errors import MemestError, UnsupportedError
from memest.network.graph import Graph
from memest.sources.assumptions import Assumptions

MOST = 4
"""Kinds that are tried one after the other."""


def asked_at_once(assumptions: Assumptions, found: Callable[[Assumptions], Graph]) -> Graph:
    """What an import under these ``assumptions`` has ``found``. UnsupportedError where a count is missing, with all that are asked for."""
    try:
        return found(assumptions)
    except UnsupportedError as refusal:
        kind = trying = assumptions.wanting
        if not kind:
            raise
        trial = assumptions
        for _ in range(MOST):
            trial = trial.tried(trying)
            try:
                found(trial)
            except MemestError:
                trying = trial.wanting
            else:
                trying = ""
            if not trying:
                break
        raise UnsupportedError(f"{refusal}{assumptions.wants(trial.asked)}") from None
