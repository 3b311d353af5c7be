"""The planner: what it promises is measured in torch, nothing it met is better, and on small networks nothing at all is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

import memest
from memest.errors import UnsupportedError, UsageError
from memest.estimate.estimate import Estimate, estimate
from memest.estimate.summary import read_peak
from memest.levers.checkpoints.survey import survey
from memest.machines.cpu import Cpu
from memest.network.graph import Graph, Segment
from memest.planning.checkpoints import plan_checkpoints
from memest.runtimes.table import play
from memest.sources.builder import Builder

CPU = Cpu()
SHAPE = (4, 3, 32, 32)


def chain(widths: tuple[int, ...], strides: tuple[int, ...]) -> Graph:
    """Convolutions and out-of-place activations one after the other."""
    b = Builder("chain")
    x = b.input("input", ("N", 3, "H", "W"))
    for i, (width, stride) in enumerate(zip(widths, strides, strict=True)):
        x = b.layer("conv2d", x, name=f"{i}.conv", out_channels=width, kernel_size=3, padding=1, stride=stride)
        x = b.layer("silu", x, name=f"{i}.act")
    return b.build(x)


def all_segments(start: int, count: int) -> Iterator[tuple[tuple[int, int], ...]]:
    """Every way to checkpoint runs of ``count`` layers from ``start`` on."""
    yield ()
    for a in range(start, count):
        for b in range(a + 1, count + 1):
            for rest in all_segments(b, count):
                yield ((a, b), *rest)


def cost_of(plain: Estimate, segments: tuple[tuple[int, int], ...], work: dict[str, int]) -> tuple[int, int]:
    """Peak and operations run again, played."""
    recipe = replace(plain.recipe, segments=tuple(Segment(*s) for s in segments))
    timeline = play(plain.played, plain.input_shapes, plain.sizes, recipe)
    found = read_peak(timeline)
    return found.standing_bytes + found.above_bytes, sum(work[name] for name in timeline.ran_again)


@pytest.mark.parametrize(("widths", "strides"), [((8, 8, 8), (1, 1, 1)), ((16, 8, 4), (1, 2, 1)), ((4, 8, 16), (1, 2, 2))], ids=str)
def test_nothing_is_better_on_a_small_chain(widths: tuple[int, ...], strides: tuple[int, ...]) -> None:
    """Against every possible choice: the least memory is found, and under a budget nothing cheaper fits."""
    graph = chain(widths, strides)
    plain = estimate(graph, input_shape=SHAPE, machine=CPU)
    seen = survey(graph, plain.input_shapes, plain.sizes, plain.recipe)
    work = {layer.name: n for layer, n in zip(graph.layers, seen.flops, strict=True)}
    options = {cost_of(plain, segments, work) for segments in all_segments(0, len(graph.layers))}
    least = min(options)
    plan = plan_checkpoints(graph, input_shape=SHAPE, machine=CPU)
    assert plan.peak_bytes == least[0]
    for share in (0.2, 0.5, 0.8):
        budget = least[0] + int((plain.peak_bytes - least[0]) * share)
        best = min(cost for peak, cost in options if peak <= budget)
        plan = plan_checkpoints(graph, budget=budget, input_shape=SHAPE, machine=CPU)
        assert plan.fits and plan.peak_bytes <= budget
        assert plan.recomputed_share == best / sum(seen.flops)


@pytest.mark.parametrize("share", [0.9, 0.75])
def test_a_budget_is_kept_in_torch(share: float, cpu: Cpu) -> None:
    pytest.importorskip("torch")
    from validation.execute import GraphModule
    from validation.protocol import inputs_for, measure_training

    graph, shape = chain((8, 16, 16, 8, 8), (1, 1, 2, 1, 2)), (4, 3, 40, 36)
    plain = estimate(graph, input_shape=shape, machine=cpu)
    budget = plain.standing_bytes + int((plain.peak_bytes - plain.standing_bytes) * share)
    plan = plan_checkpoints(graph, budget=budget, input_shape=shape, machine=cpu)
    measured = measure_training(GraphModule(graph, plan.segments).train(), inputs_for([shape]), "sgd", "cross_entropy")
    assert measured.peak_bytes == plan.peak_bytes <= budget
    assert plan.lever is not None
    assert estimate(graph, input_shape=shape, machine=cpu, levers=[plan.lever]).peak_bytes == plan.peak_bytes


def test_alternatives_trade_bytes_for_operations() -> None:
    graph = memest.model("resnet18")
    plan = plan_checkpoints(graph, input_shape=(16, 3, 64, 64), machine=CPU)
    peaks = [o.peak_bytes for o in plan.alternatives]
    shares = [o.recomputed_share for o in plan.alternatives]
    assert len(peaks) > 3
    assert peaks == sorted(set(peaks)) and shares == sorted(set(shares), reverse=True)
    assert shares[-1] == 0 and not plan.alternatives[-1].segments
    assert plan.chosen == plan.alternatives[0]
    assert all(0 <= share <= 1 for share in shares)


def test_every_so_many_blocks_is_never_better() -> None:
    graph = memest.model("resnet18")
    plan = plan_checkpoints(graph, input_shape=SHAPE, machine=CPU)
    work = survey(graph, plan.plain.input_shapes, plan.plain.sizes, plan.plain.recipe).flops
    names = {layer.name: n for layer, n in zip(graph.layers, work, strict=True)}
    for count in range(1, 9):
        equal = estimate(graph, input_shape=SHAPE, machine=CPU, levers=[f"checkpoint:every={count}"])
        share = sum(names[n] for n in equal.timeline.ran_again) / sum(work)
        assert any(o.peak_bytes <= equal.peak_bytes and o.recomputed_share <= share for o in plan.alternatives)


def test_a_budget_that_the_plain_step_keeps_needs_nothing() -> None:
    graph = chain((8, 8), (1, 1))
    plan = plan_checkpoints(graph, budget="1GiB", input_shape=SHAPE, machine=CPU)
    assert plan.fits and not plan.segments and plan.lever is None and plan.recomputed_share == 0
    assert plan.peak_bytes == plan.plain.peak_bytes


def test_a_budget_that_nothing_keeps_gives_the_least() -> None:
    graph = chain((8, 8), (1, 1))
    plan = plan_checkpoints(graph, budget=1000, input_shape=SHAPE, machine=CPU)
    assert not plan.fits and plan.peak_bytes == plan_checkpoints(graph, input_shape=SHAPE, machine=CPU).peak_bytes
    assert "no segments found" in str(plan) and plan.to_dict()["fits"] is False


def test_the_lever_takes_a_budget() -> None:
    graph = chain((8, 8, 8), (1, 1, 1))
    plain = estimate(graph, input_shape=SHAPE, machine=CPU)
    budget = plain.peak_bytes - (plain.peak_bytes - plain.standing_bytes) // 10
    found = estimate(graph, input_shape=SHAPE, machine=CPU, levers=[f"checkpoint:budget={budget}B"])
    assert found.peak_bytes <= budget and found.recipe.segments


@pytest.mark.parametrize("budget", ["12", 0, -1, True, 1.5])
def test_a_budget_is_a_size(budget: Any) -> None:
    with pytest.raises(UsageError, match=r"budget|unit"):
        plan_checkpoints(chain((8,), (1,)), budget=budget, input_shape=SHAPE, machine=CPU)


def test_there_is_nothing_to_plan_for_inference_or_twice() -> None:
    graph = chain((8, 8), (1, 1))
    with pytest.raises(UsageError, match="for training"):
        plan_checkpoints(graph, input_shape=SHAPE, mode="infer")
    with pytest.raises(UnsupportedError, match="not beside fsdp"):
        plan_checkpoints(graph, input_shape=SHAPE, levers=["fsdp"], machine=CPU)
    with pytest.raises(UnsupportedError, match="already"):
        plan_checkpoints(graph, input_shape=SHAPE, levers=["checkpoint:modules=0"], machine=CPU)
