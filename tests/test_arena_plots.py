"""A plan drawn: every block a rectangle at its offsets, the bound, and the same in the terminal."""

from __future__ import annotations

import re
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import memest
from memest.cli.app import main
from memest.render import arena_chart
from memest.render.plot import arena
from memest.sizes.units import format_bytes

needs_matplotlib = pytest.mark.skipif(find_spec("matplotlib") is None, reason="matplotlib is not installed")
ASKED = ["plot", "arena", "resnet18", "--input", "3x32x32", "--batch", "2"]


@pytest.fixture(scope="module")
def found() -> memest.InferencePlan:
    return memest.plan_inference(memest.model("resnet18"), input_shape=(2, 3, 32, 32))


@needs_matplotlib
def test_the_picture_has_a_rectangle_a_block_and_says_the_bytes(found: memest.InferencePlan) -> None:
    svg = arena.render(found, "best_fit", "svg").decode()
    drawn = svg[svg.index('id="blocks"') : svg.index('id="lower-bound"')]
    assert len(re.findall(r"<path [^>]*d=|<use ", drawn)) >= len(found.blocks)
    assert f"best_fit: {format_bytes(found.of('best_fit').nbytes)}" in svg and "lower bound" in svg
    assert svg == arena.render(found, "best_fit", "svg").decode()


@needs_matplotlib
def test_a_file_is_the_picture(found: memest.InferencePlan, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "arena.SVG"
    assert main([*ASKED, "--planner", "hill_climb", "-o", str(path)]) == 0
    assert capsys.readouterr().out == "" and path.read_bytes() == arena.render(found, "hill_climb", "svg")


def test_the_bound_cannot_be_drawn_and_without_matplotlib_it_says_what_to_install(
    found: memest.InferencePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(memest.UsageError, match="bound, not a plan"):
        arena.render(found, "lower_bound")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(memest.UsageError, match="pip install matplotlib"):
        arena.render(found, "best_fit")


def test_a_cell_in_the_terminal_is_the_block_in_its_middle(found: memest.InferencePlan, capsys: pytest.CaptureFixture[str]) -> None:
    columns, rows = 80, arena_chart.ROWS
    text = arena_chart.arena(found, "greedy_by_size", width=columns + arena_chart.GUTTER + 1)
    lines = [line[arena_chart.GUTTER :].ljust(columns) for line in text.splitlines() if line[arena_chart.GUTTER - 1 :].startswith("|")]
    plan, last = found.plan("greedy_by_size"), max(b.upper for b in found.blocks)
    assert len(lines) == rows
    for row, line in enumerate(reversed(lines)):
        for column, cell in enumerate(line):
            at, address = (column + 0.5) * last / columns, (row + 0.5) * plan.nbytes / rows
            here = [b.id for b, o in zip(found.blocks, plan.offsets, strict=True) if b.lower <= at < b.upper and o <= address < o + b.size]
            assert cell == (arena_chart.LETTERS[here[0] % 26] if here else " ")
    assert main(ASKED) == 0
    assert "lower bound" in capsys.readouterr().out


def test_nothing_to_place_is_drawn_empty() -> None:
    from memest.sources.builder import Builder

    b = Builder("views", {})
    x = b.input("input", ("N", 4))
    plan = memest.plan_inference(b.build(b.layer("flatten", x)), input_shape=(1, 4))
    assert plan.blocks == () and plan.of("hill_climb").nbytes == 0
    assert "no_reuse" in arena_chart.arena(plan, "no_reuse")
    if find_spec("matplotlib"):
        assert b"<svg" in arena.render(plan, "no_reuse", "svg")
