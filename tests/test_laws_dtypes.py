"""The laws of the rows in other dtypes: each row's examples with their float32 tensors in float64, bfloat16 and float16.

Outputs, what autograd keeps and both streams are torch's; what torch has no kernel for is refused here too. All of it is slow; a sample
of one example in thirteen, the dtypes in turn, is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import test_laws as laws

from memest.errors import UnsupportedError
from memest.machines.cpu import Cpu
from memest.ops.operator import Example

DTYPES = ("float64", "bfloat16", "float16")
SAMPLED = 13
HALVES, QUANTIZED = ("bfloat16", "float16"), "fake_quantize_per_tensor_affine"
NOT_MODELLED = {  # refused by name: oneDNN's LSTM in other dtypes, complex numbers and places of half precision
    ("lstm", "bfloat16"),
    ("packed_lstm", "bfloat16"),
    ("_to_complex", "bfloat16"),
    *((name, dtype) for name in ("mkldnn_rnn_layer", "embedding_bag", "_embedding_bag") for dtype in DTYPES),
    *((name, "float16") for name in ("view_as_complex", "complex", "_to_complex", "fft2")),
    *((name, dtype) for name in ("index_add", "index_copy", "index_fill", "scatter_reduce", "take", QUANTIZED) for dtype in HALVES),
    *((name, dtype) for name in ("_trilinear", "bilinear") for dtype in HALVES),
}


def calls() -> Iterator[Any]:
    """Every example in every dtype."""
    for i, ((row, example), name) in enumerate(zip(laws.CALLS, laws.CALL_IDS, strict=True)):
        for j, dtype in enumerate(DTYPES):
            quick = i % SAMPLED == 0 and i // SAMPLED % len(DTYPES) == j
            yield pytest.param(row, example, dtype, id=f"{name}-{dtype}", marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize(("row", "example", "dtype"), list(calls()))
def test_call_is_that_of_torch(row: laws.Row, example: Example, dtype: str, cpu: Cpu) -> None:
    pytest.importorskip("torch")
    from validation.rows import predict, recast

    example = recast(example, dtype)
    refused = False
    try:
        predict(row, example, cpu)
    except UnsupportedError:
        refused = True
    if refused and (row.name, dtype) in NOT_MODELLED:
        return
    if not torch_has(row, example):
        assert refused
        return
    laws.test_outputs_are_those_of_torch(row, example, cpu)
    laws.test_saved_tensors_are_those_of_torch(row, example, cpu)
    laws.test_streams_are_those_of_torch(row, example, cpu)


def torch_has(row: laws.Row, example: Example) -> bool:
    """False where torch says it has no kernel for the dtype."""
    from validation.rows import measure

    try:
        measure(row, example)
    except (NotImplementedError, RuntimeError, TypeError):
        return False
    return True
