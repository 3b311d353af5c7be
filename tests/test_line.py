"""A compiled step asked for one batch after another: whatever is set apart or answered together is what each size alone gives."""

from __future__ import annotations

import copy
import pickle
import random
from typing import Any

import pytest

from memest.estimate.estimate import Estimate, estimate
from memest.estimate.summary import read_peak
from memest.machines.cpu import Cpu
from memest.memory.line import NEIGHBOURS, SOON
from memest.memory.live_sets import LiveSets
from memest.network.graph import Graph
from memest.runtimes.compiling import compile_program
from memest.runtimes.table import play
from memest.sizes.remembering import clear_caches
from memest.sources.builder import Builder

CPU = Cpu(isa="avx512", threads=4)


def network(kind: str) -> Graph:
    """A small classifier: ``heavy`` in weights, ``deep`` in its groups, or with windows that cut its images in parts (``cut``)."""
    b = Builder(kind)
    x = b.input("input", ("N", 3, "H", "W"))
    x = b.layer("relu", b.layer("conv2d", x, out_channels=16, kernel_size=3, stride=2, padding=1))
    if kind == "heavy":
        x = b.layer("conv2d", x, out_channels=512, kernel_size=3, stride=2)
        x = b.layer("conv2d", x, out_channels=512, kernel_size=1)
    elif kind == "deep":
        x = b.layer("conv2d", x, out_channels=16, kernel_size=3, padding=1, groups=16)
        x = b.layer("batch_norm", b.layer("conv2d", x, out_channels=64, kernel_size=1, bias=False))
    else:
        x = b.layer("max_pool2d", b.layer("batch_norm", x), kernel_size=3, stride=2, ceil_mode=True)
    x = b.layer("flatten", b.layer("adaptive_avg_pool2d", x, output_size=1), start_dim=1)
    return b.build(b.layer("linear", x, out_features=10))


def at(graph: Graph, n: int, h: int, w: int, options: dict[str, Any]) -> Estimate:
    return estimate(graph, input_shape=(n, 3, h, w), machine=CPU, **options)


def program_of(e: Estimate) -> LiveSets:
    return compile_program(e.played, e.input_shapes, e.sizes, e.recipe)


OPTIONS: tuple[dict[str, Any], ...] = ({"optimizer": "adam"}, {"mode": "infer"}, {"optimizer": "sgd", "levers": ("channels_last",)})


@pytest.mark.parametrize("kind", ["heavy", "deep", "cut"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_one_batch_after_another_is_as_each_alone(kind: str, options: dict[str, Any]) -> None:
    graph, rnd = network(kind), random.Random(kind)
    e = at(graph, 3, 33, 29, options)
    program = program_of(e)
    for h, w in ((33, 29), (48, 40)):
        batches = [*range(1, SOON + 12), *rnd.sample(range(2, 3 * NEIGHBOURS), 25), 10**6, 2**40]
        for n in batches:
            sizes = {"N": n, "H": h, "W": w}
            found = program.at(sizes)
            if not program.conditions.hold(sizes):
                assert found is None
                continue
            assert found == program._at(sizes), sizes
            if n < 40:
                played = at(graph, n, h, w, options)
                assert found == read_peak(play(played.played, played.input_shapes, played.sizes, played.recipe)), sizes


def test_a_step_that_runs_otherwise_is_never_answered_from_its_neighbours() -> None:
    graph = network("heavy")
    program = program_of(at(graph, 4, 32, 32, {"optimizer": "adam"}))
    assert not program.conditions.hold({"N": 1, "H": 32, "W": 32})
    assert [program.at({"N": n, "H": 32, "W": 32}) is None for n in (2, 3, 4, 5, 6, 7, 8, 9, 1, 1, 10)] == [False] * 8 + [True] * 2 + [
        False
    ]


def test_sizes_beyond_int64_are_counted_exactly() -> None:
    graph = network("heavy")
    program = program_of(at(graph, 4, 32, 32, {"optimizer": "adam"}))
    for n in (*range(2**59, 2**59 + 8), 2**80, 2**80 + 1):
        sizes = {"N": n, "H": 32, "W": 32}
        assert program.at(sizes) == program._at(sizes)


def test_a_step_asked_before_is_copied_without_what_was_found_out_about_it() -> None:
    program = program_of(at(network("cut"), 4, 33, 29, {"optimizer": "adam"}))
    sizes = [{"N": n, "H": h, "W": w} for h, w in ((33, 29), (37, 45)) for n in range(1, 12)]
    found = [program.at(s) for s in sizes]
    for copied in (pickle.loads(pickle.dumps(program)), copy.deepcopy(program)):
        assert [copied.at(s) for s in sizes] == found
    assert program.conditions.others


def test_what_was_asked_in_plain_words_is_forgotten_with_the_rest() -> None:
    graph = network("deep")
    before = [at(graph, n, 32, 32, {"optimizer": "adam"}).peak_bytes for n in range(2, 20)]
    assert graph.memo.shelf("jobs", 1)
    clear_caches()
    assert not graph.memo.shelf("jobs", 1)
    assert [at(graph, n, 32, 32, {"optimizer": "adam"}).peak_bytes for n in range(2, 20)] == before
    assert [at(graph, n, 32, 32, {"optimizer": "sgd"}).peak_bytes for n in range(2, 20)] != before
