"""How those who made a network use it: sizes and settings that stand where a caller gives none.

A network read from a file that plans a whole training (nnU-Net's) carries them; a network described alone has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Items = tuple[tuple[str, Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One mode's: sizes by their symbols and the ``most`` they are of use for, settings of a question by name, levers; those on CUDA stand
    beside the others there."""

    sizes: tuple[tuple[str, int], ...] = ()
    most: tuple[tuple[str, int], ...] = ()
    settings: Items = ()
    levers: tuple[str, ...] = ()
    cuda_settings: Items = ()
    cuda_levers: tuple[str, ...] = ()

    def on(self, cuda: bool) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Settings and levers, on CUDA or elsewhere."""
        if not cuda:
            return dict(self.settings), self.levers
        return dict((*self.settings, *self.cuda_settings)), (*self.levers, *self.cuda_levers)


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
