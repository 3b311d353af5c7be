"""Products of matrices, attention and indexing on CUDA: what torch 2.14's CUDA build asked for on three cards, event by event
(tests/data/cuda_products.jsonl); which kernel attention takes; what CUB asks for; sizes that are symbols."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from memest.errors import UnsupportedError
from memest.libraries import cub_sorting
from memest.machines.cuda import CudaSettings
from memest.machines.devices import device_named
from memest.machines.gpu import Gpu
from memest.machines.target import Target
from memest.network.tensor import Shape, Spec, channels_last_strides, contiguous_strides
from memest.runtimes.table import runtime_named
from memest.runtimes.torch.autograd import AccumulateGrad, Machine
from memest.runtimes.torch.cuda.attention_choice import Call, chosen
from memest.runtimes.torch.cuda.attention_flash import splits
from memest.runtimes.torch.ledger import Ledger, Value
from memest.runtimes.torch.step import Caller

CASES = [json.loads(line) for line in (Path(__file__).parent / "data" / "cuda_products.jsonl").read_text().splitlines()]
HALF = "float16"


def on(card: str, version: str = "2.14", **settings: Any) -> Target:
    machine = Gpu(name=card, memory_bytes=10**11, device=device_named(card))
    return runtime_named("torch-cuda").target(machine, version, None, CudaSettings(**settings))


class Played:
    """A call forward and backward on the timeline."""

    def __init__(self, target: Target, training: bool = True) -> None:
        self.ledger = Ledger(begun=False)
        self.machine = Machine(self.ledger, training, target)
        self.rows = runtime_named("torch-cuda").rows
        self.caller = Caller(self.machine, training, None, self.rows)

    def value(self, shape: Shape, dtype: str = "float32", strides: Shape | None = None, grad: bool = True) -> Value:
        spec = Spec(shape, contiguous_strides(shape) if strides is None else strides, dtype)
        name = f"x{len(self.ledger.residents)}"
        v = self.ledger.hold(Value(spec, self.ledger.resident(0, "input", name)))
        if grad:
            v.node, v.requires_grad = AccumulateGrad(v, name), True
        return v

    def run(self, op: str, arguments: list[Any], attributes: dict[str, Any]) -> list[int]:
        row = self.rows[op]
        given = tuple(row.canonical(attributes).items())
        outputs = [self.ledger.hold(v) for v in self.caller.run(row, arguments, given) if v is not None]
        out = next((v for v in outputs if v.requires_grad), None)
        for v in outputs:
            if v is not out:
                self.ledger.let_go(v)
        if out is not None:
            gradient = self.ledger.hold(Value(_like(out.spec), self.ledger.resident(0, "gradient", "ones")))
            self.ledger.phase = "backward"
            self.machine.backward(out, gradient)
            self.ledger.let_go(out)
        return [e.delta for e in self.ledger.events]


def _like(spec: Spec) -> Spec:
    """``ones_like`` of a dense tensor lies as it does."""
    return spec


def _strides(shape: Shape, layout: str) -> Shape:
    if layout == "channels_last":
        return channels_last_strides(shape)
    if layout == "transposed":
        turned = contiguous_strides((shape[-1], *shape[1:-1], shape[0])) if len(shape) > 1 else contiguous_strides(shape)
        return (turned[-1], *turned[1:-1], turned[0]) if len(shape) > 1 else turned
    return contiguous_strides(shape)


def _arguments(played: Played, case: dict[str, Any]) -> list[Any]:
    dtypes = iter([*case["dtypes"], *["float32"] * 8])
    made: list[Any] = []
    for i, shape in enumerate(case["shapes"]):
        group = bool(shape) and isinstance(shape[0], list)
        values = []
        for j, s in enumerate(shape if group else [shape]):
            dtype = next(dtypes)
            if s is not None:
                grad = i not in case["frozen"] and dtype.startswith(("float", "bfloat"))
                values.append(played.value(tuple(s), dtype, _strides(tuple(s), case["layout"] if (i, j) == (0, 0) else ""), grad))
        made.append(values if group else values[0] if values else None)
    return made


def _plain(attributes: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(v) if isinstance(v, list) else v for name, v in attributes.items()}


def _in_order(deltas: list[int]) -> list[int]:
    """Releases between two allocations happen at one moment."""
    out: list[int] = []
    run: list[int] = []
    for d in [*deltas, 0]:
        if d < 0:
            run.append(d)
        else:
            out += [*sorted(run), d]
            run = []
    return out[:-1]


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['row']} {c['shapes']} {c['dtypes'][0]}")
def test_a_call_asks_for_what_torch_asked_for(case: dict[str, Any]) -> None:
    for card, events in case["events"].items():
        played = Played(on(card))
        assert _in_order(played.run(case["row"], _arguments(played, case), _plain(case["attributes"]))) == events, card


def test_the_cases_tell_cards_apart() -> None:
    seen = Counter(case["row"] for case in CASES)
    assert seen["scaled_dot_product_attention"] > 20 and seen["index"] > 4
    assert sum(len({tuple(e) for e in case["events"].values()}) > 1 for case in CASES) > 20


def _call(shape: Shape, dtype: str = HALF, **changed: Any) -> Call:
    played = Played(on("t4"))
    query, key, value = (played.value(changed.pop(name, shape), dtype) for name in ("query", "key", "value"))
    mask = changed.pop("mask", None)
    given = {"dropout_p": 0.0, "is_causal": False, "enable_gqa": False, "trained": True, **changed}
    return Call(query=query, key=key, value=value, mask=None if mask is None else played.value(mask, dtype, grad=False), **given)


HEADS = (2, 4, 100, 64)


@pytest.mark.parametrize(
    ("card", "call", "kernel"),
    [
        ("h100-80gb", _call(HEADS), "cudnn"),
        ("a100-40gb", _call(HEADS), "flash"),
        ("t4", _call(HEADS), "efficient"),
        ("t4", _call(HEADS, "bfloat16"), "math"),
        ("h100-80gb", _call(HEADS, "float32"), "efficient"),
        ("h100-80gb", _call(HEADS, "float64"), "math"),
        ("h100-80gb", _call(HEADS, dropout_p=0.1), "flash"),
        ("h100-80gb", _call(HEADS, dropout_p=0.125), "cudnn"),
        ("h100-80gb", _call((2, 4, 100, 12)), "flash"),
        ("h100-80gb", _call((2, 4, 100, 136)), "flash"),
        ("h100-80gb", _call((2, 4, 100, 136), trained=False), "cudnn"),
        ("h100-80gb", _call(HEADS, mask=(2, 100, 100)), "efficient"),
        ("a100-40gb", _call(HEADS, mask=(100, 100)), "efficient"),
        ("a100-40gb", _call(HEADS, key=(2, 4, 90, 64), value=(2, 4, 90, 64), is_causal=True), "efficient"),
        ("a100-40gb", _call(HEADS, "float32", key=(2, 2, 100, 64), value=(2, 2, 100, 64)), "math"),
        ("a100-40gb", _call(HEADS, "float32", key=(2, 2, 100, 64), value=(2, 2, 100, 64), enable_gqa=True), "efficient"),
        ("a100-40gb", _call((2, 4, 100, 10), "float32"), "math"),
        ("t4", _call((2, 4, 100, 10), "float32"), "efficient"),
    ],
)
def test_attention_takes_the_kernel_that_torch_takes(card: str, call: Call, kernel: str) -> None:
    assert chosen(on(card), call) == kernel


def test_an_older_cudnn_is_not_preferred() -> None:
    assert chosen(on("h100-80gb", cudnn=(9, 10)), _call(HEADS)) == "flash"


def test_what_cudnn_takes_for_attention_is_said_to_be_modelled() -> None:
    played = Played(on("h100-80gb"))
    operands = [played.value(HEADS, HALF) for _ in range(3)]
    played.run("scaled_dot_product_attention", [*operands, None], {})
    spreads = [s for e in played.ledger.events if (s := getattr(e, "spread", None) or getattr(getattr(e, "storage", None), "spread", None))]
    assert spreads


def test_keys_are_split_until_multiprocessors_are_busy() -> None:
    assert [splits(216, blocks, cols) for blocks, cols in ((6, 2), (1, 8), (173, 8), (216, 8))] == [2, 8, 1, 1]


def test_cub_sorts_a_tile_for_nothing_and_more_with_copies() -> None:
    device = device_named("h100-80gb")
    assert device is not None
    asked = [cub_sorting.sorting_bytes(device, *n) for n in ((2304, 5), (60000, 5), (200000, 5), (100000, 15), (1000000, 15), (50000, 25))]
    assert asked == [1, 16895, 47615, 1627135, 16227839, 820223]
    assert all(cub_sorting.most_bytes_of_sorting(n) >= cub_sorting.sorting_bytes(device, n, 63) for n in (1, 2305, 10**5, 10**8))


def test_columns_by_rows_need_no_workspace_where_triton_multiplies_them() -> None:
    for version, kept in (("2.14", False), ("2.12", True)):
        played = Played(on("a100-40gb", version), training=False)
        operands = [played.value(shape, grad=False) for shape in ((3, 5, 1), (3, 1, 7))]
        assert (8519680 in played.run("bmm", operands, {})) is kept


@pytest.mark.parametrize(
    ("bias", "matrix", "attributes", "by_lt"),
    [
        ((100,), (8, 512), {}, True),
        ((1, 100), (8, 512), {"alpha": 2}, True),
        ((100,), (1, 512), {}, True),
        ((8, 100), (8, 512), {}, False),
        ((1,), (8, 512), {}, False),
        ((100,), (8, 1), {}, False),
        ((100,), (8, 512), {"beta": 2}, False),
    ],
)
def test_up_to_2_11_what_adds_a_bias_has_a_workspace_of_its_own(
    bias: Shape, matrix: Shape, attributes: dict[str, float], by_lt: bool
) -> None:
    """As torch 2.11.0, 2.12.1 and 2.13.0 took on the stand-in."""
    for version, own in (("2.11", [1 << 20]), ("2.12", [])):
        played = Played(on("a100-40gb", version), training=False)
        operands = [played.value(shape, grad=False) for shape in (bias, matrix, (matrix[1], 100))]
        found = played.run("addmm", operands, attributes)
        assert [n for n in found[1:] if n > 0] == [8519680, *(own if by_lt else [])]


def test_that_workspace_is_no_larger_than_cublass() -> None:
    for config, workspaces in ((":16:8", [131072, 131072]), (":0:0", []), (":4096:8", [33554432, 1 << 20])):
        played = Played(on("h100-80gb", "2.11", cublas_workspace=config), training=False)
        operands = [played.value(shape, grad=False) for shape in ((100,), (8, 512), (512, 100))]
        assert [n for n in played.run("addmm", operands, {})[1:] if n > 0] == workspaces


def test_integers_are_not_multiplied_on_cuda() -> None:
    played = Played(on("a100-40gb"))
    with pytest.raises(UnsupportedError, match="on CUDA"):
        played.run("mm", [played.value((3, 4), "int64", grad=False), played.value((4, 5), "int64", grad=False)], {})
