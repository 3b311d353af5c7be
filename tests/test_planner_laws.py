"""Laws of planners over random blocks and over networks: they hold, they are what their sources describe, and how near they come."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

import memest
from memest.memory.planners import PLANNERS
from memest.memory.planners.blocks import Block, blocks_of
from memest.memory.planners.check import overlaps
from memest.memory.planners.gaps import in_order
from memest.memory.planners.greedy_by_breadth import by_breadth
from memest.memory.planners.greedy_by_size import by_size
from memest.memory.planners.hill_climb import STARTS, Climb, hill_climb
from memest.memory.planners.lower_bound import lower_bound
from memest.memory.planners.same_shape import buffers
from memest.sources.models import MODELS
from tests import planner_references as reference

UNIT = 64


def random_blocks(rnd: random.Random, most: int = 40) -> tuple[Block, ...]:
    """Blocks of lives and sizes of one of several kinds: short ones, long ones, equal sizes, sizes of all magnitudes, some empty."""
    moments, longest = rnd.choice(((20, 4), (60, 12), (60, 60)))
    sizes = rnd.choice(((0, 1, 2, 4, 8), tuple(range(1, 40)), (1, 1000, 10**6), (1, 10**15)))
    births = [rnd.randrange(moments) for _ in range(rnd.randrange(most))]
    return tuple(
        Block(n, lower, lower + rnd.randrange(1, longest), rnd.choice(sizes) * UNIT, rnd.choice("ab")) for n, lower in enumerate(births)
    )


def graph_like(rnd: random.Random) -> tuple[Block, ...]:
    """The blocks of a random graph: each value is read by some later ones, and dies after the last of them."""
    count = rnd.randrange(1, 30)
    last = list(range(count))
    for n in range(1, count):
        for m in {n - 1, *(rnd.randrange(n) for _ in range(rnd.randrange(3)))}:
            last[m] = n
    return tuple(Block(n, n, last[n] + 1 if last[n] > n else count + 1, rnd.choice((1, 2, 3, 4, 16)) * UNIT) for n in range(count))


def hold(cases: Iterator[tuple[Block, ...]]) -> None:
    for blocks in cases:
        bound, most = lower_bound(blocks), sum(b.size for b in blocks)
        plans = {name: plan(blocks) for name, plan in PLANNERS.items()}
        for name, plan in plans.items():
            assert overlaps(blocks, plan) == [], name
            assert bound <= plan.nbytes <= most, name
            assert all(o % UNIT == 0 for o in plan.offsets), name
        greedy = (plans[name].nbytes for name in ("greedy_by_size", "greedy_by_breadth", "openvino_solver"))
        assert plans["hill_climb"].nbytes <= min(greedy)


def cases(seed: int, count: int) -> Iterator[tuple[Block, ...]]:
    rnd = random.Random(seed)
    return ((random_blocks if i % 2 else graph_like)(rnd) for i in range(count))


def test_plans_of_random_graphs_hold() -> None:
    hold(cases(1, 30))


@pytest.mark.slow
def test_plans_of_5000_random_graphs_hold() -> None:
    hold(cases(2, 5000))


def test_planners_are_what_their_sources_describe() -> None:
    for blocks in cases(3, 40):
        first, last = min((b.lower for b in blocks), default=0), max((b.upper for b in blocks), default=0)
        through = [n for n, b in enumerate(blocks) if (b.lower, b.upper) == (first, last)]
        arena = [*through, *(n for n in by_size(blocks) if n not in through)]
        assert by_breadth(blocks) == reference.breadth_order(blocks)
        wanted = {
            "greedy_by_size": reference.tflite(blocks, by_size(blocks)),
            "greedy_by_breadth": reference.tflite(blocks, by_breadth(blocks)),
            "tflite_arena": reference.tflite(blocks, arena),
            "openvino_solver": reference.openvino(blocks),
            "best_fit": reference.onnxruntime(blocks),
        }
        for name, offsets in wanted.items():
            assert list(PLANNERS[name](blocks).offsets) == offsets, name


def test_equal_sizes_and_gaps_are_decided_as_in_each_source() -> None:
    late, early, through = Block(0, 3, 5, 64), Block(1, 1, 4, 64), Block(2, 0, 9, 64)
    assert PLANNERS["greedy_by_size"]((late, early, through)).offsets == (128, 64, 0)
    whole, big = Block(0, 0, 9, 64), Block(1, 2, 4, 640)
    assert PLANNERS["tflite_arena"]((whole, big)).offsets == (0, 64)
    assert PLANNERS["openvino_solver"]((whole, big)).offsets == (640, 0)
    gap, other = (Block(0, 0, 4, 300), Block(1, 0, 9, 10), Block(2, 0, 4, 100), Block(3, 0, 9, 10)), Block(4, 5, 9, 90)
    assert PLANNERS["best_fit"]((*gap, other)).offsets[4] == 310


def test_the_gap_behind_the_last_block_counts_in_a_pattern() -> None:
    blocks = (Block(0, 0, 2, 300), Block(1, 0, 9, 10), Block(2, 0, 2, 100), Block(3, 4, 9, 90))
    assert PLANNERS["best_fit"](blocks).offsets == (0, 300, 310, 310)


def test_a_buffer_goes_to_the_same_kind_alone_and_the_last_that_was_freed_first() -> None:
    blocks = (Block(0, 0, 2, 64, "a"), Block(1, 1, 3, 64, "a"), Block(2, 4, 6, 64, "a"), Block(3, 5, 7, 64, "b"), Block(4, 6, 8, 64, "a"))
    assert buffers(blocks) == [0, 1, 1, 3, 1]


def test_climbing_is_the_same_each_time_and_gets_better_where_greedy_is_not_the_best() -> None:
    rnd, better = random.Random(5), 0
    for _ in range(10):
        blocks = tuple(Block(n, at := rnd.randrange(30), at + rnd.randrange(1, 20), rnd.randrange(1, 30) * UNIT) for n in range(25))
        plan = hill_climb(blocks)
        assert plan == hill_climb(blocks)
        better += plan.nbytes < min(PLANNERS[name](blocks).nbytes for name in ("greedy_by_size", "greedy_by_breadth", "openvino_solver"))
    assert better >= 2 and len(STARTS) == 3


def test_a_step_of_a_climb_lays_the_blocks_as_all_of_them_placed_anew() -> None:
    rnd = random.Random(11)
    for fit in ("smallest", "lowest"):
        for _ in range(6):
            blocks = random_blocks(rnd)
            order = by_size(blocks)
            plan = in_order(blocks, order, fit)  # type: ignore[arg-type]
            climb = Climb(blocks, plan, order, fit, rnd, 10**6)  # type: ignore[arg-type]
            for _ in range(25 if plan.nbytes else 0):
                climb.step()
                again = in_order(blocks, climb.order, fit)  # type: ignore[arg-type]
                assert list(again.offsets) == climb.offsets and again.nbytes == climb.nbytes <= plan.nbytes


def test_sizes_beyond_a_machine_word_are_planned() -> None:
    blocks = tuple(Block(n, n, n + 2, 2**70 + n) for n in range(5))
    for name, plan in PLANNERS.items():
        assert overlaps(blocks, plan(blocks)) == [], name
    assert PLANNERS["greedy_by_size"](blocks).nbytes == lower_bound(blocks)


SAMPLE = ("unet3d", "densenet121", "mobilenet_v2")


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in SAMPLE else pytest.mark.slow) for n in MODELS])
def test_greedy_by_size_is_within_1_percent_of_the_bound_on_every_built_in_network(name: str) -> None:
    plan = memest.plan_inference(memest.model(name), input_shape=(1, *MODELS[name].input_shape))
    rows = {r.planner: r.nbytes for r in plan.rows}
    assert rows["greedy_by_size"] <= 1.01 * rows["lower_bound"]
    assert rows["hill_climb"] <= min(rows[p] for p in PLANNERS if p != "no_reuse")


def least(blocks: tuple[Block, ...]) -> int:
    """The fewest bytes of any plan, by a solver of constraints."""
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    most = sum(b.size // UNIT for b in blocks)
    top = model.new_int_var(0, most, "top")
    spans, lives = [], []
    for b in blocks:
        size = b.size // UNIT
        offset = model.new_int_var(0, most, "")
        spans.append(model.new_fixed_size_interval_var(offset, size, ""))
        lives.append(model.new_fixed_size_interval_var(b.lower, b.upper - b.lower, ""))
        model.add(top >= offset + size)
    model.add_no_overlap_2d(lives, spans)
    model.minimize(top)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    assert solver.solve(model) == cp_model.OPTIMAL
    return round(solver.objective_value) * UNIT


def held_against_the_least(count: int) -> None:
    pytest.importorskip("ortools", reason="the exact plan comes from OR-tools")
    rnd, exact = random.Random(6), 0
    for _ in range(count):
        blocks = tuple(Block(n, at := rnd.randrange(12), at + rnd.randrange(1, 8), rnd.randrange(1, 9) * UNIT) for n in range(10))
        best = least(blocks)
        for name, plan in PLANNERS.items():
            assert plan(blocks).nbytes >= best >= lower_bound(blocks), name
        exact += hill_climb(blocks).nbytes == best
    assert exact >= 0.75 * count


def test_no_plan_takes_less_than_the_exact_one() -> None:
    held_against_the_least(4)


@pytest.mark.slow
def test_no_plan_of_many_takes_less_than_the_exact_one() -> None:
    held_against_the_least(300)


def test_alignment_rounds_every_size_and_offset() -> None:
    found = memest.estimate(memest.model("resnet18"), input_shape=(1, 3, 65, 65), mode="infer", runtime="null")
    for alignment in (1, 32, 64, 4096):
        blocks = [b for b, _ in blocks_of(found.timeline, alignment)]
        assert all(b.size % alignment == 0 for b in blocks)
        assert all(o % alignment == 0 for o in PLANNERS["hill_climb"](blocks).offsets)
