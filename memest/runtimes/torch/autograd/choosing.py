"""Calls whose results somebody else keeps: what a recorder asks of a selective checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from memest.memory.stream import Storage
from memest.network.graph import Layer
from memest.ops.tape import Trace
from memest.runtimes.torch.ledger import Version


class Chosen(Protocol):
    """A call whose results are kept, or taken where it runs ``again`` (:mod:`memest.runtimes.torch.step.selecting`)."""

    @property
    def again(self) -> bool:
        """Whether it runs once more."""

    def keep(self, trace: Trace, storages: list[Storage]) -> None:
        """The call has run."""

    def stamp(self, versions: Sequence[Version | None]) -> None:
        """What the tensors of the call's slots count with."""

    def taken(self, trace: Trace, inputs: list[Storage]) -> list[Storage]:
        """The storages of its slots, as if it had run."""

    def let_go(self, trace: Trace) -> None:
        """The results are where they are wanted."""


class Selecting(Protocol):
    """What chooses among calls."""

    def begin(self, layer: Layer) -> None:
        """``layer`` is about to run."""

    def chosen(self, row: str) -> Chosen | None:
        """The next call of an operator, if its results are kept."""
