"""Convolutions and products in bfloat16 where oneDNN's kernels are modelled, and the clear refusal elsewhere."""

from __future__ import annotations

import pytest

from memest.errors import UnsupportedError
from memest.libraries.onednn import Convolution, plan_convolution
from memest.libraries.onednn.deconvolution import plan_deconvolution
from memest.machines.cpu import Cpu
from memest.ops.operator import Example
from memest.ops.table import COMPOSITES


def problem(**changes: object) -> Convolution:
    """A small convolution of bfloat16."""
    values: dict[str, object] = {
        "prop": "forward_training",
        "batch": 2,
        "in_channels": 16,
        "out_channels": 32,
        "groups": 1,
        "input_size": (20, 20),
        "output_size": (20, 20),
        "kernel": (3, 3),
        "stride": (1, 1),
        "dilation": (1, 1),
        "padding": (1, 1),
        "padding_end": (1, 1),
        "bias": True,
        "channels_last": False,
        "dtype": "bfloat16",
    }
    return Convolution(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("plan", [plan_convolution, plan_deconvolution])
@pytest.mark.parametrize("cpu", [Cpu(bf16=False), Cpu(isa="avx2")])
def test_other_processors_are_refused(plan: object, cpu: Cpu) -> None:
    with pytest.raises(UnsupportedError, match="bfloat16"):
        plan(problem(), cpu)  # type: ignore[operator]


def test_weights_hold_pairs_of_summed_channels() -> None:
    """As ONEDNN_VERBOSE shows it on a processor with avx512_bf16."""
    plan = plan_convolution(problem(), Cpu())
    assert plan.implementation == "jit_bf16:avx512_core_bf16"
    assert (plan.source.tag, plan.weights.tag, plan.destination.tag) == ("aBcd16b", "ABcd8b16a2b", "aBcd16b")
    assert plan.weights.bytes == 32 * 16 * 9 * 2
    last = plan_convolution(problem(channels_last=True), Cpu())
    assert (last.implementation, last.weights.tag) == ("brg_conv_fwd:avx512_core_bf16", "AcdB32a2b")


def test_depthwise_pads_groups_to_whole_vectors() -> None:
    whole = plan_convolution(problem(in_channels=24, out_channels=24, groups=24), Cpu())
    assert whole.implementation == "jit_dw:avx512_core_bf16"
    assert whole.source.bytes == 2 * 32 * 400 * 2


@pytest.mark.parametrize(
    "shapes", [((64, 1000), (1, 1000), None), ((1, 768), (1000, 768), None), ((300, 33), (1, 33), (1,)), ((1, 700), (1, 700), (1,))]
)
def test_products_of_one_row_or_column_are_those_of_torch(shapes: tuple[tuple[int, ...] | None, ...], cpu: Cpu) -> None:
    """What lies by rows and by columns alike is taken as its strides say, or as its transpose."""
    if not cpu.has_bf16:
        pytest.skip("its bfloat16 products are not modelled")
    from validation.rows import measure, normalized, predict

    row = COMPOSITES["linear"]
    example = Example(shapes=shapes, attributes={}, dtypes=("bfloat16",) * 3)
    assert normalized(predict(row, example, cpu)) == normalized([e.delta for e in measure(row, example)])
