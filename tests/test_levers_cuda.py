"""Levers on CUDA: what differs from a CPU, in bytes that torch's CUDA build asked for on the stand-in; how sure a rank's figures are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import memest
from memest.estimate.estimate import Estimate
from memest.machines.devices import device_named
from memest.memory.allocators.caching import CachingAllocator
from memest.memory.allocators.settings import DEFAULT
from memest.memory.listing import Form, Listing, Part
from memest.memory.stream import Storage
from memest.network.graph import Graph
from memest.runtimes.torch.cuda.course import course_of
from memest.runtimes.torch.cuda.playing import Taken, play_pools, play_whole
from memest.runtimes.torch.script import exchanged
from memest.runtimes.torch.step.parallel.collectives import copy_in_numbers, copy_out_numbers

CARD = "h100-80gb"
SHAPE = (4, 3, 64, 64)
EMA_COUNTER = 8


def on_card(graph: Graph, *levers: str, **step: Any) -> Estimate:
    settings = {"optimizer": "sgd:momentum=0.9", "loss": "cross_entropy", "input_shape": SHAPE, "torch": "2.14", **step}
    return memest.estimate(graph, levers=levers, runtime="torch-cuda", machine=CARD, **settings)


@pytest.fixture(scope="module")
def resnet() -> Graph:
    return memest.model("resnet18")


def asked_for(estimate: Estimate, layer: str) -> list[int]:
    return [e.delta for e in estimate.events if e.layer == layer and e.delta > 0]


def test_a_checkpoint_keeps_no_state_of_the_generator_on_the_device(resnet: Graph) -> None:
    """torch reads a CUDA generator's state into the host's memory; on a CPU it takes 5,056 bytes a segment, twice."""
    assert 5056 not in [e.delta for e in on_card(resnet, "checkpoint:every=1").events]


def test_the_count_of_averages_is_copied_to_the_device_for_each_dtype(resnet: Graph) -> None:
    """``self.n_averaged.to(device)``; the counter itself lies in the host's memory, so nothing of it is resident."""
    counted = on_card(resnet, "ema")
    assert asked_for(counted, "ema") == [EMA_COUNTER]
    assert [s.layer for s in counted.timeline.residents if s.layer == "ema.n_averaged"] == []
    assert asked_for(on_card(resnet, "ema", first_step=True), "ema") == []


def test_averaged_counters_of_batch_norm_come_before_the_weights(resnet: Graph) -> None:
    """20 batch norms count their batches: 3 products in float32 each; then the copy for the floating tensors."""
    assert asked_for(on_card(resnet, "ema:buffers=true"), "ema") == [EMA_COUNTER, *[4] * 60, EMA_COUNTER]


def test_targets_of_slices_are_one_tensor(resnet: Graph) -> None:
    """``target.split(size)``: a block of the allocator, not one a slice."""
    targets = [s for s in on_card(resnet, "micro_batch:size=1").timeline.residents if s.layer == "target"]
    assert [s.nbytes for s in targets] == [SHAPE[0] * 8]


def test_uneven_slices_share_the_target_too(resnet: Graph) -> None:
    targets = [s for s in on_card(resnet, "micro_batch:size=3").timeline.residents if s.layer == "target"]
    assert [s.nbytes for s in targets] == [SHAPE[0] * 8]


def test_a_gradient_of_one_channel_is_copied_for_channels_last() -> None:
    """``grad_output.to(memory_format)`` copies where strides of a single channel suggest the other format."""
    b = memest.Builder("one")
    hidden = b.layer("conv3d", b.input("x", ("N", 1, "D", "H", "W")), name="first", out_channels=8, kernel_size=3, padding=1)
    out = b.layer("sigmoid", b.layer("conv3d", hidden, name="head", out_channels=1, kernel_size=1))
    found = on_card(b.build(out), "channels_last", input_shape=(2, 1, 32, 32, 32), loss="binary_cross_entropy_with_logits")
    head = [e.delta for e in found.events if e.phase == "backward" and e.layer == "head" and e.delta > 0]
    assert head[:2] == [2 * 32**3 * 4, 2 * 8 * 32**3 * 4]


def placed(nbytes: int, names: tuple[str, ...], converted: frozenset[str]) -> list[Taken]:
    """What weights take that are made and converted, pool by pool and request by request."""
    weights = tuple(Storage(i, nbytes, "parameter", name, "", "") for i, name in enumerate(names))
    nothing = Listing(form=Form(len(weights), weights, (Part(()),)), sizes=[nbytes] * len(weights))
    course = course_of(nothing, nothing, converted=converted, is_first=True, keeps_gradients=False)
    sizes = course.of_all(nothing.sizes, ())
    return [play_pools(course, sizes, (), DEFAULT), play_whole(course, sizes, (), CachingAllocator(DEFAULT))]


def test_tensors_in_channels_last_are_copies_of_what_was_there() -> None:
    """Two weights of 8 MiB share a segment of 20; the copy of the first takes another one, that of the second the place of the first."""
    for converted, reserved in ((frozenset(), 20 << 20), (frozenset({"first"}), 40 << 20), (frozenset({"first", "second"}), 40 << 20)):
        for taken in placed(8 << 20, ("first", "second"), converted):
            assert (taken.allocated, taken.reserved) == (16 << 20, reserved)


def test_what_only_conversions_needed_is_given_back() -> None:
    """A weight of 12 MiB lies in a segment of its own, which goes when its copy is there."""
    for taken in placed(12 << 20, ("only",), frozenset({"only"})):
        assert (taken.allocated, taken.reserved) == (12 << 20, 12 << 20)


# ranks -------------------------------------------------------------------------------------------------------------------


def buckets(estimate: Estimate) -> list[int]:
    return [s.nbytes for s in estimate.timeline.residents if s.layer.startswith("bucket ")]


def test_buckets_are_one_at_first_and_rebuilt_in_the_order_of_gradients(resnet: Graph) -> None:
    """As seen at construction and at the start of the second step."""
    assert buckets(on_card(resnet, "ddp", first_step=True)) == [46_758_048]
    assert buckets(on_card(resnet, "ddp")) == [2_052_000, 28_852_224, 15_853_824]


def test_where_unused_parameters_are_looked_for_buckets_stay(resnet: Graph) -> None:
    lever = "ddp:find_unused_parameters=true"
    first, later = buckets(on_card(resnet, lever, first_step=True)), buckets(on_card(resnet, lever))
    assert first == later
    assert sum(first) == 46_758_048


def test_a_reduced_gradient_takes_no_number_on_the_device(resnet: Graph) -> None:
    """A step of a rank asks for what a step alone does, and for the buffers that are sent round."""
    alone, rank = (sorted(e.delta for e in on_card(resnet, *levers).events) for levers in ((), ("ddp",)))
    sent = [38_400, 160]
    assert rank == sorted([*alone, *sent, *(-n for n in sent)])


def test_a_size_that_is_asked_for_holds_for_the_first_bucket_too(resnet: Graph) -> None:
    """As seen at the start of the second step with ``bucket_cap_mb=25``, and without it."""
    assert buckets(on_card(resnet, "ddp:bucket_cap_mb=25")) == [30_904_224, 15_853_824]


def perceptron() -> Graph:
    """Without a convolution, whose plan only cuDNN knows."""
    b = memest.Builder("perceptron")
    hidden = b.layer("relu", b.layer("linear", b.input("x", ("N", 64)), name="inner", out_features=128))
    return b.build(b.layer("linear", hidden, name="outer", out_features=10))


@pytest.mark.parametrize("lever", ["ddp", "zero:stage=1", "zero:stage=2", "fsdp"])
def test_figures_of_one_of_several_ranks_are_exact_for_the_torch_they_were_measured_with(lever: str) -> None:
    step: dict[str, Any] = {"input_shape": (4, 64), "optimizer": "adam"}
    for figure in (on_card(perceptron(), lever, **step).allocated, on_card(perceptron(), lever, **step).reserved):
        assert (figure.claim, figure.low, figure.high) == ("exact", figure.bytes, figure.bytes)
        assert "NCCL asks it for nothing" in figure.reason
    before = on_card(perceptron(), lever, **step, torch="2.13").allocated
    assert before.claim == "modelled" and "torch 2.14 alone" in before.reason
    assert before.low is not None and before.bytes is not None and before.high is not None and before.low <= before.bytes <= before.high


def test_gradients_that_stay_are_modelled_among_ranks_and_are_no_second_tensors_beside_their_buckets() -> None:
    step: dict[str, Any] = {"input_shape": (4, 64), "keep_grads": True}
    found = on_card(perceptron(), "ddp", **step)
    assert found.allocated.claim == "modelled" and "stay" in found.allocated.reason
    beside, views = (on_card(perceptron(), f"ddp:gradient_as_bucket_view={text}", **step) for text in ("false", "true"))
    assert beside.standing_bytes - views.standing_bytes == sum(buckets(views))


def test_buckets_of_several_dtypes_are_modelled() -> None:
    b = memest.Builder("mixed")
    inner = b.layer("linear", b.input("x", ("N", 64)), name="inner", out_features=128)
    graph = b.build(b.layer("linear", inner, name="outer", out_features=10))
    other = [replace(p, dtype="float64") if p.name.startswith("outer") else p for p in graph.parameters]
    found = on_card(graph.with_(parameters=tuple(other)), "ddp", input_shape=(4, 64)).allocated
    assert found.claim == "modelled" and "whose order torch leaves open" in found.reason


def test_ranks_compare_and_send_round_the_network_before_buckets_are_made(resnet: Graph) -> None:
    """As recorded on the stand-in (two ranks): the number of parameters, once of each rank, twice gathered; their sizes and strides; all
    floating tensors as one, the counters as another; one bucket."""
    first = on_card(resnet, "ddp").steps.first()
    passing = [m.storage.nbytes if m.made else -m.storage.nbytes for m in first.made[len(first.residents) - 1 :]]
    assert passing == [8, 8, 8, 16, -16, 1968, -1968, -8, -8, -8, 46_796_448, 160, -46_796_448, -160, 46_758_048]


@pytest.mark.parametrize(("lever", "step"), [("ddp", 2), ("ddp:static_graph=true", 3), ("ddp:find_unused_parameters=true", 0)])
def test_buckets_are_exchanged_when_a_step_begins(resnet: Graph, lever: str, step: int) -> None:
    """Rank 0 tells the order of 62 parameters (and how many buckets there are) and the size of each bucket."""
    found = on_card(resnet, lever).steps
    moves = [m.storage.nbytes if m.made else -m.storage.nbytes for m in exchanged(found.first(), found.asked())]
    assert found.asked().remade_at == step
    assert moves == ([252, 12, -12, -252, -46_758_048, 2_052_000, 28_852_224, 15_853_824] if step else [])


def test_buckets_are_exchanged_in_the_midst_of_a_step_of_several_passes(resnet: Graph) -> None:
    """Gradients that are views hold the old bucket until the last of them has a place in a new one."""
    for view, old_last in (("false", False), ("true", True)):
        steps = on_card(resnet, f"ddp:gradient_as_bucket_view={view}", "accumulate:steps=3").steps
        first = [e.delta for e in steps.first().events if e.op == "rebuild_buckets"]
        new = [2_052_000, 28_852_224, 15_853_824]
        assert first == [252, 12, -12, -252, *([*new, -46_758_048] if old_last else [-46_758_048, *new])]
        assert steps.asked().remade_at == 0


def test_a_module_goes_to_the_device_children_first() -> None:
    """Of a module its own tensors come after those of its children, the target right after the inputs."""
    b = memest.Builder("deep")
    x = b.layer("linear", b.input("x", ("N", 8)), name="block.inner", out_features=8)
    graph = b.build(b.layer("linear", x, name="block", out_features=4))
    made = [m.storage.layer for m in on_card(graph, input_shape=(4, 8)).steps.first().made]
    assert made == ["block.inner.weight", "block.inner.bias", "block.weight", "block.bias", "x", "target"]


def test_shards_are_copied_in_and_out_by_kernels_that_are_told_their_tensors() -> None:
    """ResNet-18's root beside its wrapped layers: conv1, bn1, fc; two ranks (bytes of each rank's part)."""
    device = device_named(CARD)
    assert device is not None
    root = [18_816, 128, 128, 1_024_000, 2_000]
    assert copy_out_numbers(root, 2, device) == 4272
    assert copy_in_numbers(root) == 4360


def test_copies_of_many_blocks_take_more_at_once() -> None:
    """layer4 of ResNet-18: 33,574,912 bytes are 8,209 tiles a rank, more than an H100 takes at once."""
    device = device_named(CARD)
    assert device is not None
    conv, down, norm = 512 * 512 * 9 * 2, 512 * 256 * 2, 1024
    layer4 = [512 * 256 * 9 * 2, norm, norm, conv, norm, norm, down, norm, norm, conv, norm, norm, conv, norm, norm]
    assert sum(layer4) * 2 == 33_574_912
    assert copy_out_numbers(layer4, 2, device) == 33_336
    assert copy_in_numbers(layer4) == 66_352


def test_what_is_gathered_and_scattered_lies_on_streams_of_its_own(resnet: Graph) -> None:
    found = on_card(resnet, "fsdp:blocks=layer1+layer2+layer3+layer4").timeline
    streams = {(e.storage.stream, e.delta) for e in found.events if e.delta > 0 and e.storage.stream}
    assert {n for stream, n in streams if stream == 1} == {2_090_144, 591_872, 2_102_272, 8_398_848, 33_574_912}
    assert {n for stream, n in streams if stream == 2} == {1_045_072, 295_936, 1_051_136, 4_199_424, 16_787_456}
