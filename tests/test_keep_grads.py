"""``zero_grad(set_to_none=False)``: gradients stay from step to step, and each step adds to them."""

from __future__ import annotations

import pytest

import memest
from memest.machines.cpu import Cpu
from memest.network.tensor import nbytes

CPU = Cpu(isa="avx2", threads=1)
STEP = {"input_shape": (2, 3, 64, 64), "optimizer": "sgd:momentum=0.9", "machine": CPU}


def test_gradients_that_stay_stand_before_the_step() -> None:
    graph = memest.model("resnet18")
    dropped, kept = (memest.estimate(graph, keep_grads=keep, **STEP) for keep in (False, True))  # type: ignore[arg-type]
    trained = sum(nbytes(p.shape, p.dtype) for p in graph.parameters if p.trainable and not p.buffer)
    assert kept.standing_bytes - dropped.standing_bytes == trained
    assert kept.peak_bytes > dropped.peak_bytes
    assert all(e.delta < 0 or e.storage.category != "gradient" or e.storage.nbytes <= 4 for e in kept.events)


def test_the_first_step_makes_them() -> None:
    graph = memest.model("resnet18")
    dropped, kept = (memest.estimate(graph, keep_grads=keep, first_step=True, **STEP) for keep in (False, True))  # type: ignore[arg-type]
    assert [e.delta for e in kept.events] == [e.delta for e in dropped.events]


def test_torchs_cpu_allocator_sees_the_same() -> None:
    """One step of a small network under the profiler."""
    import pytest

    torch = pytest.importorskip("torch")
    from memest.sources.importers.torch.network import from_torch
    from validation.profiling import record
    from validation.rows import normalized

    module = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(8 * 14 * 14, 4))
    x, target = torch.rand(2, 3, 16, 16), torch.zeros(2, dtype=torch.long)
    optimizer = torch.optim.SGD(module.parameters(), 0.1, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad(set_to_none=False)
        torch.nn.functional.cross_entropy(module(x), target).backward()
        optimizer.step()

    step()
    events, _ = record(step)
    cpu = Cpu.detect().with_(threads=torch.get_num_threads())
    found = memest.estimate(from_torch(module, x), input_shape=x.shape, optimizer="sgd:momentum=0.9", keep_grads=True, machine=cpu)
    assert normalized([e.delta for e in found.events]) == normalized([e.delta for e in events])


def test_another_runtime_names_it() -> None:
    with pytest.raises(memest.UnsupportedError, match="leave out keep_grads"):
        memest.estimate(memest.model("resnet18"), input_shape=(1, 3, 64, 64), runtime="tensorflow-cpu", keep_grads=True)
