"""A step on a card: what the allocator reserves there, what the driver shows, and whether it fits, with the range that each is known to."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

import memest
from memest.cli.app import main
from memest.errors import UnsupportedError
from memest.machines.claims import TORCH_ON_CUDA
from memest.machines.cuda import CudaSettings
from memest.machines.devices import device_named, gpu_of
from memest.machines.entry import Hardware, Tier
from memest.machines.gpu import Gpu
from memest.machines.reading import hardware_named
from memest.machines.target import TORCH_CUDA, Target
from memest.machines.verdicts import verdict
from memest.memory.figure import Figures
from memest.memory.listing import Listing, listed
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

    converted: frozenset[str] = frozenset()
    is_first = True
    distributed = False
    keeps_gradients = whole = False
    converted: frozenset[str] = frozenset()

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

    def listed(self) -> tuple[Listing, Listing]:
        return listed(self.first()), listed(self.asked())

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
    assert (found.reserved.low, found.reserved.bytes, found.reserved.high) == (100 * MIB, 300 * MIB, 500 * MIB)
    assert found.allocated.claim == found.reserved.claim == "modelled" and "a rule" in found.reserved.reason
    assert found.process.low is not None and found.process.high is not None
    assert found.process.low == 100 * MIB + CONTEXT.low and found.process.high == 500 * MIB + CONTEXT.high


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


def test_a_step_too_large_says_what_it_would_need_at_least() -> None:
    """1,300 MiB are alive at once; of 600 and then 700 MiB, one after the other, 700 would do."""
    found, cached = _figures(Once(600, 700, kept=(0, 1)), 1000 * MIB), _figures(Once(600, 700), 750 * MIB)
    assert found.reserved.bytes == 1300 * MIB and _verdict(found, 1000 * MIB) == "does not fit"
    assert cached.reserved.bytes == 700 * MIB and _verdict(cached, 750 * MIB) == "does not fit"
    assert "runs out" in found.reserved.reason and "runs out" in cached.reserved.reason


def test_a_card_that_this_torch_no_longer_knows_is_played_and_said_to_be_so() -> None:
    def target(name: str, torch: str) -> Target:
        return RUNTIME.target(gpu_of(hardware_named(name)), torch, None)

    (said,) = RUNTIME.notes(target("v100-32gb", "2.14"))
    assert "no kernels for Tesla V100-SXM2-32GB" in said and "torch 2.14 for CUDA 12.6 with cuDNN 9.10 has them" in said
    assert RUNTIME.notes(target("v100-32gb", "2.9")) == RUNTIME.notes(target("h100-80gb", "2.14")) == ()


# planning on a card ------------------------------------------------------------------------------------------------------

NETWORK = memest.model("resnet18", num_classes=10)
HOW = {"runtime": "torch-cuda", "machine": "t4", "H": 64, "W": 64}


def _estimate(batch: int) -> memest.Estimate:
    return memest.estimate(NETWORK, input_shape=(batch, 3, 64, 64), runtime="torch-cuda", machine="t4")


@pytest.mark.parametrize("limit", ["700MiB", "1GiB", "2GiB"])
def test_fit_plays_the_allocator_at_its_answer_and_at_the_next(limit: str) -> None:
    found = memest.fit(NETWORK, limit, **HOW)
    assert found.sizes is not None and found.next_sizes is not None and found.next_bytes is not None
    here, after = _estimate(found.sizes["batch"]), _estimate(found.next_sizes["batch"])
    assert found.next_sizes["batch"] == found.sizes["batch"] + 1
    assert (found.peak_bytes, found.low_bytes, found.high_bytes) == (here.process.bytes, here.process.low, here.process.high)
    assert here.held_bytes <= found.budget_bytes < after.held_bytes == found.next_bytes
    assert found.figure == "process" and found.claim.decides
    assert found.depends == (here.process.high > found.budget_bytes) and found.fits is (None if found.depends else True)


def test_on_the_card_itself_fit_decides_and_on_another_it_says_whose_bytes_they_are() -> None:
    own, other = memest.fit(NETWORK, hardware_named("t4"), **HOW), memest.fit(NETWORK, hardware_named("l4"), **HOW)
    assert own.claim.decides and own.source.card == "t4"
    assert not other.claim.decides and other.fits is None and "l4's own kernels" in other.claim.note
    assert own.sizes is not None and other.sizes is not None and own.sizes["batch"] < other.sizes["batch"]


def test_where_not_one_sample_fits_the_smallest_step_says_what_binds() -> None:
    found = memest.fit(NETWORK, "200MiB", **HOW)
    assert found.sizes is None and found.fits is False and found.smallest is not None
    assert found.smallest.held_bytes > found.budget_bytes and found.figure == "process"


@pytest.mark.slow
def test_advice_brings_the_process_under_the_limit() -> None:
    found = memest.advise(NETWORK, "350MiB", input_shape=(64, 3, 64, 64), runtime="torch-cuda", machine="t4")
    assert found.start.held_bytes > found.budget_bytes >= found.reached.held_bytes
    assert found.bytes_fit and found.combined and found.claim.decides
    assert found.fits is (None if found.verdict.depends else True)
    assert all(o.peak_bytes == o.estimate.process.bytes for o in found.combined)


def test_the_command_line_says_what_is_free_and_what_it_rests_on(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["resnet18", "--input", "3x64x64", "--batch", "16", "--on", "t4"]
    assert main(["estimate", *given]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "fits in GDDR6: " in said and "bytes of the process on the card" in said and "torch CPU" not in said
    assert main(["estimate", *given, "--format", "json"]) == 0
    (verdict,) = json.loads(capsys.readouterr().out)["verdicts"]
    assert verdict["figure"] == "process" and verdict["fits"] is True and verdict["missing"] == []
    assert verdict["low_bytes"] < verdict["peak_bytes"] < verdict["high_bytes"]
    assert main(["estimate", "resnet18", "--input", "3x224x224", "--batch", "4096", "--on", "t4"]) == 1
    assert "does not fit: " in capsys.readouterr().out


def test_a_budget_beside_a_card_is_a_part_of_it_and_beside_a_server_one_limit_too_many(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["fit", "resnet18:num_classes=10", "--input", "3x64x64", "--budget", "700MiB", "--format", "json"]
    assert main([*given, "--on", "t4"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["on"] == "budget 700MiB" and found["figure"] == "process"
    assert found["low_bytes"] < found["peak_bytes"] <= 700 * MIB < found["next_bytes"]
    for other in (["--on", "server-192gb"], ["--on", "t4", "--device", "cpu"], ["--on", "t4", "--on", "l4"]):
        assert main([*given, *other]) == 2
        assert "give one limit" in capsys.readouterr().err


def test_a_rank_among_others_holds_nccls_buffers_besides() -> None:
    alone = memest.estimate(NETWORK, input_shape=(16, 3, 64, 64), runtime="torch-cuda", machine="a100-40gb")
    rank = memest.estimate(NETWORK, input_shape=(16, 3, 64, 64), runtime="torch-cuda", machine="a100-40gb", levers=["ddp:world=2"])

    def besides(e: memest.Estimate) -> int:
        assert e.process.bytes is not None and e.reserved.bytes is not None
        return e.process.bytes - e.reserved.bytes

    assert "NCCL" in rank.process.reason and "NCCL" not in alone.process.reason
    assert besides(rank) - besides(alone) >= 350 * MIB


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--on", "a100-40gb", "--threads", "4"), "--threads and --isa describe a processor, and --on a100-40gb is a card"),
        (("--on", "mi300x", "--device", "cuda"), "a described CUDA card, and --on mi300x is none"),
        (("--on", "a100-40gb", "--cudnn", "8.9"), "cudnn '8.9' is not modelled"),
        (("--on", "a100-40gb", "--cudnn", "0.0"), "cudnn '0.0' is not modelled"),
    ],
)
def test_what_contradicts_itself_is_one_line(words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["estimate", "alexnet", "--input", "3x224x224", "--batch", "2", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_batch_that_no_card_holds_is_refused_at_once() -> None:
    with pytest.raises(UnsupportedError, match="runs in more than"):
        memest.estimate(memest.model("resnet18"), input_shape=(10**12, 3, 224, 224), machine="t4")


def test_a_card_that_the_wheel_has_no_kernels_for_is_not_exact() -> None:
    found = memest.estimate(memest.model("alexnet"), input_shape=(2, 3, 224, 224), machine="v100-32gb", torch="2.14")
    assert found.allocated.claim == "modelled" and "no kernels for this card" in found.allocated.reason


def test_a_page_holds_on_a_card_whose_halves_take_other_kernels() -> None:
    """On Turing bfloat16 convolutions are products by cuBLAS, whose workspace stands beside them."""
    from memest.planning.page.model import page_model

    graph = memest.model("unet2d", base_filters=4, levels=2)
    assert page_model(graph, input_shape=(1, 3, 32, 32), optimizers=("sgd",), dtypes=("bfloat16",), machine="t4")
