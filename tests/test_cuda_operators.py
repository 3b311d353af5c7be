"""Operators on CUDA, forward and backward, at sizes and layouts that the rows' examples do not have: event by event what torch 2.14's CUDA
build asked for on two cards (tests/data/cuda_operators.jsonl; releases between two requests stand in order of size)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from memest.errors import UnsupportedError
from memest.libraries.cub import counting_bytes, scanning_bytes, selecting_bytes
from memest.machines.devices import device_named
from memest.machines.gpu import Gpu
from memest.machines.target import Target
from memest.network.dtypes import FLOATING
from memest.network.tensor import Spec, channels_last_strides, contiguous_strides
from memest.ops.aten.iterator import preserved_strides
from memest.ops.tape import Tensor
from memest.runtimes.table import runtime_named
from memest.runtimes.torch.autograd import AccumulateGrad, Machine
from memest.runtimes.torch.ledger import Ledger, Value
from memest.runtimes.torch.step import Caller

CASES = [json.loads(line) for line in (Path(__file__).parent / "data" / "cuda_operators.jsonl").read_text().splitlines()]
RUNTIME = runtime_named("torch-cuda")


def on(card: str) -> Target:
    machine = Gpu(name=card, memory_bytes=10**11, device=device_named(card))
    return RUNTIME.target(machine, "2.14", None)


def laid(shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    if layout == "channels_last":
        return channels_last_strides(shape)
    if layout == "transposed":
        return (1, *contiguous_strides(tuple(reversed(shape)))[:-1][::-1])
    return contiguous_strides(shape)


def played(case: dict[str, Any], card: str) -> list[int]:
    """The call, and backward from a gradient of ones."""
    target = on(card)
    ledger = Ledger(begun=False)
    machine = Machine(ledger, True, target)
    caller = Caller(machine, True, None, RUNTIME.rows)
    row = RUNTIME.rows[case["op"]]
    dtypes = [*case["dtypes"], *["float32"] * 8]
    arguments = []
    for i, shape in enumerate(case["shapes"]):
        if shape is None:
            arguments.append(None)
            continue
        spec = Spec(tuple(shape), laid(tuple(shape), case["layout"] if i == 0 else "contiguous"), dtypes[i])
        value = ledger.hold(Value(spec, ledger.resident(0, "input", f"x{i}")))
        if spec.dtype in FLOATING and i not in case["frozen"]:
            value.node, value.requires_grad = AccumulateGrad(value, f"x{i}"), True
        arguments.append(value)
    attributes = {k: tuple(v) if isinstance(v, list) else v for k, v in case["attributes"].items()}
    outputs = [ledger.hold(v) for v in caller.run(row, arguments, tuple(row.canonical(attributes).items())) if v is not None]
    out = next((v for v in outputs if v.requires_grad), None)
    for v in outputs:
        if v is not out:
            ledger.let_go(v)
    if out is not None:
        spec = Spec(out.spec.shape, preserved_strides(Tensor(*out.spec, 0)), out.spec.dtype)
        ones = ledger.hold(Value(spec, ledger.resident(0, "gradient", "ones")))
        ledger.phase = "backward"
        machine.backward(out, ones)
        ledger.let_go(out)
    return ordered([event.delta for event in ledger.events])


def ordered(deltas: list[int]) -> list[int]:
    """Releases between two requests in order of size, nothing for what has no bytes."""
    found: list[int] = []
    run: list[int] = []
    for d in deltas:
        if d < 0:
            run.append(d)
        elif d:
            found += [*sorted(run), d]
            run = []
    return found + sorted(run)


@pytest.mark.parametrize("card", ["h100-80gb", "t4"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['op']} {c['shapes'][0]} {c['layout']}")
def test_an_operator_asks_for_what_torch_asked_for(case: dict[str, Any], card: str) -> None:
    assert played(case, card) == case["events"][card]


MILLION, PIECE = 2**20, 2**30


@pytest.mark.parametrize(
    ("dtype", "small", "large"),
    [("float32", 5375, 4474879), ("int64", 19967, 19175167), ("float16", 3327, 2237951), ("uint8", 1791, 1119231)],
)
def test_scans_ask_for_the_state_of_each_tile(dtype: str, small: int, large: int) -> None:
    """As torch asked on every card: a running sum of 2**20 and of 2**30 elements."""
    assert [scanning_bytes(n, dtype) for n in (MILLION, PIECE)] == [small, large]


@pytest.mark.parametrize(
    ("card", "counted", "small", "large"),
    [("h100-80gb", 21503, 2815, 2034431), ("a100-40gb", 17663, 4607, 3729151), ("t4", 3583, 14079, 13422591)],
)
def test_masks_are_counted_and_their_places_selected(card: str, counted: int, small: int, large: int) -> None:
    """As torch asked: how many are true among 2**20, where among 2**20 and 2**30; up to 4,096 are counted by one block."""
    device = on(card).device
    low, high = counting_bytes(device, MILLION)
    assert high == counted > low > 255
    assert [counting_bytes(device, n)[1] for n in (4096, 4097)] == [1, counted]
    assert [selecting_bytes(device, n) for n in (MILLION, PIECE)] == [small, large]


def test_nll_loss2d_has_no_gradient_for_channels_last() -> None:
    case = {"op": "nll_loss2d_forward", "shapes": [[2, 5, 3, 4], [2, 3, 4], None], "attributes": {}, "dtypes": ["float32", "int64"]}
    with pytest.raises(UnsupportedError, match="not contiguous on CUDA"):
        played(case | {"layout": "channels_last", "frozen": []}, "h100-80gb")
