"""cudnn.benchmark: plans are tried in one buffer at the first call of each thread, then all that is cached is given back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

import memest
from memest.libraries.cudnn import Convolution, Workspace
from memest.memory.allocators.caching import CachingAllocator
from memest.memory.allocators.replaying import Stretch, replay_stretches
from memest.memory.stream import Event
from memest.runtimes.torch.cuda import convolution

MIB = 1 << 20
TRIAL, WON = 48 * MIB, 3 * MIB
ASKED: dict[str, Any] = {"input_shape": (4, 8, 32, 32), "machine": "t4", "loss": "mse", "cudnn_benchmark": True}


def _graph() -> memest.Graph:
    layers = [{"conv2d": {"name": n, "out_channels": 8, "kernel_size": 3, "padding": 1}} for n in ("first", "second", "third")]
    return memest.loads(json.dumps({"memest": 1, "name": "twice", "inputs": {"x": ["N", 8, "H", "W"]}, "layers": layers}))


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A cuDNN whose plans are known."""

    def answer(card: Any, release: Any, question: Convolution, *, benchmark: bool = False) -> Workspace:
        return Workspace(bytes=WON, low=MIB, high=4 * MIB, source="cudnn", trial=TRIAL if benchmark else 0)

    memest.clear_caches()
    monkeypatch.setattr(convolution, "workspace", answer)
    yield
    memest.clear_caches()


def _trials(events: tuple[Event, ...]) -> list[tuple[str, str]]:
    return [(e.phase, e.layer) for e in events if e.storage.empties and e.delta > 0]


@pytest.mark.usefixtures("known")
def test_a_thread_tries_each_question_once_in_the_first_step_alone() -> None:
    """Three equal convolutions: forward asks once; backward, in another thread, once for each gradient (the first layer needs one)."""
    first, later = (memest.estimate(_graph(), first_step=first, **ASKED) for first in (True, False))
    assert _trials(first.events) == [("forward", "first"), ("backward", "third"), ("backward", "third")]
    assert _trials(later.events) == []
    plain = memest.estimate(_graph(), first_step=True, **{**ASKED, "cudnn_benchmark": False})
    assert _trials(plain.events) == []


@pytest.mark.usefixtures("known")
def test_the_first_step_holds_the_trial_and_gives_back_what_is_cached() -> None:
    first, later = (memest.estimate(_graph(), first_step=first, **ASKED) for first in (True, False))
    assert first.allocated.bytes is not None and later.allocated.bytes is not None and later.reserved.bytes is not None
    assert first.allocated.bytes > TRIAL > later.allocated.bytes
    assert first.reserved.bytes is not None and first.reserved.bytes >= TRIAL > later.reserved.bytes


@pytest.mark.usefixtures("known")
def test_which_plan_wins_is_a_range_and_said_to_be_one() -> None:
    later = memest.estimate(_graph(), **ASKED)
    assert later.allocated.claim == "modelled" and "only a card knows" in later.allocated.reason
    assert later.allocated.low is not None and later.allocated.bytes is not None and later.allocated.high is not None
    assert later.allocated.low < later.allocated.bytes < later.allocated.high


def test_a_trial_is_halved_until_there_is_room_and_empties_the_cache() -> None:
    allocator = CachingAllocator(capacity=100 * MIB)
    asked = [(60 * MIB, 1), (30 * MIB, 2), (-1, 2), (90 * MIB, 3), (-1, 3), (0, 4), (-1, 4)]
    found = replay_stretches((Stretch(asked),), allocator, {}, {}, frozenset({3, 4}))
    assert found.failed_at is None
    assert found.allocated == 90 * MIB
    assert allocator.reserved == 60 * MIB
    refused = replay_stretches((Stretch(asked[:4]),), CachingAllocator(capacity=100 * MIB), {}, {})
    assert refused.failed_at == 3


@pytest.mark.usefixtures("known")
def test_peaks_of_first_steps_hold_the_trial_at_every_size() -> None:
    asked = {k: v for k, v in ASKED.items() if k != "input_shape"}
    found = memest.sweep(_graph(), batch=[1, 2, 3, 4], H=32, W=32, first_step=True, **asked)
    for batch, peak in zip((1, 2, 3, 4), found["peak_bytes"].tolist(), strict=True):
        alone = memest.estimate(_graph(), first_step=True, **{**ASKED, "input_shape": (batch, 8, 32, 32)})
        assert peak == alone.peak_bytes > TRIAL
