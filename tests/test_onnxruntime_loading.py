"""What loading a file with the weights in it leaves of the heap on ONNX Runtime."""

from __future__ import annotations

import pytest

import memest
from memest.memory.stream import Storage
from memest.runtimes.onnxruntime.loading import loaded
from memest.runtimes.onnxruntime.weights import BLOCKED, BY_COLUMNS

MIB = 1 << 20


def _weights(count: int, nbytes: int, reason: str) -> list[Storage]:
    return [Storage(n, nbytes, "parameter", f"w{n}", "", reason) for n in range(count)]


def test_weights_that_are_left_as_they_are_stay_once() -> None:
    found = loaded(_weights(8, 3 * MIB, ""), 0, (), pinned=False)
    assert 8 * 3 * MIB <= found.running <= 8 * 3 * MIB + MIB
    assert found.loading > found.running


def test_copies_of_blocked_filters_stay_as_free_heap_which_regions_are_taken_from() -> None:
    filters = _weights(8, 3 * MIB, BLOCKED)
    found = loaded(filters, 0, (), pinned=False)
    assert found.running >= 16 * 3 * MIB
    assert loaded(filters, 0, [(2 * MIB, 2 * MIB)], pinned=False).running == found.running
    large = loaded(filters, 0, [(64 * MIB, 10 * MIB)], pinned=False)
    assert large.running == pytest.approx(found.running + 10 * MIB + 2 * MIB, abs=8192)  # mapped: what is written, and its bookkeeping


def test_packed_products_take_each_others_holes() -> None:
    found = loaded(_weights(40, 3 * MIB, BY_COLUMNS), 0, (), pinned=False)
    assert 40 * 3 * MIB < found.running < 60 * 3 * MIB


def test_the_process_is_more_than_with_weights_outside_and_says_what_would_help() -> None:
    given = {"input_shape": (1, 3, 224, 224), "mode": "infer", "runtime": "onnxruntime", "machine": memest.Cpu(isa="avx512", threads=1)}
    inside = memest.estimate(memest.model("resnet18"), ort_external=False, **given).process
    outside = memest.estimate(memest.model("resnet18"), **given).process
    assert inside.low is not None and inside.high is not None and inside.bytes is not None and outside.bytes is not None
    assert inside.low < inside.bytes < inside.high
    assert inside.bytes > 1.3 * outside.bytes
    assert "with the weights outside the file" in inside.reason
