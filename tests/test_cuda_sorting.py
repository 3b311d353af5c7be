"""Sorting and embedding on CUDA: CUB's storage by card, and the kernels for many sizes at once."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from memest.libraries.cub import scanning_by_key_bytes, unique_bytes
from memest.libraries.cub_sorting import is_counted, sorting_bytes
from memest.machines.devices import device_named
from memest.machines.gpu import Device, Gpu
from memest.machines.target import Target
from memest.network.tensor import contiguous_strides
from memest.ops.searched import InnerPeak, Size
from memest.runtimes.table import runtime_named
from memest.runtimes.torch.cuda import embedding, sorting
from memest.sizes.columns import by_lanes

CARDS = ("h100-80gb", "a100-40gb", "t4", "rtx-5090")


def device(name: str) -> Device:
    found = device_named(name)
    assert found is not None
    return found


def on(card: str, version: str = "2.14") -> Target:
    return runtime_named("torch-cuda").target(Gpu(name=card, memory_bytes=10**11, device=device(card)), version, None)


@pytest.mark.parametrize(
    ("card", "asked"),
    [
        ("h100-80gb", [51140095, 59391, 47103, 4607, 116223, 821247]),
        ("t4", [None, 60415, 905983, 492287, 233983, 814079]),
        ("a100-40gb", [None, None, None, None, None, 821247]),
    ],
)
def test_a_sort_asks_for_what_torch_asked_for(card: str, asked: list[int | None]) -> None:
    """4 Mi and 4,097 floats, as many halves and bytes, each with its place; 635,000 places by one digit; 100,000 int32 by 9 bits."""
    calls = [(4 << 20, 32, 4, 8), (4097, 32, 4, 8), (4097, 16, 2, 8), (4097, 8, 1, 8), (635_000, 1, 8, 0), (100_000, 9, 4, 4)]
    found = [sorting_bytes(device(card), *call) for call in calls]
    assert [a for a in asked if a is not None] == [f for f, a in zip(found, asked, strict=True) if a is not None]


def test_narrow_keys_are_counted_before_hopper_by_as_many_blocks_as_fit() -> None:
    """How many that is depends on registers: between one a multiprocessor and what its threads allow."""
    assert [is_counted(device(card), 2) for card in CARDS] == [False, True, True, False]
    assert not any(is_counted(device(card), 4) for card in CARDS)
    low, high = (sorting_bytes(device("t4"), 5000, 16, 2, 8, crowded=crowded) for crowded in (False, True))
    assert 0 < low < high


@pytest.mark.parametrize(
    ("card", "runs", "sums", "halved"),
    [("h100-80gb", 4351, 10751, 2559), ("a100-40gb", 13055, 11519, 2559), ("t4", 51199, 11519, 3839)],
)
def test_runs_of_keys_ask_for_the_state_of_each_tile(card: str, runs: int, sums: int, halved: int) -> None:
    """As torch asked for 1,000,003 int64, and for sums of 300,000 int32."""
    assert unique_bytes(device(card), 1_000_003, 8) == runs
    assert scanning_by_key_bytes(device(card), 1_000_003, 8) == sums
    assert scanning_by_key_bytes(device(card), 300_000, 4) == halved


def test_embedding_sorts_by_all_bits_before_2_13_and_adds_parts_apart_before_2_11() -> None:
    peaks = [_embedding("h100-80gb", version, 8, 300, False).play((100_000,)) for version in ("2.14", "2.13", "2.12", "2.11", "2.9")]
    assert peaks[0] == peaks[1] < peaks[2] == peaks[3]
    assert peaks[2] - peaks[1] == 6 * 256 * 8  # six more digits, a histogram each
    wide = [_embedding("h100-80gb", version, 800, 300, False).play((100_000,)) for version in ("2.11", "2.9")]
    assert wide[0] < wide[1]


# many sizes at once ------------------------------------------------------------------------------------------------------


def _peak(kernel: Any, bound: Any, card: str, version: str, operands: tuple[Any, ...], **attributes: Any) -> InnerPeak:
    return InnerPeak(
        kernel=kernel, bound=bound, operands=operands, attributes=tuple(attributes.items()), needs=(False,) * len(operands),
        training=True, target=on(card, version),
    )  # fmt: skip


def _embedding(card: str, version: str, width: int, rows: int, scaled: bool) -> InnerPeak:
    grad = ((Size(0), width), (width, 1), "float32")
    return _peak(embedding._gradient, embedding._most, card, version, (((Size(0),), (1,), "int64"), grad), rows=rows, scaled=scaled)


def _random(rnd: random.Random) -> InnerPeak:
    card, dtype = rnd.choice(CARDS), rnd.choice(("float32", "float16", "float64"))
    if rnd.random() < 0.3:
        return _embedding(card, "2.14", rnd.choice((1, 8, 300)), rnd.choice((5, 300, 40_000)), rnd.random() < 0.3)
    inner = rnd.choice(((), (4,), (45,), (5000,), (3, 20_000)))
    shape, strides = (Size(0), *inner), contiguous_strides((1, *inner))
    operand, dim = (shape, strides, dtype), rnd.randrange(len(shape))
    if rnd.random() < 0.5:
        return _peak(sorting._sorted, sorting._most, card, "2.14", (operand, operand), dim=dim)
    number = rnd.choice((1, 7)) if dim == 0 else rnd.choice((1, shape[dim]))
    given: dict[str, Any] = {"number": number, "dim": dim, "ordered": rnd.random() < 0.8}
    return _peak(sorting._largest, sorting._most_of_largest, card, "2.14", (operand,), **given)


SIZES = [7, 64, 400, 1000, 4096, 4097, 30_000, 1_000_000]


@pytest.mark.slow
def test_many_sizes_at_once_are_each_as_if_alone_and_within_the_bound() -> None:
    rnd = random.Random(8)
    for _ in range(120):
        peak = _random(rnd)
        alone = [peak.play((n,)) for n in SIZES]
        assert by_lanes(lambda *at, peak=peak: peak.play(at), [np.array(SIZES)]).tolist() == alone
        assert all(held <= max(peak.most(n)) for held, n in zip(alone, SIZES, strict=True)), (peak, alone)
