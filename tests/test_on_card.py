"""A step on a card: what the allocator reserves there, what the driver shows, and whether it fits, with the range that each is known to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from memest.machines.claims import TORCH_ON_CUDA
from memest.machines.cuda import CudaSettings
from memest.machines.devices import device_named, gpu_of
from memest.machines.entry import Hardware, Tier
from memest.machines.gpu import Gpu
from memest.machines.reading import hardware_named
from memest.machines.target import TORCH_CUDA, Target
from memest.machines.verdicts import verdict
from memest.memory.figure import Figures
from memest.memory.process import cuda_context
from memest.memory.stream import Event, Storage, Stream
from memest.runtimes.torch.cuda.replay import figures_of
from memest.runtimes.torch.cuda.runtime import RUNTIME

MIB = 2**20
T4 = device_named("t4")
assert T4 is not None
CONTEXT = cuda_context(T4)
assert CONTEXT.low is not None and CONTEXT.bytes is not None and CONTEXT.high is not None


class Once:
    """One step, the first: ``sizes`` (MiB, or three of them) are asked for, each but those in ``kept`` given back before the next."""

    is_first = True

    def __init__(self, *sizes: int | tuple[int, int, int], kept: tuple[int, ...] = ()) -> None:
        events: list[Event] = []
        for number, size in enumerate(sizes):
            low, expected, high = (size, size, size) if isinstance(size, int) else size
            storage = Storage(number, expected * MIB, "workspace" if low != high else "activation", "layer", "op", "a rule")
            storage.refs = 1
            if low != high:
                storage.spread = low * MIB, high * MIB
            events.append(Event(storage.nbytes, storage, "forward", "layer", "op"))
            if number not in kept:
                events.append(Event(-storage.nbytes, storage, "forward", "layer", "op"))
        self._stream = Stream(residents=(), events=tuple(events), values={})

    def asked(self) -> Stream:
        return self._stream

    def first(self) -> Stream:
        return self._stream


def _figures(steps: Once, memory: int) -> Figures:
    gpu = Gpu(name="t4", memory_bytes=memory, device=T4)
    return figures_of(steps, Target(runtime=TORCH_CUDA, version=(2, 14), machine=gpu, cuda=CudaSettings(cudnn=(9, 24))))


def _verdict(figures: Figures, memory: int) -> str:
    card = Hardware(
        name="t4", title="", kind="accelerator", tiers=(Tier(name="GDDR6", nbytes=memory, usable_bytes=memory, basis=""),), source=""
    )
    figure, found = figures.outermost
    assert found.bytes is not None
    said = verdict(card, found.bytes, replace(TORCH_ON_CUDA, card="t4"), low_bytes=found.low, high_bytes=found.high, figure=figure)
    return said.outcome


def test_the_process_is_what_is_reserved_and_the_context() -> None:
    found = _figures(Once(100, 300), 8192 * MIB)
    assert (found.reserved.claim, found.reserved.bytes, found.allocated.bytes) == ("exact", 400 * MIB, 300 * MIB)
    assert found.process.claim == "modelled"
    assert (found.process.low, found.process.bytes, found.process.high) == tuple(
        400 * MIB + n for n in (CONTEXT.low, CONTEXT.bytes, CONTEXT.high)
    )
    assert _verdict(found, 8192 * MIB) == "fits"


def test_a_modelled_workspace_makes_a_range_of_every_figure() -> None:
    found = _figures(Once(100, (0, 200, 400), kept=(0,)), 8192 * MIB)
    assert (found.reserved.low, found.reserved.bytes, found.reserved.high) == (100 * MIB + 2 * MIB, 300 * MIB, 500 * MIB)
    assert found.allocated.claim == found.reserved.claim == "modelled" and "a rule" in found.reserved.reason
    assert found.process.low is not None and found.process.high is not None
    assert found.process.low == 102 * MIB + CONTEXT.low and found.process.high == 500 * MIB + CONTEXT.high


def test_a_card_that_is_short_makes_the_allocator_give_back_what_it_holds_unused() -> None:
    """Two blocks one after the other: cached they are 1,100 MiB, but one of them is enough."""
    steps = Once(500, 600)
    roomy, tight = _figures(steps, 8192 * MIB), _figures(steps, 1000 * MIB)
    assert roomy.reserved.bytes == 1100 * MIB and tight.reserved.bytes == 600 * MIB
    assert tight.reserved.claim == "modelled" and "given back" in tight.reserved.reason
    assert _verdict(tight, 1000 * MIB) == "fits"


@pytest.mark.parametrize("above", [-1, 0, 1])
def test_where_the_context_alone_decides_it_depends(above: int) -> None:
    """A step of 600 MiB on cards that leave it just enough, or not, as the context is small or large."""
    besides = {-1: CONTEXT.high, 0: CONTEXT.bytes, 1: CONTEXT.low}[above]
    assert besides is not None
    memory = 600 * MIB + besides + (-MIB if above == 1 else 0)
    assert _verdict(_figures(Once(600), memory), memory) == {-1: "fits", 0: "depends", 1: "does not fit"}[above]


def test_a_step_too_large_says_by_how_much() -> None:
    found = _figures(Once(600, 700, kept=(0, 1)), 1000 * MIB)
    assert found.reserved.bytes == 1300 * MIB and _verdict(found, 1000 * MIB) == "does not fit"


def test_a_card_that_this_torch_no_longer_knows_is_played_and_said_to_be_so() -> None:
    def target(name: str, torch: str) -> Target:
        return RUNTIME.target(gpu_of(hardware_named(name)), torch, None)

    (said,) = RUNTIME.notes(target("v100-32gb", "2.14"))
    assert "no kernels for Tesla V100-SXM2-32GB" in said and "torch 2.14 for CUDA 12.6 with cuDNN 9.10 has them" in said
    assert RUNTIME.notes(target("v100-32gb", "2.9")) == RUNTIME.notes(target("h100-80gb", "2.14")) == ()
