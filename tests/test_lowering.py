"""A step compiled to numbers is the step as it is played: at every size at which it says anything, event for event."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

import memest
from memest.errors import MemestError
from memest.estimate.question import question
from memest.memory.listing import Listing, listed
from memest.network.binding import bind
from memest.network.graph import Graph
from memest.ops import kernels
from memest.runtimes.lowering import Lowered, lowered
from memest.runtimes.table import play
from memest.runtimes.torch.step import Recipe
from memest.sizes.dims import Expr, resolve

CARDS = ("t4", "v100-32gb", "a100-40gb", "h100-80gb")
HOW: list[dict[str, Any]] = [
    {},
    {},
    {"levers": ["autocast"]},
    {"levers": ["channels_last"]},
    {"levers": ["channels_last", "autocast:dtype=bfloat16"]},
    {"dtype": "float64"},
    {"cudnn_enabled": False},
    {"cudnn_benchmark": True},
    {"keep_grads": True},
    {"hold_output": True},
]
NETWORKS: list[tuple[str, dict[str, int], dict[str, Any]]] = [
    ("resnet18", {"H": 64, "W": 64}, {"optimizer": "adam"}),
    ("mobilenet_v2", {"H": 96, "W": 64}, {"optimizer": "sgd:momentum=0.9", "levers": ["autocast"]}),
    ("unet2d", {"H": 64, "W": 64}, {"loss": "mse", "levers": ["channels_last"]}),
    ("unet3d", {"D": 32, "H": 32, "W": 48}, {"loss": "binary_cross_entropy", "optimizer": "adamw:fused=true"}),
    ("vnet", {"D": 32, "H": 32, "W": 32}, {"mode": "infer"}),
    ("densenet121", {"H": 64, "W": 64}, {"levers": ["checkpoint:every=2"]}),
    ("resnet18", {"H": 64, "W": 64}, {"levers": ["fsdp:world=2"]}),
    ("resnet18", {"H": 64, "W": 64}, {"levers": ["ddp:static_graph=true"]}),
    ("resnet18", {"H": 64, "W": 64}, {"levers": ["ddp:sync_batch_norm=true,gradient_as_bucket_view=true"]}),
    ("mobilenet_v2", {"H": 64, "W": 64}, {"levers": ["zero:stage=1"], "optimizer": "adam"}),
]


def at(graph: Graph, sizes: Mapping[str, int]) -> tuple[dict[str, Any], dict[str, int]]:
    shapes = {i.name: resolve(i.shape, sizes) for i in graph.inputs}
    return shapes, bind(graph.inputs, shapes)


def played(graph: Graph, sizes: Mapping[str, int], recipe: Recipe) -> Listing:
    return listed(play(graph, *at(graph, sizes), recipe))


def told(of: Listing) -> Any:
    """All of a listing; whether a kernel or a library took what comes and goes is nobody's question."""
    storages = [(s.layer, s.op, s.stream, s.refs > 0 and s.category) for s in of.form.storages]
    return of.form.residents, of.form.before, of.form.remade, of.form.remade_at, of.form.parts, storages, of.sizes, of.spreads


def holds(step: Lowered, graph: Graph, sizes: Mapping[str, int], recipe: Recipe) -> bool:
    """Whether the compiled step says what it is at these sizes; if so, that it is that."""
    if not all(g.holds(sizes) for g in graph.guards):
        return False
    found = step.at(sizes)
    if found is None:
        return False
    assert told(found) == told(played(graph, sizes, recipe)), sizes
    assert (found.standing_bytes, found.above_bytes) == requested(play(graph, *at(graph, sizes), recipe))
    return True


def requested(stream: Any) -> tuple[int, int]:
    running = highest = 0
    for event in stream.events:
        running += event.delta
        highest = max(highest, running)
    return sum(s.nbytes for s in stream.residents), highest


@pytest.fixture
def kernels_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels are compiled at the first sizes they are asked at."""
    memest.clear_caches()
    monkeypatch.setattr(kernels, "SOON", 0)


@pytest.mark.usefixtures("kernels_at_once")
@pytest.mark.parametrize(
    "network",
    [
        pytest.param(n, id=f"{n[0]}, {', '.join(n[2].get('levers', ['plain']))}", marks=() if i % 4 == 0 else pytest.mark.slow)
        for i, n in enumerate(NETWORKS)
    ],
)
@pytest.mark.parametrize("first", [False, True], ids=["a later step", "the first step"])
def test_networks_at_other_sizes(network: tuple[str, dict[str, int], dict[str, Any]], first: bool) -> None:
    name, sides, how = network
    rnd = random.Random(name)
    job = question(memest.model(name), {"machine": rnd.choice(CARDS), **how}, "estimate").job(memest.model(name))
    recipe = replace(job.recipe, step=1) if first else job.recipe
    step = lowered(job.graph, *at(job.graph, {"N": 4, **sides}), recipe)
    assert step is not None
    batches = [{"N": n, **sides} for n in (2, 3, 5, rnd.randrange(6, 40), rnd.randrange(40, 300))]
    assert all([holds(step, job.graph, sizes, recipe) for sizes in batches])
    others = [{"N": rnd.randrange(1, 20), **{s: n * rnd.randrange(1, 4) for s, n in sides.items()}} for _ in range(4)]
    assert any([holds(step, job.graph, sizes, recipe) for sizes in others])


def trials(seeds: range) -> Iterator[tuple[Graph, Recipe, dict[str, int], random.Random]]:
    """Random networks in random settings on random cards, with sizes they run at."""
    pytest.importorskip("torch")
    from validation.fuzz import _Grower

    for seed in seeds:
        rnd = random.Random(seed)
        trial = _Grower(rnd).grow()
        how = rnd.choice(HOW) if len(trial.shape) > 3 else {}
        training = {"optimizer": trial.optimizer, "loss": trial.loss} if trial.mode == "train" else {}
        given = {"machine": rnd.choice(CARDS), "mode": trial.mode, **training, **how}
        try:
            job = question(trial.graph, given, "estimate").job(trial.graph)
            sizes = bind(job.graph.inputs, {job.graph.inputs[0].name: trial.shape})
            recipe = replace(job.recipe, step=1) if rnd.random() < 0.3 else job.recipe
            played(job.graph, sizes, recipe)
        except MemestError:
            continue
        yield job.graph, recipe, sizes, rnd


def compare_random_networks(seeds: range) -> tuple[int, int, int]:
    """How many were compiled, how many not (other than first steps in which cuDNN's plans are tried), and at how many other sizes they said
    what they are."""
    compiled = refused = said = 0
    for graph, recipe, sizes, rnd in trials(seeds):
        step = lowered(graph, *at(graph, sizes), recipe)
        if step is None:
            refused += not (recipe.target.settings.benchmark and recipe.step == 1)
            continue
        compiled += 1
        symbols = {d.text for i in graph.inputs for d in i.shape if isinstance(d, Expr)}
        for _ in range(6):
            other = {s: max(1, n + rnd.choice((0, 0, 1, -1, 2, 7, n))) if s in symbols else n for s, n in sizes.items()}
            try:
                said += holds(step, graph, other, recipe)
            except MemestError:
                assert step.at(other) is None, other
    return compiled, refused, said


@pytest.mark.usefixtures("kernels_at_once")
def test_random_networks_at_other_sizes() -> None:
    compiled, refused, said = compare_random_networks(range(40))
    assert compiled >= 30 and not refused and said >= 60


@pytest.mark.slow
@pytest.mark.usefixtures("kernels_at_once")
def test_many_random_networks_at_other_sizes() -> None:
    compiled, refused, said = compare_random_networks(range(1_000, 1_400))
    assert compiled >= 300 and not refused and said >= 600


@pytest.mark.parametrize("name", ["resnet18", "unet2d"])
def test_an_estimate_says_the_same_from_a_compiled_step_as_from_a_played_one(name: str) -> None:
    graph, how = memest.model(name), {"machine": "a100-40gb", "optimizer": "adam", "loss": "mse" if name == "unet2d" else "cross_entropy"}
    for batch in (3, 4, 5, 6, 21, 90):
        found = memest.estimate(graph, input_shape=(batch, 3, 64, 64), **how)
        alone = memest.estimate(memest.model(name), input_shape=(batch, 3, 64, 64), **how)
        assert found.figures == alone.figures
        assert (found.summary, found.moment, found.to_dict()) == (alone.summary, alone.moment, alone.to_dict())
    assert graph.memo.shelf("lowered", 1)


def test_a_first_step_that_tries_plans_is_played_at_every_size() -> None:
    graph = memest.model("resnet18", num_classes=7)
    how: dict[str, Any] = {"machine": "t4", "torch": "2.14", "cudnn_benchmark": True, "first_step": True}
    for batch in (2, 3, 4, 5):
        found = memest.estimate(graph, input_shape=(batch, 3, 64, 64), **how)
        alone = memest.estimate(memest.model("resnet18", num_classes=7), input_shape=(batch, 3, 64, 64), **how)
        assert (found.figures, found.summary) == (alone.figures, alone.summary)
        assert sum(s.empties for s in found.steps.listed()[1].form.storages) > 0
    assert lowered(graph, *at(graph, {"N": 2, "H": 64, "W": 64}), found.recipe) is None


def test_what_a_kernel_leaves_to_the_row_around_it_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel's scratch that goes when the row ends could go after what comes later in the row."""
    from memest.runtimes.torch.cuda import convolution

    monkeypatch.setattr(convolution, "_workspace", lambda k, asked, last: k.scratch(1 << 20) and None)
    graph = memest.model("resnet18", num_classes=7)
    job = question(graph, {"machine": "t4"}, "estimate").job(graph)
    assert lowered(graph, *at(graph, {"N": 2, "H": 64, "W": 64}), job.recipe) is None
