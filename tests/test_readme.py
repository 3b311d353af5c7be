"""What the README says is so: its examples run. Its accuracy table is held against the results by ``validation compare --readme``."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

import memest
from memest.cli.app import main
from memest.sources import builder

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language, in order."""
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [text for name, text in fences if name == language]


def commands() -> list[str]:
    """Every ``memest …`` line that is shown."""
    return [line for block in blocks("") for line in block.splitlines() if line.startswith("memest ")]


LONG = ("advise", "fit", "formula", "plot", "report", "sweep")  # ask for many estimates


@pytest.mark.parametrize("command", [pytest.param(c, marks=pytest.mark.slow if c.split()[1] in LONG else ()) for c in commands()])
def test_commands_run(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    if "torchvision" in command:
        pytest.importorskip("torch")
        pytest.importorskip("importlib.metadata").version("torchvision")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", shlex.split(command))
    try:
        code: Any = main()
    except SystemExit as e:
        code = e.code
    assert not code, capsys.readouterr().err
    out = capsys.readouterr().out
    assert "over one channel" not in out
    assert out or list(tmp_path.iterdir())


def shown() -> list[tuple[str, str]]:
    """Every ``$ memest …`` that is shown with what it prints."""
    return [(text.partition("\n")[0].removeprefix("$ "), text.partition("\n")[2]) for text in blocks("text")]


@pytest.mark.parametrize(("command", "printed"), shown(), ids=[c[:40] for c, _ in shown()])
def test_what_is_printed_is_what_a_command_prints(
    command: str, printed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("memest.machines.versions.installed", lambda: None)
    monkeypatch.setenv("COLUMNS", "120")
    assert main(shlex.split(command)[1:]) == 0
    assert capsys.readouterr().out == printed


def test_there_is_something_printed_and_the_page_is_short() -> None:
    assert shown() and README.count("\n") < 320


def test_the_first_command_runs(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (line.partition(" && ")[2] for line in blocks("")[0].splitlines())
    assert second == "pytest"
    assert main(shlex.split(first)[1:]) == 0
    out = capsys.readouterr().out
    assert "binary_cross_entropy" in out and "over one channel" not in out


def test_graph_file_is_one() -> None:
    (text,) = blocks("yaml")
    graph = memest.loads(text)
    assert memest.estimate(graph, input_shape=(2, 3, 32, 32), optimizer="adam").peak_bytes > 0


def test_builder_example_builds() -> None:
    names: dict[str, Any] = {"Builder": memest.Builder}
    exec("\n".join(line[4:] for line in (builder.__doc__ or "").splitlines() if line.startswith(">>> ")), names)
    assert memest.estimate(names["graph"], input_shape=(2, 3, 8, 8), mode="infer").peak_bytes > 0


def test_names_of_the_python_example_exist() -> None:
    graph = memest.model("unet3d", base_filters=4)
    estimate = memest.estimate(graph, input_shape=(2, 1, 16, 16, 16), loss="binary_cross_entropy")
    for name in re.findall(r"^est\.(\w+)", blocks("python")[0], re.MULTILINE):
        assert hasattr(estimate, name)
    for name in re.findall(r"memest\.(\w+)\(", blocks("python")[0]):
        assert name in memest.__all__


def test_operator_example_obeys_the_laws() -> None:
    """The worked example is a row that torch agrees with."""
    torch = pytest.importorskip("torch")
    from memest.machines.cpu import Cpu
    from memest.ops import facts, operator, tape, writing
    from memest.ops.aten import iterator
    from memest.ops.table import OPERATORS
    from validation.rows import measure, normalized, predict

    names: dict[str, Any] = {**vars(facts), **vars(operator), **vars(tape), **vars(writing), **vars(iterator)}
    (example,) = (b for b in blocks("python") if "def _logit" in b)
    exec(compile(example, "README.md", "exec"), names)
    row = names["LOGIT"]
    cpu = Cpu.detect().with_(threads=torch.get_num_threads())
    assert row.name not in OPERATORS
    OPERATORS[row.name] = row
    try:
        for example in row.examples:
            assert normalized(predict(row, example, cpu)) == normalized([e.delta for e in measure(row, example)])
    finally:
        del OPERATORS[row.name]


@pytest.mark.slow
def test_planning_example_runs() -> None:
    graph = memest.model("resnet18")
    a, b = (memest.estimate(graph, input_shape=(n, 3, 64, 64)) for n in (1, 2))
    names: dict[str, Any] = {"memest": memest, "graph": graph, "a": a, "b": b}
    (example,) = (b for b in blocks("python") if "memest.sweep(" in b)
    exec(example, names)
    assert names["f"].fits and names["plan"].fits and names["advice"].fits and names["s"].points == 256 * 15 * 15 * 2
