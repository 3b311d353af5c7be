"""What engines were measured to take, beside what is predicted: a few results, and all of them where time is given."""

from __future__ import annotations

from statistics import median

import pytest

from memest.runtimes.onnxruntime.process import measured
from validation.engines.onnxruntime.comparing import LARGE, compare, failures


@pytest.mark.parametrize("case", ["alexnet-4x3x224x224-legacy", "monai_unet3d-2x1x64x64x64", "squeezenet1_1-1x3x224x224"])
def test_a_network_takes_what_was_measured(case: str) -> None:
    found = compare(case)
    assert found
    assert all(c.equal and c.stream for c in found), [str(c) for c in found]


@pytest.mark.slow
def test_the_error_that_a_process_tells_is_the_one_measured() -> None:
    found = [c for c in compare() if not c.refused and c.process[1] >= LARGE]
    for where in ("outside", "inside"):
        errors = [abs(c.error) for c in found if c.inside == (where == "inside")]
        said = measured()[where]
        assert {"cases": len(errors), "median": round(median(errors), 4), "worst": round(max(errors), 4)}.items() <= said.items()


@pytest.mark.slow
def test_what_is_claimed_of_onnxruntime_holds() -> None:
    assert not failures(compare())
