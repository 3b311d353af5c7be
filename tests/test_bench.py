"""The speed table: what it says of given numbers, whose package a child process measures, and that each line is measured at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import memest
from validation.bench import bench, probes
from validation.bench.builds import BASE, PROBES, THIS, Build, BuildError, of_commit, this_build
from validation.bench.lines import LINES, Command, Line, Probe, in_bytes, milliseconds, points
from validation.bench.rounds import measured
from validation.bench.table import text_table

ROOT = Path(__file__).parents[1]
SOURCE = Probe("network", "alexnet")


def line(**changes: Any) -> Line:
    return Line(**{"what": "a line", "source": SOURCE, "name": "value", "shown": milliseconds, **changes})


def found(**numbers: tuple[float, float]) -> dict[Any, float]:
    return {(build, SOURCE, name): n for name, pair in numbers.items() for build, n in zip((BASE, THIS), pair, strict=True)}


# what a line says ---------------------------------------------------------------------------------------------------------


def test_a_line_shows_both_builds_in_floors_the_gain_and_whether_the_target_is_met() -> None:
    what = line(floor=(SOURCE, "floor"), most=1.5, in_floors=True)
    numbers = found(value=(0.400, 0.120), floor=(0.100, 0.100))
    assert what.row(numbers) == ("a line", "400.0 ms", "4.00", "120.0 ms", "1.20", "3.3x", "100.0 ms", "<= 1.5 floors", "yes")


def test_a_target_that_is_missed_says_no_and_the_claim_does_not_hold() -> None:
    what = line(most=1e-4)
    assert what.row(found(value=(0.0001, 0.0002)))[-2:] == ("<= 0.100 ms", "NO")
    assert not what.claim(found(value=(0.0001, 0.0002))).holds
    assert what.claim(found(value=(0.0002, 0.0001))).holds


def test_a_target_in_floors_is_held_against_the_floor_and_not_the_clock() -> None:
    what = line(floor=(SOURCE, "floor"), most=5, in_floors=True)
    assert what.claim(found(value=(1, 4.9), floor=(1, 1))).holds
    assert not what.claim(found(value=(1, 0.006), floor=(1, 0.001))).holds


def test_a_floor_that_is_the_same_work_for_all_is_the_least_of_all_builds_and_else_the_builds_own() -> None:
    numbers = found(value=(8, 4), floor=(2, 1))
    assert line(floor=(SOURCE, "floor"), shared=True).floors(numbers, BASE) == 8
    assert line(floor=(SOURCE, "floor")).floors(numbers, BASE) == 4


def test_points_a_second_grow_as_the_seconds_a_point_shrink() -> None:
    what = line(shown=points, most=1e-7)
    assert what.row(found(value=(1e-6, 5e-8)))[1:] == (
        "1.00 million/s",
        "",
        "20.00 million/s",
        "",
        "20.0x",
        "",
        ">= 10.00 million/s",
        "yes",
    )
    assert what.row(found(value=(1e-6, 2e-7)))[-1] == "NO"


def test_bytes_a_point_are_held_against_the_target_in_whole_bytes() -> None:
    assert line(shown=in_bytes, most=40).claim(found(value=(590, 40.3))).holds
    assert not line(shown=in_bytes, most=40).claim(found(value=(590, 40.6))).holds


def test_without_the_earlier_build_its_columns_are_empty_and_the_claim_stands() -> None:
    alone = {at: n for at, n in found(value=(1, 0.05)).items() if at[0] == THIS}
    assert line(most=0.1).row(alone) == ("a line", "", "", "50.0 ms", "", "", "", "<= 100.0 ms", "yes")


def test_a_line_without_a_target_claims_nothing() -> None:
    assert line().row(found(value=(1, 1)))[-2:] == ("", "")


def test_a_table_puts_names_left_and_numbers_right() -> None:
    assert text_table(("name", "n"), [("a", "1"), ("longer", "12")]).splitlines() == [
        "name     n",
        "------  --",
        "a        1",
        "longer  12",
    ]


def test_the_lines_have_different_names_and_nothing_is_asked_for_that_none_has() -> None:
    assert len({x.what for x in LINES}) == len(LINES)
    with pytest.raises(SystemExit, match="nothing has 'no such line' in its name"):
        bench(only="no such line")


# who is measured ----------------------------------------------------------------------------------------------------------


class Told(Command):
    """A source that answers from a list, and says who was asked when."""

    def __init__(self, answers: dict[str, list[float]]) -> None:
        super().__init__(())
        object.__setattr__(self, "answers", answers)
        object.__setattr__(self, "asked", [])

    def measure(self, build: Build) -> dict[str, float]:
        self.asked.append(build.name)  # type: ignore[attr-defined]
        left = self.answers[build.name]  # type: ignore[attr-defined]
        if not left:
            raise BuildError(f"{build.name}: cannot")
        return {"value": left.pop(0)}


NEW, OLD = Build(THIS, Path()), Build(BASE, Path())


def test_builds_take_turns_in_alternating_order_and_the_least_counts() -> None:
    source = Told({THIS: [3, 1, 2], BASE: [6, 5, 7]})
    numbers = measured([NEW, OLD], [line(source=source)], 3)
    assert source.asked == [THIS, BASE, BASE, THIS, THIS, BASE]  # type: ignore[attr-defined]
    assert [numbers[name, source, "value"] for name in (THIS, BASE)] == [1, 5]


def test_an_earlier_build_that_cannot_is_left_out_and_this_one_must(capsys: pytest.CaptureFixture[str]) -> None:
    source = Told({THIS: [3, 1], BASE: []})
    assert measured([NEW, OLD], [line(source=source)], 2) == {(THIS, source, "value"): 1}
    assert capsys.readouterr().out == f"{BASE}: cannot\n"
    with pytest.raises(BuildError, match="this build: cannot"):
        measured([NEW, OLD], [line(source=Told({THIS: [], BASE: [1]}))], 1)


def test_a_commits_package_is_unpacked_for_children_and_removed_after(tmp_path: Path) -> None:
    package = tmp_path / "memest"
    package.mkdir()
    git("init", "--quiet", at=tmp_path)
    for version in ("old", "new"):
        (package / "__init__.py").write_text(f"name = {version!r}\n")
        git("add", ".", at=tmp_path)
        git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", version, at=tmp_path)
    with of_commit(git("rev-parse", "HEAD~1", at=tmp_path), tmp_path) as build:
        assert build is not None
        assert build.cpu_seconds("-c", "import memest; assert memest.name == 'old'") > 0
        with pytest.raises(BuildError, match="exits with 1: AssertionError"):
            build.cpu_seconds("-c", "import memest; assert memest.name == 'new'")
    assert not build.folder.exists()


def test_a_folder_without_history_has_no_earlier_build(tmp_path: Path) -> None:
    with of_commit(BASE, tmp_path) as build:
        assert build is None


def test_the_earlier_build_of_this_history_answers_with_its_own_package() -> None:
    with of_commit(BASE, ROOT) as build:
        if build is None:
            pytest.skip(f"no git history with commit {BASE}")
        assert build.cpu_seconds("-m", "memest", "estimate", "alexnet", "--input", "3x64x64", "--batch", "1") > 0
        build.cpu_seconds("-c", f"import memest; assert memest.__file__.startswith({str(build.folder.resolve())!r})")


def test_this_build_is_the_package_that_is_imported_here() -> None:
    assert (this_build().folder / "memest" / "__init__.py").samefile(memest.__file__)


def test_a_probe_refuses_to_measure_another_package_than_the_one_named(tmp_path: Path) -> None:
    command = [sys.executable, str(PROBES), str(tmp_path), "sweep", "x"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 1
    assert "the memest on the path is that of" in done.stderr


def git(*arguments: str, at: Path) -> str:
    try:
        return subprocess.run(["git", "-C", str(at), *arguments], capture_output=True, text=True, check=True).stdout.strip()
    except FileNotFoundError:
        pytest.skip("git is not installed")


# what is measured ---------------------------------------------------------------------------------------------------------


def names_of(probe: str) -> set[str]:
    """The numbers that lines ask a probe for."""
    places = [(x.source, x.name) for x in LINES] + [x.floor for x in LINES if x.floor is not None]
    return {name for source, name in places if isinstance(source, Probe) and source.name == probe}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "GRIDS", {"small": {"batch": range(1, 5), "H": range(64, 97, 32), "W": range(64, 97, 32)}})
    monkeypatch.setattr(probes, "SIDE", 32)


@pytest.mark.usefixtures("small")
def test_the_sweep_probe_finds_what_the_lines_ask_for() -> None:
    numbers = probes.sweep("small")
    assert names_of("sweep") <= set(numbers)
    assert all(n > 0 for n in numbers.values())


def test_the_memory_probe_finds_what_the_lines_ask_for(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"1": {"grown": 1000, "columns": 400, "points": 10}, str(probes.LARGER): {"grown": 2500, "columns": 1600, "points": 40}}
    monkeypatch.setattr(probes, "_child", lambda probe, grid, times: answers[times])
    numbers = probes.memory("small")
    assert numbers == {"further point": 50, "columns": 40, "beside the columns": 900}
    assert names_of("memory") <= set(numbers)


@pytest.mark.usefixtures("small")
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the system does not say what a process needed")
def test_what_a_sweep_grew_the_process_by_is_measured_beside_its_columns() -> None:
    numbers = probes.grown("small", "4")
    assert numbers["points"] == 16 * 2 * 2
    assert numbers["columns"] > numbers["points"]
    assert numbers["grown"] >= 0


@pytest.mark.usefixtures("small")
def test_the_network_probe_finds_what_the_lines_ask_for(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")

    def tiny() -> Any:
        pooled = (torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.AdaptiveAvgPool2d(1))
        return torch.nn.Sequential(*pooled, torch.nn.Flatten(), torch.nn.Linear(4, 3))

    monkeypatch.setattr("gc.freeze", lambda: None)
    monkeypatch.setattr(probes, "_vision", lambda _: SimpleNamespace(tiny=tiny))
    numbers = probes.network("tiny")
    assert names_of("network") <= set(numbers)
    assert all(n > 0 for n in numbers.values())


def test_the_card_probe_finds_what_the_lines_ask_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "SIDE", 64)
    monkeypatch.setattr(probes, "CARD_BATCHES", 2)
    numbers = probes.card("resnet18")
    assert names_of("card") <= set(numbers)
    assert all(n > 0 for n in numbers.values())


def test_a_build_without_cards_has_no_numbers_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "memest", SimpleNamespace())
    assert probes.card("resnet18") == {}
