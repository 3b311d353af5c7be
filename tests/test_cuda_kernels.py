"""Convolutions, pooling, resampling, padding, normalizations, dropout and activations on CUDA: what torch 2.14's CUDA build asked for on an
H100 without the card, forward and backward, event by event (tests/data/cuda_kernels.jsonl). cuDNN's answers are part of the cases."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from memest.errors import UnsupportedError
from memest.libraries.cudnn import Workspace
from memest.machines.cuda import CudaSettings
from memest.machines.devices import device_named
from memest.machines.gpu import Gpu
from memest.machines.target import Target
from memest.network.tensor import Spec, channels_last_strides, contiguous_strides
from memest.ops.tape import Tape, Tensor
from memest.runtimes.table import runtime_named
from memest.runtimes.torch.autograd import AccumulateGrad, Machine
from memest.runtimes.torch.cuda import convolution
from memest.runtimes.torch.ledger import Ledger, Value
from memest.runtimes.torch.step import Caller

CASES = [json.loads(line) for line in (Path(__file__).parent / "data" / "cuda_kernels.jsonl").read_text().splitlines()]
RUNTIME = runtime_named("torch-cuda")


def on(card: str, version: str = "2.14") -> Target:
    return RUNTIME.target(Gpu(name=card, memory_bytes=10**11, device=device_named(card)), version, None)


def spec(parts: list[Any]) -> Spec:
    return Spec(tuple(parts[0]), tuple(parts[1]), parts[2])


def attributes(given: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


def played(case: dict[str, Any]) -> list[int]:
    """The call, then its output's gradient sent into it."""
    ledger = Ledger(begun=False)
    machine = Machine(ledger, True, on("h100-80gb"))
    caller = Caller(machine, True, None, RUNTIME.rows)
    arguments = []
    for i, parts in enumerate(case["tensors"]):
        value = None
        if parts is not None:
            value = ledger.hold(Value(spec(parts), ledger.resident(0, "input", f"x{i}")))
            if parts[3] and "float" in parts[2]:
                value.node, value.requires_grad = AccumulateGrad(value, f"x{i}"), True
        arguments.append(value)
    row = RUNTIME.rows[case["op"]]
    called = caller.run(row, arguments, tuple(row.canonical(attributes(case["attributes"])).items()))
    outputs = [ledger.hold(v) for v in called if v is not None]
    out = next((v for v in outputs if v.requires_grad), None)
    for v in outputs:
        if v is not out:
            ledger.let_go(v)
    if out is not None:
        gradient = ledger.hold(Value(spec(case["gradient"]), ledger.resident(0, "gradient", "ones")))
        ledger.phase = "backward"
        machine.backward(out, gradient)
        ledger.let_go(out)
    return normalized([event.delta for event in ledger.events])


def normalized(events: list[int]) -> list[int]:
    """Without empty tensors, and what is dropped in a row largest first: its order counts for nobody."""
    out: list[int] = []
    dropped: list[int] = []
    for delta in events:
        if delta < 0:
            dropped.append(delta)
        elif delta > 0:
            out += [*sorted(dropped), delta]
            dropped = []
    return out + sorted(dropped)


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['op']} {c['tensors'][0][0]} {c['tensors'][0][2]}")
def test_a_call_asks_for_what_torch_asked_for(case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(case["workspaces"])

    def answered(*asked: Any, **how: Any) -> Workspace:
        size = next(answers)
        return Workspace(bytes=size, low=size, high=size, source="cudnn")

    monkeypatch.setattr(convolution, "workspace", answered)
    assert played(case) == normalized(case["events"])
    assert next(answers, None) is None


def test_the_cases_cover_layouts_and_dtypes() -> None:
    dtypes = {c["tensors"][0][2] for c in CASES}
    assert {"float32", "float16", "bfloat16", "float64"} <= dtypes
    odd = [c for c in CASES if c["tensors"][0][1] != list(contiguous_strides(c["tensors"][0][0]))]
    assert len(odd) > 40
    assert any(c["workspaces"] and max(c["workspaces"]) > 0 for c in CASES)


def backend(shape: tuple[int, ...], stride: int = 1, dtype: str = "float16", kernel: int = 3) -> str:
    filters = (shape[1], 1, kernel, kernel)
    input, weight = (Tensor(s, contiguous_strides(s), dtype, 0) for s in (shape, filters))
    return convolution.select_backend(on("h100-80gb"), input, weight, convolution.geometry(weight, stride, 1, 1, 0, shape[1], False))


def test_depthwise_in_half_precision_goes_to_cudnn_where_it_is_faster() -> None:
    assert backend((8, 64, 56, 56)) == "cudnn"
    assert backend((8, 64, 56, 56), dtype="float32") == backend((8, 64, 56, 56), dtype="bfloat16") == "depthwise2d"
    assert backend((8, 16, 56, 56)) == "depthwise2d", "few channels"
    assert backend((8, 64, 5, 5)) == backend((8, 64, 56, 56), kernel=7) == "depthwise2d"
    assert backend((8, 256, 56, 56), stride=2) == "cudnn"
    assert backend((8, 256, 14, 14), stride=2) == "depthwise2d"


def test_a_modelled_workspace_carries_its_range() -> None:
    k = Tape(2, (False, False), True, on("h100-80gb"))
    given = [Tensor(s, contiguous_strides(s), "float32", i) for i, s in enumerate(((2, 8, 9, 9), (8, 8, 3, 3)))]
    asked = Workspace(bytes=100, low=0, high=300, source="rule")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convolution, "workspace", lambda *_, **__: asked)
        plain = {"stride": 1, "padding": 1, "dilation": 1, "transposed": False, "output_padding": 0, "groups": 1}
        out = RUNTIME.rows["convolution"].forward(k, *given, None, **plain)  # type: ignore[union-attr]
    assert [(e.nbytes, e.spread) for e in k.finish(given, (out,)).events if e.scratch] == [(100, (0, 300))]


PLAIN = {"stride": 1, "padding": 1, "dilation": 1, "transposed": False, "output_padding": 0, "groups": 1}


def backend_of(target: Target, *shapes: tuple[int, ...], dtype: str = "float32", **asked: Any) -> str:
    input, weight = (Tensor(s, contiguous_strides(s), dtype, 0) for s in shapes)
    return convolution.select_backend(target, input, weight, convolution.geometry(weight, **PLAIN | asked))


def test_what_cudnn_does_not_take_runs_by_columns() -> None:
    without = replace(on("h100-80gb"), cuda=CudaSettings(cudnn=(9, 24), enabled=False))
    image, filters, volume, blocks = (2, 8, 9, 9), (8, 8, 3, 3), (2, 8, 9, 9, 9), (8, 8, 3, 3, 3)
    assert backend_of(on("t4"), image, filters, dtype="bfloat16") == backend_of(without, image, filters) == "slow2d"
    assert backend_of(on("a100-40gb"), image, filters, dtype="bfloat16") == "cudnn"
    assert backend_of(without, image, filters, dilation=2) == backend_of(without, volume, blocks) == "slow_dilated"
    assert backend_of(without, volume, blocks, transposed=True) == "slow_transpose3d"
    assert backend_of(without, image, (8, 1, 3, 3), groups=8) == "depthwise2d"
    assert backend_of(on("h100-80gb"), image, filters, transposed=True, dilation=2, output_padding=1) == "slow_transpose2d"


def test_depthwise_bfloat16_in_channels_last_is_refused_by_cudnn_on_such_a_card() -> None:
    shapes = ((2, 8, 9, 9), (8, 1, 3, 3))
    given = [Tensor(s, channels_last_strides(s), "bfloat16", i) for i, s in enumerate(shapes)]
    with pytest.raises(UnsupportedError, match=r"channels_last below compute capability 8\.0"):
        RUNTIME.rows["convolution"].forward(Tape(2, (False, False), True, on("t4")), *given, None, **PLAIN | {"groups": 8})  # type: ignore[union-attr]
    assert backend_of(on("t4"), *shapes, dtype="bfloat16", groups=8) == "depthwise2d"
