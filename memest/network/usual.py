"""How those who made a network use it: sizes and settings that stand where a caller gives none.

A network read from a file that plans a whole training (nnU-Net's) carries them; a network described alone has none.
"""

from __future__ import annotations

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

    def usual_levers(self, on_cuda: bool) -> tuple[str, ...]:
        """Those that are pulled there."""
        return (*self.levers, *(self.cuda_levers if on_cuda else ()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Usual:
    """The usual way to train, to infer, and to call the network once and no more."""

    train: Way
    infer: Way
    call: Way

    def way(self, mode: str, runtime: str) -> Way:
        """That of a mode; runtimes but torch's know one call alone."""
        if not runtime.startswith("torch-"):
            return self.call
        return self.infer if mode == "infer" else self.train
