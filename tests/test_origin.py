"""The origin's table: what was measured beside what is predicted, exact and modelled apart, and nothing fitted to what others wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from validation.origin import table
from validation.origin.cells import BATCHES, CELLS, FRAMEWORKS, MODES, SIDES, Cell
from validation.origin.measuring import stored
from validation.origin.predicting import predicted, predicted_at, tensors_bytes
from validation.origin.table import Row

BESIDE = ("torch, train, 32, 1",)  # of which the range does not hold what was measured: holes of a moving threshold
MEASURED = [cell for cell in CELLS if cell.name in stored()]


def test_the_cells_are_those_that_were_asked_for() -> None:
    assert len(CELLS) == len(FRAMEWORKS) * len(MODES) * len(SIDES) * len(BATCHES)
    assert set(SIDES) >= {32, 64, 128, 144, 200, 240, 320} and len({cell.name for cell in CELLS}) == len(CELLS)


def test_a_size_the_network_cannot_run_at_says_so() -> None:
    assert tensors_bytes(Cell("torch", "train", 200, 1)) is None
    assert "use multiples of 16: 192 or 208" in predicted(Cell("torch", "train", 200, 1)).allocated.reason
    assert tensors_bytes(Cell("torch", "train", 208, 1))


@pytest.mark.parametrize("cell", [pytest.param(c, marks=pytest.mark.slow if n else (), id=c.name) for n, c in enumerate(MEASURED)])
def test_what_was_measured_holds_what_is_predicted(cell: Cell) -> None:
    allocated, process = predicted(cell)
    most = max(stored()[cell.name]["peaks_bytes"])
    assert allocated.low is not None and allocated.low <= most
    assert cell.framework != "torch" or allocated.claim == "exact"
    if process.bytes is not None:
        assert process.claim == "modelled" and process.low is not None and process.high is not None
        assert process.low < process.bytes < process.high
        if cell.name not in BESIDE:
            assert process.low <= most <= process.high


def test_a_row_keeps_measured_predicted_exact_and_modelled_apart() -> None:
    cell = Cell("torch", "train", 64, 1)
    line = table._line(Row(cell, predicted(cell), {"peaks_bytes": [2**30, 2**30 + 2**20, 2**30]}))
    assert line.startswith("| torch | train | 64 | 1 | 0.33 GiB | exact |") and "1,024 / 1,025 / 1,024 MiB" in line and "192 GB" in line


@pytest.mark.slow
def test_a_terabyte_is_computed_for_every_framework_width_and_dtype() -> None:
    lines = list(table.terabyte())
    assert len(lines) == 1 + len(FRAMEWORKS) * len(table.WIDTHS) * len(table.DTYPES)
    found = predicted_at((16, 1, 240, 240, 144), "torch", base_filters=16).allocated
    assert any(f"torch, base width 16, float32: tensors {(found.bytes or 0) / 2**30:,.2f} GiB" in line for line in lines)


@pytest.mark.slow
def test_the_published_point_stands_beside_ours() -> None:
    text = "\n".join(table.published())
    assert "44,000 MiB" in text and "TensorFlow 1.11" in text and "torch, tensors: 24,9" in text


@pytest.mark.slow
def test_the_figure_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from validation.origin.figure import draw

    rows = [Row(cell, predicted(cell), None) for cell in CELLS if cell.side == 32 and cell.framework == "torch" and cell.mode == "infer"]
    draw(rows, tmp_path / "origin.svg")
    assert (tmp_path / "origin.svg").stat().st_size > 10_000
