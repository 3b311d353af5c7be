"""Optimizers' steps on CUDA, against streams of torch's CUDA build written down here."""

from __future__ import annotations

import pytest

import memest
from memest.errors import UsageError
from memest.machines.cuda import CudaSettings
from memest.machines.devices import device_named
from memest.machines.gpu import Gpu
from memest.machines.target import TORCH_CUDA, Target
from memest.memory.stream import Storage
from memest.network.tensor import nbytes, spec
from memest.runtimes.torch.ledger import Ledger, Value
from memest.runtimes.torch.optimizers import optimizer_named, play_step, resident_states

CARD = Gpu(name="a100-40gb", memory_bytes=40 << 30, device=device_named("a100-40gb"))
TARGET = Target(runtime=TORCH_CUDA, version=(2, 14), machine=CARD, cuda=CudaSettings(cudnn=(9, 24)))
ALLOCATED = {
    "sgd": [],
    "sgd:momentum=0.9,weight_decay=0.1": [400, 80],
    "sgd:momentum=0.9,weight_decay=0.1,foreach=false": [400, 80],
    "adam": [400, 80],
    "adam:foreach=false": [400, 400, 80, 80],
    "adam:fused=true": [],
    "adam:capturable=true": [4, 4, 4, 4, 400, 80],
    "adamax:capturable=true": [400, 80, 4, 4, 400, 80],
    "asgd": [400, 80, 400, 80, *[4] * 10, 4, 4],
    "rprop": [400, 80, 100, 100, 100, 20, 20, 20, 100, 4, 400, 20, 4, 80, 400, 80],
}
STANDING = {"adam": 2 * 480, "adam:fused=true": 2 * (480 + 4), "adam:capturable=true": 2 * (480 + 4), "nadam": 2 * 480, "asgd": 480 + 24}


def values() -> list[Value]:
    return [Value(spec(shape), Storage(0, 0, "parameter", "", "", "")) for shape in ((10, 10), (20,))]


@pytest.mark.parametrize("text", ALLOCATED)
def test_a_late_step_asks_for_what_torchs_cuda_build_asks_for(text: str) -> None:
    ledger = Ledger()
    play_step(optimizer_named(text), ledger, values(), ["a", "b"], None, TARGET)
    assert [e.delta for e in ledger.events if e.delta > 0] == ALLOCATED[text]
    assert sum(e.delta for e in ledger.events) == 0


@pytest.mark.parametrize("text", STANDING)
def test_step_counters_are_the_devices_where_a_step_is_fused_or_captured(text: str) -> None:
    states = [s for v in values() for s in resident_states(optimizer_named(text), v.spec, None, TARGET)]
    assert sum(nbytes(s.shape, s.dtype) for s in states) == STANDING[text]


def test_a_captured_step_is_refused_on_a_cpu() -> None:
    with pytest.raises(UsageError, match="capturable needs an accelerator"):
        memest.estimate(memest.model("alexnet"), input_shape=(1, 3, 224, 224), optimizer="adam:capturable=true")
