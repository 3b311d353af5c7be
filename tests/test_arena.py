"""How far the memory of a call comes down: the origin's table to the byte, shared places, orders against all orders, windows."""

from __future__ import annotations

import json
import random
from itertools import permutations

import pytest

import memest
from memest.cli.app import main
from memest.errors import UsageError
from memest.memory.planners.lower_bound import lower_bound
from memest.network.graph import Graph, default_drops
from memest.planning.arena.flow import Flow, Operation, Value, flow_of
from memest.planning.arena.layout import blocks_of_flow
from memest.planning.arena.order import best_order
from memest.planning.arena.ways import EXACT, IN_PLACE, JOINED, SIXTEEN, Way
from memest.sources.builder import Builder, Node

MIB = 2**20


def flow(graph: Graph, *shape: int) -> Flow:
    return flow_of(memest.estimate(graph, input_shape=shape, mode="infer", runtime="null"))


def sums(found: Flow, **how: bool) -> tuple[float, float]:
    blocks = blocks_of_flow(found, **how)  # type: ignore[arg-type]
    return sum(b.size for b in blocks) / MIB, lower_bound(blocks) / MIB


# the origin's network -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("side", "apart", "written", "fused", "alive", "joined"), [(128, 2577, 1901, 1217, 512, 384), (160, 5033, 3713, 2377, 1000, 750)]
)
def test_the_table_of_the_3d_unet(side: int, apart: int, written: int, fused: int, alive: int, joined: int) -> None:
    plan = memest.plan_inference(memest.model("unet3d", levels=4), input_shape=(1, 1, side, side, side))
    reach = plan.reach(16)
    found = {w.name: round(w.nbytes / MIB) for w in reach.ways}
    assert (found["no reuse"], found["in place where written so"], found[IN_PLACE]) == (apart, written, fused)
    assert (found["reuse"], found[f"reuse + {JOINED}"], found[f"reuse + {SIXTEEN}"]) == (alive, joined, alive // 2)
    factors = {w.name: round(w.factor, 2) for w in reach.ways}
    assert (factors["reuse"], factors[f"reuse + {SIXTEEN}"], factors[f"reuse + {JOINED} + {SIXTEEN}"]) == (5.03, 10.07, 13.42)
    assert plan.of("greedy_by_size").nbytes == plan.of("lower_bound").nbytes == alive * MIB


def test_the_smallest_change_to_a_factor_of_16_is_named() -> None:
    plan = memest.plan_inference(memest.model("unet3d", levels=4), input_shape=(1, 1, 128, 128, 128))
    whole = plan.reach(16)
    assert whole.smallest is not None and whole.smallest.name == "reuse + 8 bits"
    assert whole.why is not None and "none is smaller than the input" in whole.why
    near = plan.reach(16, halo=16).smallest
    assert near is not None and near.price == "windows see less" and near.factor >= 16 and near.recomputed > 0
    assert plan.reach(5).smallest == next(w for w in whole.ways if w.name == "reuse")
    assert plan.reach(1000).smallest is None


def test_windows_that_see_all_are_exact_and_hold_the_whole_input_and_output() -> None:
    graph = memest.model("unet3d", levels=2, base_filters=8)
    plan = memest.plan_inference(graph, input_shape=(1, 1, 96, 96, 96))
    reach = plan.reach(12)
    cut = [w for w in reach.ways if "windows" in w.name]
    assert reach.why is None and cut and cut[0].price == "exact, more work" and cut[0].factor >= 12
    assert all(w.nbytes > 2 * 96**3 * (2 if SIXTEEN in w.changes else 4) for w in cut)
    assert reach.smallest == cut[0]


def test_windows_of_what_normalizes_over_a_sample_are_never_exact() -> None:
    b = Builder("normed", {})
    x = b.layer("conv2d", b.input("input", ("N", 4, "H", "W")), out_channels=4, kernel_size=3, padding=1)
    plan = memest.plan_inference(b.build(b.layer("instance_norm", x)), input_shape=(1, 4, 64, 64))
    assert {w.price for w in plan.reach(100).ways if "windows" in w.name} == {"windows see less"}


# places shared ------------------------------------------------------------------------------------------------------------


def network(build: str) -> Graph:
    b = Builder("small", {})
    x = b.input("input", ("N", 4, "H", "W"))
    if build == "chain":
        x = b.layer("conv2d", x, out_channels=4, kernel_size=1)
        x = b.layer("relu", b.layer("batch_norm", x))
    elif build == "kept":
        y = b.layer("conv2d", x, out_channels=4, kernel_size=1)
        x = b.layer("add", b.layer("relu", y), y)
    elif build == "turned":
        y = b.layer("conv2d", x, out_channels=4, kernel_size=1)
        x = b.layer("add", b.layer("transpose", y, dim0=2, dim1=3), y)
    elif build == "input":
        x = b.layer("relu", x)
    else:
        left, right = (b.layer("conv2d", x, out_channels=c, kernel_size=1) for c in (4, 12))
        x = b.layer("cat", [left, right], dim=1)
    return b.build(x)


@pytest.mark.parametrize(
    ("build", "how", "places"),
    [
        ("chain", {"in_place": True}, 2),
        ("chain", {}, 4),
        ("kept", {"in_place": True}, 3),
        ("turned", {"in_place": True}, 3),
        ("input", {"in_place": True}, 2),
        ("cat", {"joined": True}, 2),
        ("cat", {}, 4),
    ],
)
def test_what_dies_is_taken_over_and_nothing_else(build: str, how: dict[str, bool], places: int) -> None:
    assert len(blocks_of_flow(flow(network(build), 1, 4, 8, 8), **how)) == places  # type: ignore[arg-type]


def test_a_concatenation_in_place_never_makes_the_live_set_larger() -> None:
    for name, shape in (("densenet121", (1, 3, 64, 64)), ("vnet", (1, 1, 32, 32, 32)), ("unet2d", (1, 3, 64, 64))):
        graph = memest.model(name)
        found = flow(graph, 1, graph.inputs[0].shape[1], *shape[2:])  # type: ignore[arg-type]
        for in_place in (False, True):
            assert sums(found, in_place=in_place, joined=True)[1] <= sums(found, in_place=in_place)[1]


# orders -------------------------------------------------------------------------------------------------------------------


def random_flow(rnd: random.Random, count: int) -> Flow:
    """Operators that read earlier values, some of which write over one of them."""
    values = [Value(nbytes=rnd.randrange(1, 20), layer="input", shape=(1,), dtype="float32")]
    operations: list[Operation] = []
    last: dict[int, tuple[int | None, list[int]]] = {}
    made_by: dict[int, int] = {}
    for n in range(count):
        reads = tuple(dict.fromkeys(rnd.randrange(len(values)) for _ in range(rnd.randrange(1, 3))))
        writes = reads[:1] if n and rnd.random() < 0.2 and reads[0] else ()
        after = {made_by[v] for v in reads if v in made_by}
        for v in reads:
            writer, readers = last.setdefault(v, (None, []))
            after |= {writer} if writer is not None else set()
            if v in writes:
                after |= set(readers)
                last[v] = n, []
            else:
                readers.append(n)
        makes: tuple[int, ...] = ()
        if not writes:
            makes, made_by[len(values)] = (len(values),), n
            values.append(Value(nbytes=rnd.choice((1, 4, 9, 16)), layer=str(n), shape=(len(values) % 2,), dtype="float32"))
        pointwise = rnd.random() < 0.3
        whole = [(v.shape, v.nbytes) for v in values]
        over = tuple(v for v in reads if makes and pointwise and whole[v] == whole[makes[0]])
        operations.append(
            Operation(
                layer=str(n),
                reads=reads,
                makes=makes,
                writes=writes,
                after=tuple(sorted(after)),
                elementwise=pointwise,
                joins=False,
                over=over,
            )
        )
    return Flow(values=tuple(values), operations=tuple(operations), inputs=frozenset({0}), outputs=frozenset({len(values) - 1}))


def least_of_all(found: Flow) -> int:
    def allowed(order: tuple[int, ...]) -> bool:
        place = {n: at for at, n in enumerate(order)}
        return all(place[m] < place[n] for n, o in enumerate(found.operations) for m in o.after)

    orders = filter(allowed, permutations(range(len(found.operations))))
    return min(lower_bound(blocks_of_flow(found, order, in_place=True)) for order in orders)


@pytest.mark.parametrize("count", [30, pytest.param(400, marks=pytest.mark.slow)])
def test_the_order_is_the_best_of_all_orders(count: int) -> None:
    rnd, better = random.Random(9), 0
    for _ in range(count):
        found = random_flow(rnd, rnd.randrange(1, 7))
        start, order = lower_bound(blocks_of_flow(found, in_place=True)), best_order(found)
        assert order.exact and order.most == least_of_all(found) <= start
        assert order.most == lower_bound(blocks_of_flow(found, order.order, in_place=True))
        better += order.most < start
    assert better >= count // 30


def test_a_beam_keeps_dependencies_and_is_never_worse_than_the_order_as_written() -> None:
    rnd = random.Random(10)
    for width in (1, 2, 64):
        for _ in range(15):
            found = random_flow(rnd, 40)
            order = best_order(found, width=width)
            place = {n: at for at, n in enumerate(order.order)}
            assert sorted(order.order) == list(range(40))
            assert all(place[m] < place[n] for n, o in enumerate(found.operations) for m in o.after)
            assert order.most <= lower_bound(blocks_of_flow(found, in_place=True))


def branches(wide_first: bool) -> Graph:
    """Two branches that end small; the one that is wide in between costs less when it runs before the other's result is there."""
    b = Builder("branches", {})
    x = b.input("input", ("N", 4, "H", "W"))

    def branch(x: Node, width: int, out: int) -> Node:
        return b.layer("conv2d", b.layer("conv2d", x, out_channels=width, kernel_size=1), out_channels=out, kernel_size=1)

    sizes = [(64, 4), (8, 32)] if wide_first else [(8, 32), (64, 4)]
    ends = [branch(x, *size) for size in sizes]
    return b.build(b.layer("cat", ends, dim=1))


def test_branches_run_in_the_better_order() -> None:
    good, bad = (flow(branches(wide_first), 1, 4, 16, 16) for wide_first in (True, False))
    assert best_order(bad).most == best_order(good).most == sums(good)[1] * MIB < sums(bad)[1] * MIB
    plan = memest.plan_inference(branches(False), input_shape=(1, 4, 16, 16))
    assert any("another order" in w.changes and w.price == EXACT for w in plan.reach().ways)


@pytest.mark.parametrize("build", ["branches", "resnet18"])
def test_an_order_is_one_that_the_network_can_be_run_in(build: str) -> None:
    graph, shape = (branches(False), (1, 4, 16, 16)) if build == "branches" else (memest.model(build), (1, 3, 64, 64))
    graph = graph.inference or graph
    found = flow(graph, *shape)
    order = best_order(found).order if build == "branches" else ready_first(found)
    permanent = [*(p.name for p in graph.parameters), *(i.name for i in graph.inputs)]
    layers = default_drops([graph.layers[n] for n in order], graph.outputs, permanent)
    again = flow(graph.with_(layers=layers), *shape)
    assert order != tuple(range(len(graph.layers)))
    for in_place in (False, True):
        assert sums(again, in_place=in_place) == sums_in_order(found, order, in_place=in_place)


def ready_first(found: Flow) -> tuple[int, ...]:
    """Another order that is allowed: the last operator that is ready comes next."""
    done: list[int] = []
    while len(done) < len(found.operations):
        ready = (n for n, o in enumerate(found.operations) if n not in done and set(o.after) <= set(done))
        done.append(max(ready))
    return tuple(done)


def sums_in_order(found: Flow, order: tuple[int, ...], *, in_place: bool) -> tuple[float, float]:
    blocks = blocks_of_flow(found, order, in_place=in_place)
    return sum(b.size for b in blocks) / MIB, lower_bound(blocks) / MIB


# asked for ----------------------------------------------------------------------------------------------------------------


def test_the_command_says_how_far_it_comes_down(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["plan-inference", "unet3d:levels=4", "--input", "1x128x128x128", "--batch", "1"]
    assert main([*arguments, "--factor", "16", "--halo", "16", "--format", "json"]) == 0
    data = json.loads(capsys.readouterr().out)["reach"]
    reach = memest.plan_inference(memest.model("unet3d", levels=4), input_shape=(1, 1, 128, 128, 128)).reach(16, halo=16)
    assert data == json.loads(json.dumps(reach.to_dict()))
    assert main(arguments) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "the smallest change that reaches a factor of 16: reuse + 8 bits (20.13; rounds to 8 bits)" in said
    assert "short of that 13.42 at most, by reuse + concatenations in place + 16 bits" in said


@pytest.mark.parametrize(
    ("halo", "factor", "words"), [("a", 16, "halo is"), (-1, 16, "halo is"), (None, 0, "factor is"), ((1, 2), 16, "halo has")]
)
def test_what_is_no_halo_or_factor_is_refused(halo: object, factor: float, words: str) -> None:
    plan = memest.plan_inference(memest.model("unet3d", levels=2), input_shape=(1, 1, 32, 32, 32))
    with pytest.raises(UsageError, match=words):
        plan.reach(factor, halo=halo)  # type: ignore[arg-type]


def test_ways_are_told_of_the_null_runtime_alone_and_why_there_are_no_windows() -> None:
    graph = memest.model("resnet18")
    with pytest.raises(UsageError, match="not of torch-cpu"):
        memest.plan_inference(graph, input_shape=(1, 3, 64, 64), runtime="torch-cpu").reach()
    reach = memest.plan_inference(graph, input_shape=(1, 3, 64, 64)).reach()
    assert reach.why == "windows: an output is no image or volume that could be joined from parts"
    assert reach.ways[0] == Way(changes=(), nbytes=reach.ways[0].nbytes, factor=1.0, reuse=False)
