"""Reductions on CUDA: the buffers that torch 2.14's CUDA build asked for on four cards, event by event (tests/data/cuda_reductions.jsonl);
the bound of what they hold; many sizes at once."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memest.machines.devices import device_named
from memest.machines.gpu import Gpu
from memest.machines.target import Target
from memest.network.dtypes import ITEMSIZE
from memest.network.tensor import Spec, contiguous_strides
from memest.ops.aten import cuda_reduce
from memest.ops.aten.reductions import sum_to
from memest.ops.searched import InnerPeak, Size
from memest.ops.tape import Tape, Tensor
from memest.runtimes.table import runtime_named
from memest.sizes.columns import by_lanes

CASES = [json.loads(line) for line in (Path(__file__).parent / "data" / "cuda_reductions.jsonl").read_text().splitlines()]
CARDS = tuple(CASES[0]["events"])


def on(card: str) -> Target:
    machine = Gpu(name=card, memory_bytes=10**11, device=device_named(card))
    return runtime_named("torch-cuda").target(machine, "2.14", None)


def held(case: dict[str, Any], card: str) -> list[int]:
    """Bytes asked for and, negative, given back, in order."""
    k = Tape(1, (False,), True, on(card))
    source = Tensor(tuple(case["shape"]), tuple(case["strides"]), case["dtype"], 0)
    kernel = getattr(cuda_reduce, case["kernel"])(case["dtype"], case["out"])
    out_bytes = 8 if case["kernel"] == "located" else ITEMSIZE[case["out"]]
    cuda_reduce.reduce(k, source, case["dims"], kernel, case["keepdim"], out_bytes)
    sizes: dict[int, int] = {}
    events = []
    for event in k.finish((source,), ()).events:
        sizes.setdefault(event.slot, event.nbytes)
        events.append(event.nbytes if event.nbytes >= 0 else -sizes[event.slot])
    return events


@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['kernel']} {c['dtype']} {c['shape']}")
def test_a_reduction_asks_for_what_torch_asked_for(case: dict[str, Any], card: str) -> None:
    assert held(case, card) == case["events"][card]


def test_the_cases_tell_cards_and_kernels_apart() -> None:
    staged = [c["events"] for c in CASES if any(c["events"].values())]
    assert sum(len({tuple(e) for e in events.values()}) > 2 for events in staged) > 10
    assert {c["kernel"] for c in CASES if any(c["events"].values())} == {
        "summing",
        "averaging",
        "welford",
        "unchanged",
        "judging",
        "located",
    }


def test_blocks_meet_from_256_values_a_thread_on() -> None:
    """One row of an H100: 512 threads of a block, 256 values each."""
    case = {"kernel": "summing", "dtype": "float32", "out": "float32", "strides": [1], "dims": [0], "keepdim": False}
    assert held(case | {"shape": [512 * 255]}, "h100-80gb") == []
    assert held(case | {"shape": [512 * 255 + 1]}, "h100-80gb") == [4 * 16, 4, -4, -4 * 16]


def peaks(seed: int, count: int) -> list[InnerPeak]:
    """Random reductions whose first size is open."""
    rnd, found = random.Random(seed), []
    for _ in range(count):
        inner = tuple(rnd.choice([1, 3, 8, 32, 64, 97, 512]) for _ in range(rnd.randint(1, 3)))
        dtype = rnd.choice(["float32", "float16", "float64"])
        kernel = rnd.choice([cuda_reduce.summing, cuda_reduce.averaging, cuda_reduce.welford, cuda_reduce.located])(dtype, dtype)
        step, strides = 1, []
        for n in reversed(inner):
            strides.insert(0, step)
            step *= n
        gone = tuple(sorted(rnd.sample(range(len(inner) + 1), rnd.randint(1, len(inner) + 1))))
        attributes = (("gone", gone), ("compiled", kernel), ("keepdim", rnd.random() < 0.5), ("out_bytes", 8))
        found.append(
            InnerPeak(
                kernel=cuda_reduce._run, bound=cuda_reduce.most, operands=(((Size(0), *inner), (step, *strides), dtype),),
                attributes=attributes, needs=(False,), training=True, target=on(rnd.choice(CARDS)),
            )
        )  # fmt: skip
    return found


BATCHES = [1, 2, 7, 64, 100, 1000, 4096, 30_000, 1_000_000]


@pytest.mark.slow
def test_many_sizes_at_once_are_each_as_if_alone_and_within_the_bound() -> None:
    some = 0
    for peak in peaks(5, 150):
        alone = [peak.play((n,)) for n in BATCHES]
        some += any(alone)
        assert by_lanes(lambda *at, peak=peak: peak.play(at), [np.array(BATCHES)]).tolist() == alone
        assert all(held <= max(peak.most(n)) for held, n in zip(alone, BATCHES, strict=True)), peak
    assert some > 50


def test_a_sum_over_a_broadcast_batch_is_staged_as_at_sum_does() -> None:
    """The gradient of a bias of 3,072 units over 6,304 rows, float32, on an H100."""
    k = Tape(1, (False,), True, on("h100-80gb"))
    source = Tensor((6304, 3072), contiguous_strides((6304, 3072)), "float32", 0)
    out = sum_to(k, source, (3072,))
    events = k.finish((source,), (out,)).events
    assert [e.nbytes for e in events if e.nbytes > 0] == [4 * 3072, 138412032, 96]
    assert Spec(*out.spec) == Spec((3072,), (1,), "float32")
