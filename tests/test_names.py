"""Names from a stranger's file: whatever they hold, no output steers a terminal, reorders or splits a line, or becomes code."""

from __future__ import annotations

import csv
import json
import pickle
import re
import warnings
from html import unescape
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from pages import page_of

import memest
from memest.cli.app import main
from memest.errors import GraphError, MemestError
from memest.render import chart, history, perfetto
from memest.render.page import render
from memest.shown import LONGEST_LINE, LONGEST_WORD, brief, visible, visible_json
from memest.sources import files as schema

EVIL = "\x1b[31mRED\x1b]0;title\x07\x9b1m\u202e\u2066\u200b\ufeff\u2028\u00ad\U000e0041\r\n\t\"\"\" */ '''"
HARMFUL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]")
SHAPE = (2, 3, 16, 16)


@pytest.fixture(scope="module")
def graph() -> memest.Graph:
    """A network whose every name is evil."""
    b = memest.Builder(f"net{EVIL}")
    x = b.input(f"x{EVIL}", ("N", 3, "H", "W"))
    x = b.layer("conv2d", x, name=f"conv{EVIL}", out_channels=4, kernel_size=3)
    x = b.layer("batch_norm", x, name=f"norm{EVIL}")
    return b.build(b.layer("relu", x, name=f"act{EVIL}"))


@pytest.fixture(scope="module")
def path(graph: memest.Graph, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Its file."""
    found = tmp_path_factory.mktemp("evil") / "net.yaml"
    found.write_text(schema.dumps(graph))
    return str(found)


def harmless(text: str) -> None:
    """Fails where a character of ``text`` is one that a reader does not see."""
    assert not (found := HARMFUL.search(text)), ascii(text[max(0, found.start() - 40) : found.end() + 40])


@pytest.mark.parametrize(
    "c", ["\x1b", "\x00", "\x7f", "\x9b", "\n", "\r", "\t", "\u202e", "\u2066", "\u200b", "\u2028", "\ufeff", "\u3164", "\xa0"]
)
def test_each_harmful_character_is_an_escape(c: str) -> None:
    assert visible(f"a{c}b") == f"a{c.encode('unicode_escape').decode()}b" and len(visible(c)) > 1
    assert visible(f"a{c}b", keep=c) == f"a{c}b"
    assert json.loads(visible_json(json.dumps({c: c}, ensure_ascii=False))) == {c: c}


@pytest.mark.parametrize("text", ["", "plain", "слой.свёртка", "卷积 1", "é → …·²", "a\\x1bb", "🙂"])
def test_what_can_be_read_stays(text: str) -> None:
    assert visible(text) == text == visible(visible(text)) and visible_json(text) == text


COMMANDS = {
    "estimate": ["estimate"],
    "layers": ["layers"],
    "timeline": ["timeline", "--all"],
    "advise": ["advise", "--budget", "1KiB"],
    "formula": ["formula", "--all", "--layers"],
    "compare": ["compare", "--versus", "mode=infer"],
}


@pytest.mark.parametrize("form", ["text", "csv", "markdown", "json"])
@pytest.mark.parametrize("command", COMMANDS)
def test_no_format_of_a_command_holds_one(command: str, form: str, path: str, capsys: pytest.CaptureFixture[str]) -> None:
    first, *rest = COMMANDS[command]
    assert main([first, path, *rest, "--input", "3x16x16", "--batch", "2", "--format", form]) in (0, 1)
    out = capsys.readouterr().out
    harmless(out)
    assert "RED" in out
    if form == "csv":
        assert all(len(row) == len(rows[0]) for rows in [list(csv.reader(StringIO(out)))] for row in rows)


def test_json_keeps_the_names(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["layers", path, "--input", "3x16x16", "--batch", "2", "--format", "json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["graph"] == f"net{EVIL}" and data["layers"][0]["layer"] == f"conv{EVIL}"


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_a_graph_file_keeps_the_names(
    form: str, graph: memest.Graph, path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["import", path, *(["--json"] if form == "json" else [])]) == 0
    written = capsys.readouterr().out
    harmless(written)
    assert schema.loads(written, form=form) == graph


@pytest.mark.parametrize(
    "arguments",
    [
        ["estimate", "net" + EVIL],
        ["estimate", "resnet18", "--optimizer", EVIL],
        ["estimate", "resnet18", "--input", f"{EVIL}=1x3x8x8"],
        ["estimate", "resnet18", "--bad" + EVIL],
        ["estimate" + EVIL],
        ["hardware", EVIL],
        ["compare", "resnet18", "--versus", f"{EVIL}=1"],
        ["estimate", "PATH", "--input", "3x1x1", "--batch", "1"],
    ],
)
def test_no_message_holds_one(arguments: list[str], path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([path if a == "PATH" else a for a in arguments]) in (2, 3)
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    harmless(line)


def test_terminal_pictures(graph: memest.Graph) -> None:
    step = memest.estimate(graph, input_shape=SHAPE)
    for draw in (chart.timeline, chart.treemap):
        harmless(draw(step, width=100))


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="matplotlib is not installed")
def test_pictures_are_whole_and_say_the_names(graph: memest.Graph) -> None:
    from memest.planning.growth import growth
    from memest.render.plot import sizes, timeline, treemap

    step = memest.estimate(graph, input_shape=SHAPE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a glyph that no font has
        warnings.simplefilter("ignore", DeprecationWarning)
        drawn = [timeline.render(step, "svg"), treemap.render(step, "svg"), sizes.render(growth(graph, (16,), (1,)), [(EVIL, 9**9)], "svg")]
    for svg in drawn:
        said = "".join("".join(e.itertext()) for e in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text"))
        harmless(said)
        assert "RED" in said


def test_the_page_shows_none(graph: memest.Graph) -> None:
    page = render(page_of(graph, *SHAPE), title=EVIL)
    harmless(unescape(page))
    block = page.partition('id="data">')[2].partition("</script>")[0]

    def texts(value: Any) -> list[str]:
        items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return [value] if isinstance(value, str) else [t for v in items for t in texts(v)]

    for text in texts(json.loads(block)):
        harmless(text)
        assert "\n" not in text


def test_exports_keep_the_names(graph: memest.Graph) -> None:
    step = memest.estimate(graph, input_shape=SHAPE)
    trace = perfetto.render(step)
    harmless(trace)
    assert f"conv{EVIL}" in {row["name"] for row in json.loads(trace)["traceEvents"]}
    frames = {f["filename"] for e in pickle.loads(history.render(step))["device_traces"][0] for f in e["frames"]}
    assert f"conv{EVIL}" in frames


def test_a_formula_in_a_language_is_the_function_and_nothing_else(graph: memest.Graph) -> None:
    step = memest.estimate(graph, input_shape=SHAPE)
    formula = step.formula()
    for text in (formula.python(), formula.javascript(), formula.text(), formula.latex()):
        harmless(text)
    found: dict[str, Any] = {}
    exec(compile(formula.python(), "formula", "exec", dont_inherit=True), found)
    assert set(found) == {"__builtins__", "KERNELS", "peak"} and found["peak"](2, 16, 16) == step.peak_bytes
    assert EVIL.split("\x1b")[1] in found["peak"].__doc__ and visible(f"net{EVIL}") in found["peak"].__doc__
    latex = memest.loads("inputs: {x: [N, 3]}\nlayers: [relu: {name: '\\input{/etc/passwd}$^~#&'}]")
    typeset = memest.estimate(latex, input_shape=(2, 3), loss="mse", mode="infer").formula().latex(all=True)
    assert r"\textbackslash{}input\{/etc/passwd\}\$\textasciicircum{}\textasciitilde{}\#\&" in typeset
    first = formula.javascript().splitlines()[0]
    assert first.startswith("// ") and "RED" in first


# length ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["x" * 10_000, "word " * 2_000, "'" + "y z" * 5_000 + "'"])
def test_messages_quote_little_of_a_long_text(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(brief(f"net.yaml, line 3: {text}; did you mean 'conv2d'?")) <= LONGEST_LINE
    assert brief(text).startswith(text[:20]) and brief(text).endswith(text[-20:].lstrip())
    error = GraphError(f"a: {text}").at("net.yaml")
    assert isinstance(error, MemestError) and len(str(error)) <= LONGEST_LINE and str(error).startswith("net.yaml: a: ")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    file = tmp_path / "net.yaml"
    file.write_text(
        f"inputs: {{x: [N, 3, H, W]}}\nlayers: [relu: {{name: {json.dumps(text)}, in: {json.dumps(text)}}}, {json.dumps(text)}]"
    )
    assert main(["estimate", str(file), "--input", "3x8x8", "--batch", "1", "--infer"]) == 3
    assert len(capsys.readouterr().err) <= LONGEST_LINE + 20


def test_short_messages_stay() -> None:
    for text in ("", "unknown optimizer 'adm'; did you mean 'adam'?", "x" * LONGEST_WORD):
        assert brief(text) == text
