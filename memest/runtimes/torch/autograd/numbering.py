"""The numbers of nodes, by which the engine chooses what runs next: those of the greatest first.

Each thread counts for itself. On a CPU backward runs in the thread that called it, and goes on counting. A card has a thread of its own:
nodes that backward makes there under ``create_graph=True`` are numbered by how many that thread has made in all steps before. In the midst
of training these stand far behind those of forward, of which a step makes more: whatever forward made runs first, as soon as it is ready.

Source: aten/src/ATen/SequenceNumber.cpp (``thread_local``), torch/csrc/autograd/function.h (``Node``), engine.cpp (a ready queue for each
device, ``CompareNodeTaskTime``).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

from memest.errors import UnsupportedError

BEHIND = -(1 << 60)
STEPS = 7
"""After so many steps the two threads' numbers have to be apart."""


class Numbers:
    """Numbers for the nodes of one step."""

    def __init__(self, on_cuda: bool, begun: bool) -> None:
        """``begun``: steps were made before; else no node at all."""
        self._start = BEHIND if begun else 0
        self._callers = count()
        self._cards = count(self._start) if on_cuda else self._callers
        self._current = self._callers
        self._created = False

    def __next__(self) -> int:
        return next(self._current)

    @contextmanager
    def backward(self, create: bool) -> Iterator[None]:
        """The engine runs; with ``create`` what it makes is run by it later."""
        outer, self._current = self._current, self._cards
        self._created = self._created or create
        try:
            yield
        finally:
            self._current = outer

    def check(self) -> None:
        """UnsupportedError where the order of what backward made (under ``create_graph``) and of what forward made is none that stays."""
        if not self._created or self._cards is self._callers:
            return
        if self._start == 0:
            raise UnsupportedError(
                "create_graph=True on CUDA in a process's first step, where both threads begin to count: nothing was measured to hold that"
                " against; leave first_step out, or ask for torch-cpu"
            )
        forward, backward = next(self._callers), next(self._cards) - self._start
        if backward * (STEPS + 1) > forward * STEPS:
            raise UnsupportedError(
                f"create_graph=True on CUDA where backward makes {backward} nodes of its own and forward {forward}: what runs first changes"
                " as training goes on, unless forward makes more; ask for torch-cpu"
            )
