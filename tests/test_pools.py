"""Pools played one by one take what the whole allocator takes, block for block; and its numbers are those of the steps as events."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest

import memest
from memest.memory.allocators.blocks import Block
from memest.memory.allocators.caching import CachingAllocator
from memest.memory.allocators.replaying import Stretch, replay_stretches
from memest.memory.allocators.settings import read_settings
from memest.memory.listing import Form, Listing, Part
from memest.memory.stream import Storage
from memest.runtimes.torch.cuda.course import Course, course_of
from memest.runtimes.torch.cuda.playing import is_plain, play_pools, play_whole
from memest.runtimes.torch.cuda.replay import settings_for, streams_of
from memest.runtimes.torch.script import script

KIB, MIB = 1 << 10, 1 << 20
ROUNDED = ["", "large_segment_size_mb:64", "roundup_power2_divisions:4", "roundup_power2_divisions:[1:2,8:8,>:1]"]
HOW: dict[str, Any] = {"runtime": "torch-cuda", "torch": "2.14"}
CASES: list[dict[str, Any]] = [
    {"name": "resnet18", "shape": (5, 3, 96, 96), "machine": "t4", "optimizer": "adam"},
    {"name": "resnet18", "shape": (64, 3, 224, 224), "machine": "a100-40gb", "levers": ["channels_last", "autocast"]},
    {"name": "unet2d", "shape": (3, 3, 64, 64), "machine": "v100-32gb", "loss": "mse", "keep_grads": True},
    {"name": "densenet121", "shape": (7, 3, 128, 128), "machine": "h100-80gb", "optimizer": "sgd:momentum=0.9"},
    {"name": "mobilenet_v2", "shape": (9, 3, 160, 160), "machine": "h100-80gb", "optimizer": "adam", "first_step": True},
    {"name": "unet3d", "shape": (2, 1, 48, 48, 48), "machine": "t4", "mode": "infer"},
    {"name": "resnet18", "shape": (6, 3, 64, 64), "machine": "a100-40gb", "levers": ["fsdp:world=2"]},
    {"name": "resnet18", "shape": (6, 3, 64, 64), "machine": "a100-40gb", "levers": ["ddp:world=2"]},
    {"name": "resnet18", "shape": (6, 3, 64, 64), "machine": "a100-40gb", "levers": ["ddp:static_graph=true", "channels_last"]},
    {
        "name": "resnet18",
        "shape": (6, 3, 64, 64),
        "machine": "h100-80gb",
        "levers": ["ddp:gradient_as_bucket_view=true"],
        "first_step": True,
    },
    {"name": "resnet18", "shape": (6, 3, 64, 64), "machine": "h100-80gb", "levers": ["zero:stage=1"], "optimizer": "adam"},
    {"name": "resnet18", "shape": (6, 3, 64, 64), "machine": "a100-40gb", "levers": ["ddp:static_graph=true", "accumulate:steps=3"]},
]
NOT_PLAIN: list[dict[str, Any]] = [
    {"levers": ["accumulate:steps=4"]},
    {"levers": ["ddp", "accumulate:steps=3"]},
    {"levers": ["ddp:gradient_as_bucket_view=true", "accumulate:steps=3"]},
    {"cudnn_benchmark": True},
    {"cudnn_benchmark": True, "first_step": True},
    {"cudnn_benchmark": True, "levers": ["ddp:static_graph=true"]},
    {"alloc_conf": "expandable_segments:True"},
    {"alloc_conf": "max_split_size_mb:32"},
]


def a_size(rnd: random.Random) -> int:
    """Of any pool, often next to where a rule changes; 0 for what is not there."""
    edges = (0, 1, 512, 513, MIB - 512, MIB, MIB + 1, 2 * MIB, 10 * MIB - 1, 10 * MIB, 20 * MIB, 21 * MIB)
    near = max(0, rnd.choice(edges) + rnd.choice((-512, -1, 0, 1, 512)))
    return rnd.choice((near, rnd.randrange(1, 40 * KIB), rnd.randrange(MIB, 40 * MIB), 512 * rnd.randrange(1, 80_000)))


def a_listing(rnd: random.Random, residents: int, buckets: int = 0, remade_at: int = 0) -> Listing:
    """A first step, which may give its ``buckets`` back; or one of those that follow, before which buckets are ``remade``."""
    categories = ("parameter", "buffer", "input", "optimizer_state")
    storages = [Storage(n, 0, rnd.choice(categories[: 2 if n < residents // 2 else 4]), f"r{n}", "", "") for n in range(residents)]
    storages += [Storage(residents + n, 0, "gradient", f"bucket {n}", "", "") for n in range(buckets)]
    events: list[int] = []
    alive = list(range(residents, residents + buckets)) if rnd.random() < 0.3 and not remade_at else []
    outside = list(range(residents + buckets))
    rnd.shuffle(outside)
    for _ in range(rnd.randrange(3)):
        at = rnd.randrange(len(outside) + 1)
        outside[at:at] = [len(storages), ~len(storages)]
        storages.append(Storage(len(storages), 0, "temporary", "aside", "", ""))
    for _ in range(rnd.randrange(5, 160)):
        if alive and rnd.random() < 0.47:
            events.append(~alive.pop(rnd.choice((-1, -1, rnd.randrange(len(alive))))))
            continue
        storages.append(Storage(len(storages), 0, rnd.choice(("temporary", "activation", "optimizer_state", "gradient")), "l", "", ""))
        storages[-1].refs = rnd.randrange(2)
        storages[-1].stream = rnd.choice((0, 0, 0, 3))
        events.append(len(storages) - 1)
        alive.append(len(storages) - 1)
    sizes = [a_size(rnd) for _ in storages]
    before, remade = ((), tuple(outside)) if remade_at else (tuple(outside), ())
    return Listing(form=Form(residents + buckets, tuple(storages), (Part(tuple(events)),), before, remade, remade_at), sizes=sizes)


@pytest.mark.parametrize("text", ROUNDED)
def test_random_steps_take_pool_by_pool_what_they_take_together(text: str) -> None:
    settings, rnd = read_settings(text, (2, 14)), random.Random(text)
    for number in range(150):
        first = a_listing(rnd, rnd.randrange(12), rnd.randrange(4))
        remade_at = 0 if first.form.released else rnd.choice((0, 2, 3))
        asked = a_listing(rnd, 0, remade_at and rnd.randrange(1, 4), remade_at)
        names = frozenset(s.layer for s in first.form.storages if s.layer.startswith("r") and rnd.random() < 0.2)
        keeps = rnd.random() < 0.3
        steps = course_of(first, asked, converted=names, is_first=number % 5 == 0, keeps_gradients=keeps)
        sizes = steps.of_all(first.sizes, asked.sizes)
        streams = steps.of_all(streams_of(first.form), streams_of(asked.form)) if number % 3 else ()
        assert is_plain(settings, steps)
        assert play_pools(steps, sizes, streams, settings) == play_whole(steps, sizes, streams, CachingAllocator(settings))


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['name']}, {', '.join(c.get('levers', ())) or c['machine']}")
def test_networks_take_pool_by_pool_what_they_take_together(case: dict[str, Any]) -> None:
    how = {key: value for key, value in case.items() if key not in ("name", "shape")}
    found = memest.estimate(memest.model(case["name"]), input_shape=case["shape"], **HOW, **how)
    course, sizes, streams = course_and_sizes(found)
    settings = settings_for(found.recipe.target)
    assert is_plain(settings, course)
    taken = play_pools(course, sizes, streams, settings)
    assert taken == play_whole(course, sizes, streams, CachingAllocator(settings))
    assert taken[:3] == as_events(found, CachingAllocator(settings))


@pytest.mark.parametrize("more", NOT_PLAIN, ids=str)
def test_what_pools_do_not_tell_is_played_as_events(more: dict[str, Any]) -> None:
    found = memest.estimate(memest.model("resnet18"), input_shape=(6, 3, 64, 64), machine="a100-40gb", **HOW, **more)
    course, sizes, streams = course_and_sizes(found)
    settings = settings_for(found.recipe.target)
    assert not is_plain(settings, course)
    assert play_whole(course, sizes, streams, CachingAllocator(settings))[:3] == as_events(found, CachingAllocator(settings))


def course_and_sizes(found: memest.Estimate) -> tuple[Course, list[int], Sequence[int]]:
    """The course of steps that leads to an estimate's, what each number takes, and its stream."""
    steps = found.steps
    first, asked = steps.listed()
    course = course_of(
        first,
        asked,
        converted=steps.converted,
        is_first=steps.is_first,
        keeps_gradients=steps.keeps_gradients,
        whole=steps.whole,
    )
    return course, course.of_all(first.sizes, asked.sizes), course.of_all(streams_of(first.form), streams_of(asked.form))


@pytest.mark.parametrize("when", ["before", "late", "after", "in place"])
def test_a_whole_step_finds_what_the_one_before_left(when: str) -> None:
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 700, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(700 * 36, 50))
    optimizer = torch.optim.SGD(net.parameters(), momentum=0.9)

    def step(x: Any, y: Any) -> None:
        if when == "before":
            optimizer.zero_grad()
        found = net(x)
        if when == "late":
            optimizer.zero_grad()
        torch.nn.functional.cross_entropy(found, y).backward()
        optimizer.step()
        if when in ("after", "in place"):
            optimizer.zero_grad(set_to_none=when == "after")

    graph = memest.from_step(step, torch.rand(8, 3, 8, 8), torch.zeros(8, dtype=torch.int64))
    weights = sum(p.numel() * 4 for p in net.parameters())
    asked: dict[str, Any] = {"machine": "a100-40gb", "torch": "2.14"}
    compiled = {n: memest.estimate(graph, input_shape=[(n, 3, 8, 8), (n,)], **asked) for n in (8, 9, 10, 11, 300)}
    assert [found.figures for found in compiled.values()]
    assert any(known.known for known in graph.memo.shelf("lowered", 1).values())
    for batch, found in compiled.items():
        settings = settings_for(found.recipe.target)
        course, sizes, streams = course_and_sizes(found)
        assert is_plain(settings, course) == (when in ("after", "in place"))
        taken = play_whole(course, sizes, streams, CachingAllocator(settings))
        assert taken[:3] == as_events(found, CachingAllocator(settings))
        assert found.allocated.bytes == taken.allocated or found.allocated.claim == "modelled"
        assert found.standing_bytes - 2 * weights > (0 if when == "after" else weights)
        graph.memo.clear()
        alone = memest.estimate(graph, input_shape=[(batch, 3, 8, 8), (batch,)], **asked)
        assert (found.figures, found.summary) == (alone.figures, alone.summary)


def as_events(found: memest.Estimate, player: CachingAllocator) -> tuple[int, int, int]:
    """What the last step of the script takes."""
    events, begins = script(found.steps)
    streams = {e.storage.id: e.storage.stream for e in events if e.storage.stream}
    trials = {e.storage.id for e in events if e.storage.empties}
    live: dict[int, Block] = {}
    for start, end in pairwise((0, *begins, len(events))):
        moves = [(e.delta, e.storage.id) for e in events[start:end]]
        last = replay_stretches((Stretch(moves),), player, live, streams, trials)
        if events[end - 1].op == "empty_cache":
            player.empty_cache()
    return last.allocated, last.allocated_at, last.reserved
