"""What tests share: the processor as torch uses it, threads that sleep while they wait, and cheap garbage collections before every
measurement."""

from __future__ import annotations

import gc
import os
from collections.abc import Generator
from importlib.util import find_spec
from itertools import count

import pytest

from memest.machines.cpu import Cpu

# Torch's threads spin while they wait for one another; two workers with two threads each on two cores then wait for those that spin.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@pytest.fixture(scope="session", autouse=True)
def _imports() -> None:
    """An optimizer's first use imports 800 modules."""
    if find_spec("torch"):
        import torch

        torch.optim.SGD([torch.zeros(1)])


TESTS_BETWEEN = 25
_BEGUN = count()


def pytest_runtest_setup() -> None:
    """Measuring collects garbage first: what is there long before a test need not be walked each time."""
    if next(_BEGUN) % TESTS_BETWEEN == 0:
        gc.collect()
        gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """A test of a row of torchvision's is skipped where that is not installed for the torch at hand."""
    try:
        return (yield)
    except Exception as e:
        if type(e).__name__ == "NotInstalledError":
            pytest.skip(str(e))
        raise


@pytest.fixture(scope="session")
def cpu() -> Cpu:
    """The processor of this process, with the threads torch uses; skips where torch is absent."""
    torch = pytest.importorskip("torch")
    return Cpu.detect().with_(threads=torch.get_num_threads())
