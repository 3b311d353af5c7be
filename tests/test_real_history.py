"""A step that a real card recorded, predicted; skipped where the record is not beside the checkout."""

from __future__ import annotations

import pytest
from shared import shared

from memest.libraries.cudnn.library import installed
from memest.planning.beside import Beside

pytest.importorskip("torch")
from validation.history import FILE, compared, reason


@pytest.fixture(scope="module")
def found() -> Beside:
    (path,) = shared(f"traces/{FILE}")
    return compared(path.parent)


def test_every_difference_from_the_real_card_is_named(found: Beside) -> None:
    assert found.equal > 0.95 * len(found.predicted)
    assert [parting for parting in found.partings if not reason(found, parting)] == []


@pytest.mark.skipif(installed() != (9, 24), reason="needs nvidia-cudnn 9.24")
def test_with_cudnn_all_but_three_sizes_are_recorded_in_order(found: Beside) -> None:
    assert (found.equal, len(found.predicted), len(found.partings)) == (180, 183, 5)


def test_all_buffers_of_reductions_are_those_of_the_card(found: Beside) -> None:
    """576 bytes for the mean of 1,966,080 floats: 72 multiprocessors of 1,024 threads."""
    recorded = [found.history.entries[number].size for number in found.recorded]
    predicted = [e.delta for e in found.predicted]
    for size in (576, 144, 128, 64, 32, 16):
        assert predicted.count(size) <= recorded.count(size), size
    assert predicted.count(576) == 1
