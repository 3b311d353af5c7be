"""Pools played one by one take what the whole allocator takes, block for block; and its numbers are those of the steps as events."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest

import memest
from memest.memory.allocators.blocks import Block
from memest.memory.allocators.caching import CachingAllocator
from memest.memory.allocators.replaying import replay
from memest.memory.allocators.settings import read_settings
from memest.memory.listing import Form, Listing, Part
from memest.memory.stream import Storage
from memest.runtimes.torch.cuda.course import course_of
from memest.runtimes.torch.cuda.playing import is_plain, play_pools, play_whole
from memest.runtimes.torch.cuda.replay import script, settings_for, streams_of

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
]


def a_size(rnd: random.Random) -> int:
    """Of any pool, often next to where a rule changes; 0 for what is not there."""
    edges = (0, 1, 512, 513, MIB - 512, MIB, MIB + 1, 2 * MIB, 10 * MIB - 1, 10 * MIB, 20 * MIB, 21 * MIB)
    near = max(0, rnd.choice(edges) + rnd.choice((-512, -1, 0, 1, 512)))
    return rnd.choice((near, rnd.randrange(1, 40 * KIB), rnd.randrange(MIB, 40 * MIB), 512 * rnd.randrange(1, 80_000)))


def a_listing(rnd: random.Random, residents: int) -> Listing:
    categories = ("parameter", "buffer", "input", "optimizer_state")
    storages = [Storage(n, 0, rnd.choice(categories[: 2 if n < residents // 2 else 4]), f"r{n}", "", "") for n in range(residents)]
    events: list[int] = []
    alive: list[int] = []
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
    return Listing(form=Form(residents, tuple(storages), (Part(tuple(events)),)), sizes=sizes)


@pytest.mark.parametrize("text", ROUNDED)
def test_random_steps_take_pool_by_pool_what_they_take_together(text: str) -> None:
    settings, rnd = read_settings(text, (2, 14)), random.Random(text)
    for number in range(150):
        first, asked = a_listing(rnd, rnd.randrange(12)), a_listing(rnd, 0)
        names = frozenset(s.layer for s in first.form.storages if rnd.random() < 0.2)
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
    settings = settings_for(found.recipe.target)
    steps = found.steps
    first, asked = steps.listed()
    made = course_of(first, asked, converted=steps.converted, is_first=steps.is_first, keeps_gradients=steps.keeps_gradients)
    sizes = made.of_all(first.sizes, asked.sizes)
    streams = made.of_all(streams_of(first.form), streams_of(asked.form))
    taken = play_pools(made, sizes, streams, settings)
    assert taken == play_whole(made, sizes, streams, CachingAllocator(settings))
    if found.recipe.parallel is None:  # else streams, and buckets that are made anew, which a picture does without
        assert taken[:3] == as_events(found, CachingAllocator(settings))


def as_events(found: memest.Estimate, player: CachingAllocator) -> tuple[int, int, int]:
    """What the last step of the script takes."""
    events, begins = script(found.steps)
    live: dict[int, Block] = {}
    for start, end in pairwise((0, *begins, len(events))):
        last = replay([(e.delta, e.storage.id) for e in events[start:end]], allocator=player, live=live)
        if events[end - 1].op == "empty_cache":
            player.empty_cache()
    return last.allocated, last.allocated_at, last.reserved
