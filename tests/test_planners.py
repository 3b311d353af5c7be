"""Planners: their plans hold, by a checker that shares nothing with them, and lie between the bound and no reuse."""

from __future__ import annotations

import csv
import json
import random
from io import StringIO

import pytest

import memest
from memest.cli.app import main
from memest.errors import UsageError
from memest.memory.planners import PLANNERS
from memest.memory.planners.blocks import Block, Plan, blocks_of
from memest.memory.planners.check import overlaps
from memest.memory.planners.greedy_by_size import greedy_by_size
from memest.memory.planners.lower_bound import lower_bound
from memest.memory.planners.no_reuse import no_reuse

CHAIN = (Block(0, 0, 2, 100), Block(1, 1, 3, 60), Block(2, 2, 4, 80))


def some(rnd: random.Random, count: int) -> tuple[Block, ...]:
    births = [(rnd.randrange(40), rnd.randrange(1, 12)) for _ in range(count)]
    return tuple(Block(n, lower, lower + life, rnd.randrange(0, 9) * 64) for n, (lower, life) in enumerate(births))


def held_together(blocks: tuple[Block, ...], plan: Plan) -> bool:
    """The definition, pair by pair."""
    spans = [(b, o, o + b.size) for b, o in zip(blocks, plan.offsets, strict=True) if b.size]
    return not any(
        a.lower < b.upper and b.lower < a.upper and s < f and t < e for i, (a, s, e) in enumerate(spans) for b, t, f in spans[:i]
    )


@pytest.mark.parametrize("planner", PLANNERS)
def test_plans_hold_and_lie_between_the_bound_and_no_reuse(planner: str) -> None:
    rnd = random.Random(7)
    for _ in range(200):
        blocks = some(rnd, rnd.randrange(0, 25))
        plan = PLANNERS[planner](blocks)
        assert overlaps(blocks, plan) == [] and held_together(blocks, plan)
        assert lower_bound(blocks) <= plan.nbytes <= no_reuse(blocks).nbytes == sum(b.size for b in blocks)


def test_the_checker_finds_what_the_definition_finds() -> None:
    rnd = random.Random(8)
    found = {True: 0, False: 0}
    for _ in range(400):
        blocks = some(rnd, rnd.randrange(2, 9))
        plan = Plan(offsets=tuple(rnd.randrange(12) * 64 for _ in blocks), nbytes=10**6)
        holds = held_together(blocks, plan)
        assert (overlaps(blocks, plan) == []) is holds
        found[holds] += 1
    assert min(found.values()) > 20


def test_a_plan_that_leaves_its_arena_is_found() -> None:
    assert "outside" in overlaps(CHAIN, Plan(offsets=(0, 100, 0), nbytes=150))[0]
    assert "3 blocks have 1 offsets" in overlaps(CHAIN, Plan(offsets=(0,), nbytes=150))[0]


def test_a_chain_by_hand() -> None:
    assert (no_reuse(CHAIN).nbytes, lower_bound(CHAIN)) == (240, 160)
    assert greedy_by_size(CHAIN) == Plan(offsets=(0, 100, 0), nbytes=160)


def test_the_smallest_gap_that_holds_a_block_is_taken() -> None:
    blocks = (Block(0, 0, 9, 50), Block(1, 0, 2, 40), Block(2, 0, 9, 30), Block(3, 4, 9, 20), Block(4, 4, 9, 10))
    plan = greedy_by_size(blocks)
    assert plan.offsets == (0, 50, 90, 50, 70) and plan.nbytes == 120


def test_blocks_are_what_the_call_asks_for() -> None:
    found = memest.estimate(memest.model("resnet18"), input_shape=(1, 3, 64, 64), mode="infer")
    blocks = [b for b, _ in blocks_of(found.timeline, 64)]
    assert len(blocks) == sum(e.delta > 0 for e in found.events) and all(b.size % 64 == 0 for b in blocks)
    exact = [b for b, _ in blocks_of(found.timeline)]
    assert lower_bound(exact) == found.peak_bytes - found.standing_bytes
    assert sum(b.upper == len(found.events) for b in exact) == 1


@pytest.mark.parametrize("runtime", ["null", "torch-cpu"])
@pytest.mark.parametrize("name", ["unet3d:base_filters=4,levels=3", "densenet121"])
def test_a_network_is_planned_on_any_runtime(name: str, runtime: str) -> None:
    graph = memest.model(name)
    shape = (1, graph.inputs[0].shape[1], *(32,) * (len(graph.inputs[0].shape) - 2))
    plan = memest.plan_inference(graph, input_shape=shape, runtime=runtime)
    rows = {r.planner: r.nbytes for r in plan.rows}
    assert list(rows) == [*PLANNERS, "lower_bound"]
    assert rows["lower_bound"] <= rows["greedy_by_size"] < rows["no_reuse"]
    assert plan.of("greedy_by_size").factor == rows["no_reuse"] / rows["greedy_by_size"]
    lines = list(csv.DictReader(StringIO(plan.to_csv("greedy_by_size"))))
    assert max(int(x["offset"]) + int(x["size"]) for x in lines) == rows["greedy_by_size"] and len(lines) == len(plan.blocks)
    with pytest.raises(UsageError, match="bound"):
        plan.to_csv("lower_bound")


def test_the_command_says_what_the_function_says(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["plan-inference", "resnet18", "--input", "3x64x64", "--batch", "2"]
    assert main([*arguments, "--format", "json"]) == 0
    data = json.loads(capsys.readouterr().out)
    plan = memest.plan_inference(memest.model("resnet18"), input_shape=(2, 3, 64, 64))
    assert data["planners"] == [{"planner": r.planner, "bytes": r.nbytes, "factor": r.factor} for r in plan.rows]
    assert main([*arguments, "--format", "csv", "--planner", "no_reuse"]) == 0
    rows = list(csv.DictReader(StringIO(capsys.readouterr().out)))
    assert [int(r["offset"]) for r in rows] == list(plan.of("no_reuse").plan.offsets)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--alignment", "48"], "a power of two"),
        (["--planner", "greedy"], "greedy_by_size"),
        (["--factor", "x"], "--factor: expected a number"),
        (["--halo", "16x"], "--halo: "),
        (["--runtime", "tensorflow"], "tensorflow-cpu"),
    ],
)
def test_wrong_options_are_one_line(extra: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan-inference", "resnet18", "--input", "3x64x64", "--batch", "2", *extra]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1


def test_plans_are_of_inference() -> None:
    with pytest.raises(UsageError, match="plans inference"):
        memest.plan_inference(memest.model("resnet18"), input_shape=(2, 3, 64, 64), mode="train", runtime="torch-cpu")
