"""Attributes far beyond any network's: answered or refused, and soon, because no rule walks through them one by one."""

from __future__ import annotations

import time
from typing import Any

import pytest

import memest
from memest.errors import MemestError
from memest.libraries.onednn import brgemm_strided
from memest.libraries.onednn.rounding import round_up

HUGE = 10**9
USUAL = {"out_channels": 8, "kernel_size": 3, "stride": 1, "padding": 1, "dilation": 1, "groups": 1}
CONVOLUTIONS = ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
CPUS = (memest.Cpu(isa="avx512", bf16=True, threads=2), memest.Cpu(isa="avx2", threads=1))


def _widths(iw: int, sw: int) -> tuple[int, ...]:
    """As oneDNN walks: every number of parts."""
    width = round_up(iw, sw)
    splits = dict.fromkeys(-(-width // n) for n in range(1, width + 1))
    return tuple(w for w in splits if w % sw == 0 and (iw % sw or iw % w == 0))


def _aligned(block: int, size: int, stride: int) -> int:
    while block < size and (block % stride or (size % stride == 0 and size % block)):
        block += 1
    return block


def test_widths_and_blocks_of_a_strided_gradient_are_those_of_the_walk() -> None:
    for iw in range(1, 200):
        for sw in range(1, 20):
            assert brgemm_strided._width_candidates(iw, sw) == _widths(iw, sw)
    for size in range(1, 40):
        for stride in range(1, 14):
            for block in range(1, size + 2):
                assert brgemm_strided._align_block(block, size, stride) == _aligned(block, size, stride)


@pytest.mark.parametrize("op", CONVOLUTIONS)
@pytest.mark.parametrize(
    "huge",
    [("out_channels",), ("kernel_size",), ("stride",), ("padding",), ("dilation",), ("groups",), ("kernel_size", "padding", "stride")],
)
def test_a_convolution_with_huge_attributes_is_answered_or_refused_at_once(op: str, huge: tuple[str, ...]) -> None:
    settings = {**USUAL, **dict.fromkeys(huge, HUGE)}
    dims = int(op[-2])
    before = time.process_time()
    try:
        b = memest.Builder("net")
        x = b.input("input", ("N", 8, *("D", "H", "W")[-dims:]))
        graph = b.build(b.layer("relu", b.layer(op, x, **settings)))
    except MemestError as e:
        assert "please report" not in str(e)
        return
    hows: tuple[dict[str, Any], ...] = ({}, {"dtype": "bfloat16"}, *(({"levers": ["channels_last"]},) if dims > 1 else ()))
    asked = [(batch, cpu, how) for batch in (1, 2) for cpu in CPUS for how in hows]
    for batch, cpu, how in asked:
        try:
            memest.estimate(graph, input_shape=(batch, 8, *(16,) * dims), machine=cpu, **how)
        except MemestError as e:
            assert "please report" not in str(e)
    assert time.process_time() - before < len(asked)


@pytest.mark.parametrize(
    ("op", "settings", "said"),
    [
        ("tensor_split", {"indices_or_sections": HUGE}, "1,000,000,000 parts"),
        ("max_pool2d", {"kernel_size": HUGE}, "max_pool2d"),
        ("avg_pool2d", {"kernel_size": 3, "padding": HUGE}, "avg_pool2d"),
        ("unfold", {"kernel_size": 2, "dilation": HUGE}, "unfold"),
        ("chunk", {"chunks": HUGE}, None),
        ("max_pool2d", {"kernel_size": 2, "stride": HUGE}, None),
        ("adaptive_avg_pool2d", {"output_size": HUGE}, None),
        ("group_norm", {"num_groups": HUGE}, "group_norm"),
    ],
)
def test_other_operators_too(op: str, settings: dict[str, Any], said: str | None) -> None:
    before = time.process_time()
    b = memest.Builder("net")
    x = b.layer("relu", b.input("input", ("N", 8, "H", "W")))
    try:
        made = b.layer(op, x, **settings)
        b.build(*(made if isinstance(made, list | tuple) else (made,)))
        assert said is None
    except MemestError as e:
        assert said is not None and said in str(e) and "please report" not in str(e)
    assert time.process_time() - before < 1
