"""The largest that fits is what brute force finds."""

from __future__ import annotations

import random
from typing import Any

import pytest

import memest
from memest.errors import UsageError
from memest.machines.cpu import Cpu

NETWORKS: dict[str, tuple[str, dict[str, Any], int]] = {
    "batch of an image network": ("resnet18", {"vary": "batch", "H": 64, "W": 64}, 400),
    "batch of a small network": ("unet2d:base_filters=4,levels=2", {"vary": "batch", "H": 32, "W": 32}, 400),
    "side of an image": ("mobilenet_v2", {"vary": "H=W", "batch": 2}, 400),
    "side of a volume": ("unet3d:base_filters=4,levels=3", {"vary": "D=H=W", "batch": 1, "loss": "binary_cross_entropy"}, 100),
    "one dim of a volume": ("unet3d:base_filters=4,levels=3", {"vary": "D", "batch": 2, "H": 16, "W": 24}, 200),
}


def every_peak(graph: memest.Graph, vary: str, most: int, **how: Any) -> list[tuple[int, int]]:
    """(value, bytes) of every value below ``most`` that the network runs at."""
    symbols = [str(d) for d in graph.inputs[0].shape if not isinstance(d, int)]
    fixed = {symbols[0] if k == "batch" else k: v for k, v in how.items() if k in ("batch", "D", "H", "W")}
    rest = {k: v for k, v in how.items() if k not in ("batch", "D", "H", "W")}
    names = vary.split("=")
    tied = tuple(symbols[0] if n == "batch" else n for n in names)
    found = memest.sweep(graph, axes=[(tied, range(1, most)), *(((s,), [n]) for s, n in fixed.items())], invalid="skip", **rest)
    return list(zip(found[names[0]].tolist(), found["peak_bytes"].tolist(), strict=True))


def check(name: str, count: int, seed: int) -> None:
    model, how, most = NETWORKS[name]
    graph, rnd = memest.model(model), random.Random(seed)
    keep = {k: v for k, v in how.items() if k != "vary"}
    every = every_peak(graph, how["vary"], most, **keep)
    top = every[-1][1]
    for _ in range(count):
        budget = rnd.randint(top // 40, top - 1)
        found = memest.fit(graph, budget, **how)
        good = [(value, peak) for value, peak in every if peak <= budget]
        if not good:
            assert not found.fits and found.smallest is not None and found.smallest.peak_bytes > budget
            continue
        assert (found.value, found.peak_bytes) == max(good)
        assert found.next_bytes is not None and found.next_bytes > budget


@pytest.mark.parametrize("name", NETWORKS)
def test_the_largest_is_what_brute_force_finds(name: str) -> None:
    check(name, 3, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_the_largest_is_what_brute_force_finds_for_two_hundred_budgets(name: str) -> None:
    check(name, 40, 2)


MEASURED: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("unet2d:base_filters=4,levels=2", {"vary": "batch", "H": 32, "W": 32}, "8MiB"),
    ("unet2d:base_filters=4,levels=2", {"vary": "batch", "H": 48, "W": 24, "optimizer": "adam"}, "20MiB"),
    ("unet2d:base_filters=4,levels=2", {"vary": "H=W", "batch": 2}, "12MiB"),
    ("unet2d:base_filters=8,levels=3", {"vary": "W", "batch": 3, "H": 24, "optimizer": "adam"}, "16MiB"),
    ("unet3d:base_filters=4,levels=3", {"vary": "D=H=W", "batch": 1, "loss": "binary_cross_entropy"}, "20MiB"),
    ("unet3d:base_filters=4,levels=3", {"vary": "batch", "D": 16, "H": 16, "W": 16, "loss": "binary_cross_entropy"}, "30MiB"),
    ("mobilenet_v2", {"vary": "batch", "H": 64, "W": 64, "optimizer": "sgd:momentum=0.9"}, "120MiB"),
    ("mobilenet_v2", {"vary": "H=W", "batch": 2}, "90MiB"),
    ("resnet18", {"vary": "batch", "H": 64, "W": 64}, "130MiB"),
    ("resnet18", {"vary": "H", "batch": 2, "W": 64, "optimizer": "adam"}, "260MiB"),
)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "how", "budget"), MEASURED)
def test_torch_fits_there_and_not_at_the_next(model: str, how: dict[str, Any], budget: str, cpu: Cpu) -> None:
    from validation.execute import GraphModule
    from validation.protocol import inputs_for, measure_training

    graph = memest.model(model)
    found = memest.fit(graph, budget, machine=cpu, **how)
    assert found.sizes is not None and found.next_sizes is not None
    recipe = (how.get("optimizer", "sgd"), how.get("loss", "cross_entropy"))
    peaks = []
    for sizes in (found.sizes, found.next_sizes):
        shape = tuple(d if isinstance(d, int) else sizes["batch" if i == 0 else str(d)] for i, d in enumerate(graph.inputs[0].shape))
        peaks.append(measure_training(GraphModule(graph).train(), inputs_for([shape]), *recipe).peak_bytes)
    assert peaks == [found.peak_bytes, found.next_bytes]
    assert peaks[0] <= found.budget_bytes < peaks[1]


def test_the_front_is_of_pairs_none_of_which_can_grow() -> None:
    graph = memest.model("unet2d:base_filters=4,levels=2")
    found = memest.fit(graph, "8MiB", ["batch", "H=W"])
    pairs = [(f.sizes["batch"], f.sizes["H"]) for f in found.front if f.sizes]
    assert len(pairs) > 3 and pairs == sorted(pairs, reverse=True)
    assert all(f.peak_bytes is not None and f.peak_bytes <= 8 * 2**20 for f in found.front)
    for batch, side in pairs[:4]:
        more = memest.estimate(graph, input_shape=(batch + 1, 3, side, side))
        assert more.peak_bytes > 8 * 2**20


def test_steps_follow_the_network() -> None:
    found = memest.fit(memest.model("unet3d"), "2GiB", "D=H=W", batch=1, loss="binary_cross_entropy")
    assert found.step == (16,) and found.value is not None and found.value % 16 == 0


BAD: list[tuple[dict[str, Any], str]] = [
    ({"budget": "24"}, "no unit"),
    ({"budget": 0}, "positive whole number"),
    ({"budget": "1GiB", "vary": "bach"}, "did you mean 'batch'"),
    ({"budget": "1GiB", "vary": "batch"}, "give H=…, W=…"),
    ({"budget": "1GiB", "vary": "batch", "H": 32, "W": 0}, "W: sizes are positive integers"),
    ({"budget": "1GiB", "vary": "H=W", "batch": 1, "H": 32}, "H varies"),
    ({"budget": "1GiB", "vary": ["H", "H=W"], "batch": 1}, "name each size once"),
    ({"budget": "1GiB", "vary": "batch", "H": 32, "W": 32, "levers": ["micro_batch:size=1"]}, "another number of passes"),
]


@pytest.mark.parametrize(("how", "said"), BAD, ids=[said for _, said in BAD])
def test_bad_questions_are_refused(how: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        memest.fit(memest.model("unet2d:base_filters=4,levels=2"), **how)
