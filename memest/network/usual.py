"""How those who made a network use it: sizes and settings that stand where a caller gives none.

A network read from a file that plans a whole training (nnU-Net's) carries them; a network described alone has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

Items = tuple[tuple[str, Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One mode's: sizes by their symbols, settings of a question by name, and levers, of which some are pulled on CUDA alone."""

    sizes: tuple[tuple[str, int], ...] = ()
    settings: Items = ()
    levers: tuple[str, ...] = ()
    cuda_levers: tuple[str, ...] = ()

    def levers_with(self, given: Iterable[str], on_cuda: bool, name_of: Callable[[str], str]) -> tuple[str, ...]:
        """The usual levers with those ``given`` beside them; one given takes the place of the usual one of its name."""
        given = tuple(given)
        names = {name_of(text) for text in given}
        usual = (*self.levers, *(self.cuda_levers if on_cuda else ()))
        return (*(text for text in usual if name_of(text) not in names), *given)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usual:
    """The usual way to train, and to infer."""

    train: Way
    infer: Way

    def way(self, mode: str) -> Way:
        """That of a mode."""
        return self.infer if mode == "infer" else self.train
