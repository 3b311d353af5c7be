"""Blocks as CSV: what minimalloc reads and writes, read back; and wrong files in one line."""

from __future__ import annotations

import random

import pytest

import memest
from memest.errors import UsageError
from memest.memory.planners import PLANNERS
from memest.memory.planners.blocks import Block, Plan
from memest.memory.planners.check import overlaps
from memest.memory.planners.files import read, written

SOLVED = "id,lower,upper,size,offset\nb1,0,3,4,8\nb2,3,9,4,8\nb3,0,9,4,4\nb4,9,21,4,4\nb5,0,21,4,0\n"  # the example of minimalloc's README


def test_the_example_of_minimalloc_is_read_and_holds() -> None:
    blocks, plan = read(SOLVED)
    assert [(b.lower, b.upper, b.size, b.kind) for b in blocks[:2]] == [(0, 3, 4, "b1"), (3, 9, 4, "b2")]
    assert plan == Plan(offsets=(8, 8, 4, 4, 0), nbytes=12) and overlaps(blocks, plan) == []
    assert PLANNERS["hill_climb"](blocks).nbytes == 12


def test_what_is_written_is_read_back() -> None:
    rnd = random.Random(2)
    blocks = tuple(Block(n, at := rnd.randrange(30), at + rnd.randrange(1, 9), rnd.randrange(9)) for n in range(20))
    plan = PLANNERS["best_fit"](blocks)
    again, offsets = read(written(blocks, plan))
    assert [(b.id, b.lower, b.upper, b.size) for b in again] == [(b.id, b.lower, b.upper, b.size) for b in blocks] and offsets == plan
    assert read(written(blocks)) == (again, None)


def test_older_columns_have_the_last_moment() -> None:
    blocks, plan = read("buffer_id,start,end,size\nx,0,2,5\n\n", alignment=8)
    assert [(b.lower, b.upper, b.size) for b in blocks] == [(0, 3, 8)] and plan is None


def test_a_plan_of_a_network_is_read_back() -> None:
    found = memest.plan_inference(memest.model("resnet18"), input_shape=(1, 3, 64, 64))
    blocks, plan = read(found.to_csv("greedy_by_size"))
    assert plan == found.of("greedy_by_size").plan and len(blocks) == len(found.blocks)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "id, lower, upper, size is missing"),
        ("id,lower,size\n", "upper is missing"),
        ("id,lower,upper,size\na,0,1\n", "line 2: 3 fields under 4 columns"),
        ("id,lower,upper,size\na,0,-1,4\n", "line 2: upper is a whole number"),
        ("id,lower,upper,size\na,5,4,4\n", "ends at 4, before it begins at 5"),
    ],
)
def test_a_wrong_file_is_one_line(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as e:
        read(text)
    assert "\n" not in str(e.value)
