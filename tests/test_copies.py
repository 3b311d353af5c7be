"""Results as values: they pickle and copy at any time, cross processes, show themselves in a line, and in a notebook as a table."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

import memest
from memest.machines.versions import torch_of

SHAPES = ((2, 3, 32, 32), (3, 3, 32, 48), (5, 3, 96, 64), (1, 3, 40, 40))
COPIES: list[Callable[[Any], Any]] = [lambda o: pickle.loads(pickle.dumps(o)), copy.deepcopy, copy.copy]
NASTY = "<b>net</b>\x1b[31m\u202e"


def net(name: str = "net") -> memest.Graph:
    b = memest.Builder(name)
    x = b.input("input", ("N", 3, "H", "W"))
    x = b.layer("relu", b.layer("conv2d", x, out_channels=8, kernel_size=3, padding=1), inplace=True)
    x = b.layer("flatten", b.layer("adaptive_avg_pool2d", x, output_size=1), start_dim=1)
    return b.build(b.layer("linear", x, out_features=10))


def used(graph: memest.Graph) -> memest.Graph:
    """After everything that leaves something behind on it."""
    for shape in SHAPES:
        memest.estimate(graph, input_shape=shape, dtype="float64", levers=["accumulate:steps=2"]).formula()
        memest.estimate(graph, input_shape=shape)
    memest.sweep(graph, batch=range(1, 30), H=32, W=[32, 64])
    memest.fit(graph, "64MiB", "batch", H=64, W=64)
    memest.plan_checkpoints(graph, input_shape=SHAPES[0])
    return graph


@cache
def results() -> dict[str, Any]:
    """One of each kind (``KINDS``)."""
    graph = used(net())
    one = memest.estimate(graph, input_shape=SHAPES[0])
    formula = one.formula()
    assert one.by_category() and one.live_sets.at(one.sizes) and formula.peak and formula.short and formula.layers
    return {
        "graph": graph,
        "estimate": one,
        "formula": formula,
        "live sets": one.live_sets,
        "timeline": one.timeline,
        "sweep": memest.sweep(graph, batch=range(1, 30), H=32, W=[32, 64]),
        "fit": memest.fit(graph, "64MiB", "batch", H=64, W=64),
        "front": memest.fit(graph, "8MiB", ["batch", "H=W"]),
        "no fit": memest.fit(graph, "1KiB", "batch", H=64, W=64),
        "plan": memest.plan_checkpoints(graph, input_shape=SHAPES[0]),
        "advice": memest.advise(graph, "300KiB", input_shape=SHAPES[0]),
        "comparison": memest.compare(one, memest.estimate(graph, input_shape=SHAPES[1])),
        "cpu": memest.Cpu(),
    }


KINDS = ("graph", "estimate", "formula", "live sets", "timeline", "sweep", "fit", "front", "no fit", "plan", "advice", "comparison", "cpu")


def test_each_kind_is_there() -> None:
    assert tuple(results()) == KINDS


def answers(name: str, value: Any) -> Any:
    """What a copy has to say as the original does."""
    if name == "formula":
        return str(value.peak), str(value.short), value(N=7), value.conditions
    if name == "live sets":
        return value.at({"N": 7, "H": 96, "W": 64}), value.conditions, value.terms, value.counts.tolist()
    if name == "timeline":
        return [(s.delta, s.layer, s.storage.category) for s in value.events]
    return value


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("copied", COPIES, ids=("pickle", "deepcopy", "copy"))
def test_a_copy_says_the_same(name: str, copied: Callable[[Any], Any]) -> None:
    assert answers(name, copied(results()[name])) == answers(name, results()[name])


def test_what_was_remembered_is_no_part_of_a_graph() -> None:
    graph = results()["graph"]
    assert len(pickle.dumps(graph)) == len(pickle.dumps(net()))
    assert memest.estimate(copy.deepcopy(graph), input_shape=(9, 3, 50, 60)) == memest.estimate(graph, input_shape=(9, 3, 50, 60))


def test_equal_sweeps_are_equal() -> None:
    found = results()["sweep"]
    assert found == memest.sweep(net(), batch=range(1, 30), H=32, W=[32, 64])
    assert found != memest.sweep(net(), batch=range(1, 30), H=32, W=[32, 96]) and found != 3


def estimated(job: tuple[memest.Graph, tuple[int, ...]]) -> tuple[memest.Graph, memest.Estimate, memest.Sweep]:
    graph, shape = job
    found = memest.estimate(graph, input_shape=shape)
    found.live_sets.at(found.sizes)
    return graph, found, memest.sweep(graph, batch=range(1, 20), H=32, W=32)


@pytest.mark.parametrize("method", ["fork", *(pytest.param(m, marks=pytest.mark.slow) for m in ("spawn", "forkserver"))])
def test_results_cross_processes(method: str) -> None:
    graph = results()["graph"]
    with multiprocessing.get_context(method).Pool(2) as pool:
        found = pool.map(estimated, [(graph, shape) for shape in SHAPES])
    expected = memest.sweep(net(), batch=range(1, 20), H=32, W=32)
    for (back, one, swept), shape in zip(found, SHAPES, strict=True):
        assert back == graph and one == memest.estimate(net(), input_shape=shape) and swept == expected
        assert one.formula()(N=6) == memest.estimate(net(), input_shape=(6, *shape[1:])).peak_bytes


@pytest.mark.parametrize("name", KINDS)
def test_a_result_shows_itself_in_a_line(name: str) -> None:
    assert len(repr(results()[name])) < 120 and "\n" not in repr(results()[name])


def test_a_long_name_is_shortened_and_a_nasty_one_escaped() -> None:
    for name in ("a." * 5_000, NASTY):
        found = memest.estimate(net(name), input_shape=SHAPES[0])
        for value in (found, net(name), found.formula(), memest.compare(found, found)):
            assert len(repr(value)) < 160 and repr(value).isprintable()


class Tags(HTMLParser):
    """Tags that are closed in order, and the text between them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: dict[str, int] = {}
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)
        self.seen[tag] = self.seen.get(tag, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += f"{data}\n"


def test_a_notebook_shows_tables() -> None:
    found = Tags(results()["estimate"]._repr_html_())
    assert not found.open and found.seen["table"] == 3 and found.seen["details"] == 1
    for category in results()["estimate"].by_category():
        assert f"\n{category}\n" in found.text
    assert f"{results()['estimate'].peak_bytes:,} bytes" in found.text and "conv2d" in found.text
    swept = Tags(results()["sweep"]._repr_html_())
    assert swept.seen["table"] == 1 and "peak_bytes" in swept.text and swept.seen["tr"] == 41


def test_names_are_text_in_a_notebook() -> None:
    graph = net(NASTY)
    graph = graph.with_(layers=(replace(graph.layers[0], name=f"{NASTY}conv"), *graph.layers[1:]))
    html = memest.estimate(graph, input_shape=SHAPES[0])._repr_html_()
    assert "&lt;b&gt;net&lt;/b&gt;\\x1b[31m\\u202e" in html and "<b>net" not in html and "\x1b" not in html and "\u202e" not in html


def test_an_empty_sweep_shows_itself() -> None:
    empty = memest.Sweep({"batch": np.array([], dtype=np.int64), "peak_bytes": np.array([], dtype=np.int64)}, torch_of((2, 13), None))
    assert repr(empty) == "<Sweep: no configurations>" and empty._repr_html_()
