"""Where Python's random numbers stand: those of ``random``, and of ``numpy.random``. What a forward draws there may decide what it does."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import numpy as np


class Luck(NamedTuple):
    """The states of both generators."""

    pythons: tuple[Any, ...]
    numpys: tuple[Any, ...]

    @classmethod
    def now(cls) -> Luck:
        """Where they stand."""
        state: Any = np.random.get_state()
        kind, keys, *rest = state
        return cls(random.getstate(), (kind, keys.tobytes(), *rest))

    def put_back(self) -> None:
        """They stand there again."""
        random.setstate(self.pythons)
        kind, keys, *rest = self.numpys
        np.random.set_state((kind, np.frombuffer(keys, np.uint32), *rest))
