"""What tests share: the processor as torch uses it, and cheap garbage collections around every measurement."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from memest.machines.cpu import Cpu


@pytest.fixture(scope="session", autouse=True)
def _imports() -> None:
    """An optimizer's first use imports 800 modules."""
    if find_spec("torch"):
        import torch

        torch.optim.SGD([torch.zeros(1)])


@pytest.fixture(scope="module", autouse=True)
def _frozen(_imports: None) -> Iterator[None]:
    """Measuring collects garbage first; what is there for good (modules, what is remembered) need not be walked each time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def cpu() -> Cpu:
    """The processor of this process, with the threads torch uses; skips where torch is absent."""
    torch = pytest.importorskip("torch")
    return Cpu.detect().with_(threads=torch.get_num_threads())
