"""The state of the random generator, read and written while a forward is recorded (``torch.get_rng_state``, ``torch.random.fork_rng``).

A state is a new tensor on the host, of as many bytes as a checkpoint keeps; giving it back takes nothing.

Source: torch/random.py, aten/src/ATen/CPUGeneratorImpl.cpp (get_state, set_state).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch

from memest.runtimes.torch.step.checkpointing import GENERATOR_STATE_BYTES
from memest.sources.importers.torch.tensors.live import LiveTensors


class Recorder(Protocol):
    """What is asked of the recorder."""

    live: LiveTensors


@contextmanager
def telling(listener: Callable[[], Recorder | None]) -> Iterator[None]:
    """States that this thread's ``listener`` is asked for are meta tensors."""
    read, write = torch.random.get_rng_state, torch.random.set_rng_state

    def get_rng_state() -> torch.Tensor:
        told = listener()
        if told is None:
            return read()
        state = torch.empty(GENERATOR_STATE_BYTES, dtype=torch.uint8)  # which is recorded
        told.live.place(told.live.known(state), True)
        return state

    def set_rng_state(new_state: Any) -> None:
        if listener() is None:
            write(new_state)

    for module in (torch, torch.random):
        module.get_rng_state, module.set_rng_state = get_rng_state, set_rng_state
    try:
        yield
    finally:
        for module in (torch, torch.random):
            module.get_rng_state, module.set_rng_state = read, write
