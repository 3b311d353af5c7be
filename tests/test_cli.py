"""The command line as its users meet it: results on stdout, talk on stderr, formats that agree, files whole or not at all."""

from __future__ import annotations

import csv
import gzip
import json
import os
import pickle
import re
import shlex
import signal
import stat
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import typer

import memest
from memest.cli.app import COMMANDS, main
from memest.cli.application import as_typer
from memest.cli.words import Command, defaults, read, taken
from memest.estimate.estimate import Estimate
from memest.planning import replacing
from memest.sources import files as schema

DATA = Path(__file__).parent / "data"
NET = str(DATA / "mutable.yaml")
SHAPES = ["--input", "x=3x32x32", "--input", "y=1x16x16", "--batch", "2", "--loss", "mse", "--isa", "avx2", "--threads", "1"]
CPU = memest.Cpu.detect().with_(isa="avx2", threads=1)


def _run(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    """stdout of a command that ends with ``code`` and says nothing else."""
    found = main(list(arguments))
    captured = capsys.readouterr()
    assert found == code, captured.err
    assert captured.err == ""
    return captured.out


def _shell(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "memest", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=120, check=False)


def _expected(**options: object) -> Estimate:
    return memest.estimate(memest.load(NET), input_shape={"x": (2, 3, 32, 32), "y": (2, 1, 16, 16)}, loss="mse", machine=CPU, **options)  # type: ignore[arg-type]


# estimate ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ([], {}),
        (["--infer"], {"mode": "infer"}),
        (["--lever", "channels_last"], {"levers": ["channels_last"]}),
        (["--optimizer", "adamw:foreach=true"], {"optimizer": "adamw:foreach=true"}),
        (["--hold-output", "--first-step", "--optimizer", "adam"], {"hold_output": True, "first_step": True, "optimizer": "adam"}),
    ],
)
def test_every_option_reaches_the_estimate(arguments: list[str], options: dict[str, object], capsys: pytest.CaptureFixture[str]) -> None:
    data = json.loads(_run(capsys, "estimate", NET, *SHAPES, *arguments, "--format", "json"))
    expected = _expected(**options)
    assert {k: v for k, v in data.items() if k != "holdings"} == json.loads(json.dumps(expected.to_dict()))
    assert sum(h["bytes"] for h in data["holdings"]) == expected.peak_bytes == data["peak_bytes"]


def test_the_four_formats_agree(capsys: pytest.CaptureFixture[str]) -> None:
    peak = _expected().peak_bytes
    text, data, sheet, markdown = (_run(capsys, "estimate", NET, *SHAPES, "--format", f) for f in ("text", "json", "csv", "markdown"))
    assert json.loads(data)["peak_bytes"] == peak
    (row,) = csv.DictReader(StringIO(sheet))
    assert int(row["peak_bytes"]) == peak
    assert (
        sum(
            int(row[f"{c}_bytes"])
            for c in ("parameter", "buffer", "gradient", "optimizer_state", "input", "activation", "temporary", "workspace")
        )
        == peak
    )
    for shown in (text, markdown):
        assert f"{peak:,} bytes" in shown
        assert row["peak_layer"] in shown
        assert "exact" in shown and "not counted" in shown


def test_the_batch_may_stand_in_the_shape_or_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    ways = (
        ["--input", "3x64x64", "--batch", "2"],
        ["--input", "2x3x64x64"],
        ["--input", "input=2,3,64,64"],
        ["--input", "2X3\u00d764x64", "--batch", "2"],
    )
    found = {json.loads(_run(capsys, "estimate", "resnet18", *way, "--format", "json"))["peak_bytes"] for way in ways}
    assert found == {memest.estimate(memest.model("resnet18"), input_shape=(2, 3, 64, 64)).peak_bytes}


def test_a_graph_of_numbers_needs_no_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.yaml"
    path.write_text("inputs: {x: [4, 3, 8, 8]}\nlayers: [conv2d: {out_channels: 2, kernel_size: 3}]")
    assert json.loads(_run(capsys, "estimate", str(path), "--format", "json"))["input_shapes"] == {"x": [4, 3, 8, 8]}


def test_sizes_beyond_any_machine_stay_exact(capsys: pytest.CaptureFixture[str]) -> None:
    path = DATA / "unet3d.yaml"
    data = json.loads(
        _run(capsys, "estimate", str(path), "--input", "1x131072x131072x131072", "--batch", "131072", "--infer", "--format", "json")
    )
    assert data["peak_bytes"] > 2**70
    assert data["input_shapes"]["input"][0] == 131072
    assert data["by_category"]["input"] == 4 * 131072**4


def test_a_torch_model(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    data = json.loads(
        _run(capsys, "estimate", "torch.nn:Conv2d(3, 4, kernel_size=3)", "--input", "3x8x8", "--batch", "2", "--infer", "--format", "json")
    )
    assert data["by_category"]["parameter"] == 4 * (4 * 3 * 9 + 4)


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_a_file_on_standard_input(form: str) -> None:
    text = schema.dumps(memest.load(NET), form=form)
    done = subprocess.run(
        [sys.executable, "-m", "memest", "estimate", "-", *SHAPES, "--format", "json"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["peak_bytes"] == _expected().peak_bytes


# words -------------------------------------------------------------------------------------------------------------------


def _commands(commands: Mapping[str, str] = COMMANDS, *above: str) -> dict[tuple[str, ...], Command]:
    """The function of every command by its words."""
    found: dict[tuple[str, ...], Command] = {}
    for name, home in commands.items():
        module = import_module(home)
        own = getattr(module, "COMMANDS", None)
        found |= _commands(own, *above, name) if own else {(*above, name): module.run}
    return found


def _by_typer(command: Command, words: Sequence[str]) -> dict[str, Any]:
    """What typer gives to ``command``."""
    given: dict[str, Any] = {}

    def taker(**values: Any) -> None:
        given.update(values)

    taker.words, taker.left_out = taken(command), defaults(command)  # type: ignore[attr-defined]
    app = typer.Typer()
    app.command()(as_typer(taker))
    assert app(args=list(words), standalone_mode=False) in (None, 0)
    return given


EXAMPLES = [
    (command, shlex.split(line)[len(name) + 1 :])
    for name, command in _commands().items()
    for line in (command.__doc__ or "").splitlines()
    if line.strip().startswith(f"memest {' '.join(name)}")
]
ALL = [
    *[
        "-",
        "-i",
        "a=1x2x3",
        "--input=b=4x5",
        "-b",
        "3",
        "--infer",
        "--optimizer",
        "sgd:momentum=0.9",
        "--loss",
        "mse",
        "--dtype",
        "float16",
        "--device",
        "cpu",
        "--top",
        "0",
    ],
    *[
        "--hold-output",
        "--first-step",
        "--lever",
        "inplace",
        "--lever=ddp:world=2",
        "--threads",
        "12",
        "--isa",
        "avx2",
        "--torch",
        "2.14",
        "--on",
        "a",
        "--on",
        "b",
    ],
    *["--budget", "1GiB", "--hardware", "h.yaml", "-f", "csv", "-o", "x.csv"],
]
PLAIN = [*EXAMPLES, (_commands()["estimate",], ALL), (_commands()["estimate",], ["--train", "größe.yaml"])]


@pytest.mark.parametrize(("command", "words"), PLAIN, ids=[" ".join(words) for _, words in PLAIN])
def test_a_plain_command_line_is_read_as_typer_reads_it(command: Command, words: list[str]) -> None:
    given = read(command, words)
    assert given is not None
    expected = _by_typer(command, words)
    assert given == expected
    assert {name: type(value) for name, value in given.items()} == {name: type(value) for name, value in expected.items()}


@pytest.mark.parametrize(
    "words",
    [
        "",
        "--help",
        "x --help",
        "x y",
        "x --nope",
        "x --batch",
        "x --batch 0",
        "x --batch -1",
        "x --batch 1.0",
        "x --batch ٣",
        "x --batch 2 --batch 3",
        "x -b3",
        "x --isa avx3",
        "x --isa AVX2",
        "x --format xml",
        "x --train=yes",
        "x --input --batch",
        "x -- y",
        "x --inp 3x2x2",
        "x",
    ],
)
def test_what_is_not_plain_is_left_to_typer(words: str) -> None:
    assert read(_commands()["estimate",], words.split(" ") if words else []) is None


# timeline and layers -----------------------------------------------------------------------------------------------------


def test_timeline_lists_every_event(capsys: pytest.CaptureFixture[str]) -> None:
    rows = list(csv.DictReader(StringIO(_run(capsys, "timeline", NET, *SHAPES, "--all", "--format", "csv"))))
    expected = _expected()
    assert [int(r["change_bytes"]) for r in rows] == [s.delta for s in expected.events]
    assert max(int(r["alive_bytes"]) for r in rows) == expected.peak_bytes


def test_timeline_begins_with_the_peak(capsys: pytest.CaptureFixture[str]) -> None:
    data = json.loads(_run(capsys, "timeline", NET, *SHAPES, "--top", "3", "--format", "json"))
    alive = [e["alive_bytes"] for e in data["events"]]
    assert alive == sorted(alive, reverse=True) and len(alive) == 3
    assert alive[0] == data["peak_bytes"] and data["events"][0]["event"] == data["moment"]["index"]


def test_layers_add_up(capsys: pytest.CaptureFixture[str]) -> None:
    data = json.loads(_run(capsys, "layers", NET, *SHAPES, "--format", "json"))
    graph, expected = memest.load(NET), _expected()
    rows = data["layers"]
    assert [r["layer"] for r in rows if r["layer"] != "loss"] == [layer.name for layer in graph.layers]
    assert sum(r["parameters"] for r in rows) == data["parameters"]
    assert sum(r["activation_bytes"] for r in rows) == data["activation_bytes"]
    storages = {s.storage.id: s.storage.nbytes for s in expected.events if s.storage.category == "activation"}
    assert data["activation_bytes"] == sum(storages.values()) > 0
    shared = [r["parameters"] for r in rows if r["layer"] in ("twice", "again")]
    assert shared == [16 * 8 * 9 + 16, 0], "a shared parameter counts once"


def test_layers_keep_nothing_in_inference(capsys: pytest.CaptureFixture[str]) -> None:
    data = json.loads(_run(capsys, "layers", NET, *SHAPES, "--infer", "--format", "json"))
    assert data["activation_bytes"] == 0 and data["parameters"] > 0


# the others --------------------------------------------------------------------------------------------------------------


def test_import_writes_a_file_that_gives_the_same_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("net.yaml", "net.json"):
        path = tmp_path / name
        assert _run(capsys, "import", "resnet18", "--output", str(path)) == ""
        assert memest.load(path) == memest.model("resnet18")


def test_import_of_a_torch_model_keeps_the_sizes_it_was_run_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    path = tmp_path / "net.yaml"
    call = "torch.nn:Sequential"
    assert (
        _run(capsys, "import", call.replace("Sequential", "Flatten()"), "--input", "3x10x10", "--batch", "2", "--output", str(path)) == ""
    )
    assert "examples: {N: 2, H: 10, W: 10}" in path.read_text()


def test_levers_show_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    from memest.levers.table import LEVERS

    listed = json.loads(_run(capsys, "levers", "--format", "json"))
    assert [row["lever"] for row in listed] == list(LEVERS)
    for name, row in LEVERS.items():
        data = json.loads(_run(capsys, "levers", name, "--format", "json"))
        assert data["price"] == row.price and list(data["options"]) == list(row.options)
        assert name in _run(capsys, "levers", name)


def test_a_lever_that_is_not_there_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["levers", "chanels_last"], ["estimate", NET, *SHAPES, "--lever", "chanels_last"]):
        assert main(command) == 2
        assert "did you mean 'channels_last'" in capsys.readouterr().err


def test_ops_show_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    from memest.ops.table import COMPOSITES, OPERATORS

    listed = json.loads(_run(capsys, "ops", "--format", "json"))
    assert {r["operator"] for r in listed} == {*OPERATORS, *COMPOSITES}
    for name, row in {**OPERATORS, **COMPOSITES}.items():
        data = json.loads(_run(capsys, "ops", name, "--format", "json"))
        assert data["source"] == row.source and list(data["attributes"]) == [a.name for a in row.attributes]
    assert "kernel_size" in _run(capsys, "ops", "conv2d")


def test_models_are_listed_with_their_options(capsys: pytest.CaptureFixture[str]) -> None:
    from memest.sources.models import MODELS

    listed = {r["model"]: r for r in json.loads(_run(capsys, "models", "--format", "json"))}
    assert set(listed) == set(MODELS)
    assert listed["resnet50"]["parameters"] == 25_557_032
    assert "base_filters=16" in listed["unet3d"]["options"]


def test_schema_is_json_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(_run(capsys, "schema"))["$schema"].startswith("https://json-schema.org/")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(capsys, "--version") == f"memest {memest.__version__}\n"


# help --------------------------------------------------------------------------------------------------------------------


def _examples(text: str) -> list[str]:
    return re.findall(r"^ +(memest \S.*)$", text, re.MULTILINE)


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_has_help_with_examples_and_exit_codes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = _run(capsys, command, "--help")
    assert _examples(text) and "Exit codes:" in text


def _on_two_devices(packed: bytes) -> bytes:
    """A recorded step, and the same on a second device."""
    data = pickle.loads(gzip.decompress(packed))
    segments, traces = data["segments"], data["device_traces"]
    return pickle.dumps({**data, "segments": [*segments, *({**s, "device": 1} for s in segments)], "device_traces": [traces[0], traces[0]]})


LONG = ("advise", "cluster", "fit", "formula", "models", "plot", "report", "sweep")  # commands whose examples ask for many estimates


@pytest.mark.parametrize("command", ["", *(pytest.param(c, marks=pytest.mark.slow if c in LONG else ()) for c in COMMANDS)])
def test_the_examples_in_help_run(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = _run(capsys, *filter(None, [command]), "--help")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.yaml").write_text("inputs: {input: [N, 3, H, W]}\nlayers: [conv2d: {out_channels: 4, kernel_size: 3}]")
    (tmp_path / "snapshot.pickle").write_bytes(_on_two_devices((Path(__file__).parent / "data" / "step.pickle.gz").read_bytes()))
    stages = {"features_per_stage": [4, 8], "strides": [1, 2], "kernel_sizes": 3, "n_conv_per_stage": 1, "n_conv_per_stage_decoder": 1}
    network = {"network_class_name": "unet.PlainConvUNet", "arch_kwargs": stages}
    plan = {"patch_size": [16, 16, 16], "batch_size": 2, "median_image_size_in_voxels": [32, 32, 32], "architecture": network}
    (tmp_path / "nnUNetPlans.json").write_text(json.dumps({"configurations": {"3d_fullres": plan}}))
    (tmp_path / "dataset.json").write_text(json.dumps({"channel_names": {"0": "CT"}, "labels": {"background": 0, "organ": 1}}))
    for example in _examples(text):
        of_one_channel = re.search(r"--loss binary|--infer|^memest (import|plan-inference|plan-volume)", example)
        assert "unet3d" not in example or of_one_channel, "one channel, and cross_entropy"
        arguments = shlex.split(example)[1:]
        if any((":" in a and "." in a) or a.startswith("path/") for a in arguments[:2]):
            continue  # a torch model, or a folder that makes one: covered above where torch is
        assert main(arguments) == 0, f"{example}: {capsys.readouterr().err}"


def test_help_without_a_command_names_all(capsys: pytest.CaptureFixture[str]) -> None:
    text = _run(capsys, "--help")
    for command in COMMANDS:
        assert re.search(rf"^\W*{command}\s", text, re.MULTILINE)


# where results go --------------------------------------------------------------------------------------------------------


def test_output_file_is_what_stdout_would_get(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "out.csv"
    assert _run(capsys, "estimate", NET, *SHAPES, "--format", "csv", "--output", str(path)) == ""
    assert path.read_text() == _run(capsys, "estimate", NET, *SHAPES, "--format", "csv")
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~replacing._umask()
    assert os.listdir(tmp_path) == ["out.csv"]


def test_output_keeps_the_old_file_when_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "out.csv"
    path.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(replacing.os, "replace", full)
    assert main(["models", "--format", "csv", "--output", str(path)]) == 2
    assert "No space left" in capsys.readouterr().err
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["out.csv"]


def test_output_through_a_link_and_to_a_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    _run(capsys, "ops", "relu", "--output", str(link))
    assert link.is_symlink() and "relu" in target.read_text()
    _run(capsys, "ops", "relu", "--output", os.devnull)
    assert not os.path.isfile(os.devnull)


@pytest.mark.parametrize("place", ["nowhere/out.txt", "."])
def test_output_that_cannot_be_written(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["ops", "relu", "--output", place]) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"memest: cannot write {place}") and line.count("\n") == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_behind_stdout() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "memest", "ops"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "memest: cannot write: No space left on device\n"


def test_a_reader_that_goes_away() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "memest", "timeline", "resnet50", "--input", "1x3x64x64", "--all"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(60) == 141


def test_an_interrupt_ends_with_one_line() -> None:
    code = """
import signal
import time
import memest.cli.answering as answering
from memest.cli.app import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell starts with it ignored
answering.answered = lambda _: (print("ready", flush=True), time.sleep(60))
raise SystemExit(main(["estimate", "resnet18"]))
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "memest: interrupted\n"


def test_a_bug_is_one_line_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import memest.cli.answering as answering

    def broken(_: object) -> None:
        raise KeyError("two\nlines")

    monkeypatch.setattr(answering, "answered", broken)
    assert main(["estimate", "resnet18"]) == 70
    line = capsys.readouterr().err
    assert line.startswith("memest: a bug in memest: KeyError") and line.count("\n") == 1
    monkeypatch.setenv("MEMEST_DEBUG", "1")
    with pytest.raises(KeyError):
        main(["estimate", "resnet18"])


# looks -------------------------------------------------------------------------------------------------------------------


def _on_a_terminal(columns: str, **environment: str) -> str:
    """stdout of ``memest estimate`` when it is a terminal."""
    import pty

    master, slave = pty.openpty()
    env = {**{k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "TERM")}, "TERM": "xterm", "COLUMNS": columns, **environment}
    with subprocess.Popen(
        [sys.executable, "-m", "memest", "estimate", NET, *SHAPES], stdout=slave, stderr=subprocess.PIPE, env=env
    ) as process:
        os.close(slave)
        found = b""
        while True:
            try:
                chunk = os.read(master, 65536)
            except OSError:
                break
            if not chunk:
                break
            found += chunk
    os.close(master)
    assert process.returncode == 0
    return found.decode()


def test_color_on_a_terminal_unless_told_otherwise() -> None:
    assert "\x1b[" in _on_a_terminal("100")
    assert "\x1b[" not in _on_a_terminal("100", NO_COLOR="1")


def test_columns_are_honoured_and_pipes_have_no_color() -> None:
    for columns in (50, 90):
        done = _shell("estimate", NET, *SHAPES, COLUMNS=str(columns))
        assert done.returncode == 0 and "\x1b[" not in done.stdout
        assert max(map(len, done.stdout.splitlines())) <= columns


def test_an_ascii_terminal() -> None:
    done = _shell("estimate", NET, *SHAPES, PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and done.stderr == "" and "bytes" in done.stdout


def test_markdown_and_csv_cannot_be_broken_by_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.yaml"
    path.write_text('name: "a|b\\n# c"\ninputs: {x: [1, 3, 8, 8]}\nlayers: [conv2d: {name: "=1+1|`x`", out_channels: 2, kernel_size: 3}]')
    markdown = _run(capsys, "layers", str(path), "--format", "markdown")
    assert "\n# c" not in markdown and "=1+1\\|\\`x\\`" in markdown
    rows = list(csv.reader(StringIO(_run(capsys, "layers", str(path), "--format", "csv"))))
    assert rows[1][0] == "'=1+1|`x`"


# how results are written -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["json", "csv", "md", "markdown", "txt", "TXT", ""])
def test_the_suffix_says_how_a_result_is_written(suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    form = {"md": "markdown", "txt": "text", "TXT": "text", "": "text"}.get(suffix, suffix)
    path = tmp_path / (f"out.{suffix}" if suffix else "out")
    assert _run(capsys, "ops", "conv2d", "-o", str(path)) == ""
    assert path.read_text() == _run(capsys, "ops", "conv2d", "--format", form)


WRITERS = {
    "estimate": [NET, *SHAPES],
    "timeline": [NET, *SHAPES],
    "layers": [NET, *SHAPES],
    "formula": [NET, *SHAPES],
    "fit": ["resnet18", "--budget", "1GiB", "--input", "3x64x64"],
    "sweep": ["resnet18", "--axis", "batch=1,2", "--input", "3x64x64"],
    "advise": [NET, *SHAPES, "--budget", "1GiB"],
    "compare": [NET, *SHAPES, "--versus", "mode=infer"],
    "explain": [NET, *SHAPES],
    "models": [],
    "ops": [],
    "levers": [],
    "hardware": [],
    "plot sizes": ["resnet18", "--sides", "64", "--batches", "1"],
}
REFUSED_WRITERS = {
    "formula as": (["formula", NET, *SHAPES, "--as", "python", "-o", "a.tex"], "--as python"),
    "import": (["import", "resnet18", "-o", "a.csv"], ".yaml, .yml, .json"),
    "import json": (["import", "resnet18", "--json", "-o", "a.yaml"], "--json says json"),
    "schema": (["schema", "-o", "a.yaml"], ".json"),
    "report": (["report", "resnet18", "-o", "a.pdf"], ".html"),
    "report without": (["report", "resnet18", "-o", "a"], ".html"),
    "picture and data": (["plot", "sizes", "resnet18", "-f", "csv", "-o", "a.svg"], "is a picture"),
}


@pytest.mark.parametrize("command", WRITERS)
@pytest.mark.parametrize(
    ("given", "words"), [(["-o", "a.json", "-f", "csv"], ("says json", "says csv")), (["-o", "a.html"], ("'.html'", ".json"))]
)
def test_a_format_and_a_file_that_contradict_each_other_are_refused_before_the_work(
    command: str,
    given: list[str],
    words: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from memest.cli import answering, planning

    monkeypatch.chdir(tmp_path)
    for room in (answering, planning):
        monkeypatch.setattr(room, "open_with_inputs", lambda *_: pytest.fail("work was begun"))
    assert main([*command.split(), *WRITERS[command], *given]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and all(w in line for w in words), line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("what", REFUSED_WRITERS)
def test_a_file_that_is_not_what_a_command_writes(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, word = REFUSED_WRITERS[what]
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and word in line, line
    assert not list(tmp_path.iterdir())


def test_an_unknown_suffix_with_a_format_is_fine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "out.data"
    assert _run(capsys, "ops", "conv2d", "-o", str(path), "-f", "json") == ""
    assert json.loads(path.read_text())["operator"] == "conv2d"


def test_sizes_go_to_a_file_as_numbers_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "sizes.csv"
    _run(capsys, "plot", "sizes", "resnet18", "--sides", "64", "-b", "3", "-o", str(path))
    (row,) = csv.DictReader(StringIO(path.read_text()))
    assert row["input"] == "3x3x64x64"
    assert int(row["peak_bytes"]) == memest.estimate(memest.model("resnet18"), input_shape=(3, 3, 64, 64)).peak_bytes


# the device, names that are not there, nothing at all --------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", ["estimate", "timeline", "layers", "formula", "fit", "sweep", "advise", "compare", "explain", "report", "plot timeline"]
)
@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("cuda", "runtime torch-cuda runs on an accelerator: name one, such as machine='h100-80gb' (--on h100-80gb)"),
        ("cuda:0", "runtime torch-cuda runs on an accelerator: name one, such as machine='h100-80gb' (--on h100-80gb)"),
        ("mps", "device 'mps' is not modelled; use 'cpu' or 'cuda'"),
    ],
)
def test_a_device_that_cannot_be_is_one_line(command: str, device: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    extra = {"report": ["-o", "a.html"], "fit": ["--budget", "1GiB"], "advise": ["--budget", "1GiB"], "compare": ["resnet34"]}
    extra["sweep"] = ["--axis", "batch=1"]
    assert main([*command.split(), "resnet18", "--device", device, *extra.get(command, [])]) == 2
    assert capsys.readouterr().err == f"memest: {said}\n"


def test_the_cpu_may_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(capsys, "estimate", NET, *SHAPES, "--device", "cpu") == _run(capsys, "estimate", NET, *SHAPES)


@pytest.mark.parametrize(
    ("given", "word"),
    [
        (["--optimizer", "lion"], "there are sgd, adam, adamw"),
        (["--optimizer", "adam:zzz=1"], "there are "),
        (["--loss", "focal"], "there are cross_entropy, nll_loss"),
        (["--dtype", "int4"], "there are float16, bfloat16, float32, float64"),
        (["--lever", "quantize"], "there are freeze, inplace"),
        (["--lever", "checkpoint:zzz=1"], "there are modules, every, budget"),
        (["--lever", "cpu_offload"], "did you mean 'offload_optimizer'?"),
        (["--lever", "windows"], "did you mean 'sliding_window'?"),
        (["--lever", "chekpoint"], "did you mean 'checkpoint'?"),
    ],
)
def test_a_name_far_from_all_is_told_what_there_is(given: list[str], word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["estimate", "resnet18", *given]) == 2
    line = capsys.readouterr().err
    assert word in line and line.count("\n") == 1


@pytest.mark.parametrize("command", [[], ["plot"]])
def test_nothing_at_all_is_answered_with_the_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    help_ = _run(capsys, *command, "--help")
    assert main(command) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.strip() == help_.strip() and captured.err.count("\n") > 20


# completion --------------------------------------------------------------------------------------------------------------


def _offered(line: str) -> list[str]:
    """What bash is offered behind ``line``."""
    words = line.split()
    where = len(words) - (not line.endswith(" "))
    done = _shell(_MEMEST_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(where))
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("memest e", ["estimate", "explain"]),
        ("memest plot t", ["timeline", "treemap"]),
        ("memest estimate resnet1", ["resnet18", "resnet101", "resnet152"]),
        ("memest compare resnet18 vgg11_", ["vgg11_bn"]),
        ("memest estimate resnet18 --optimizer adama", ["adamax"]),
        ("memest estimate resnet18 --loss bin", ["binary_cross_entropy", "binary_cross_entropy_with_logits"]),
        ("memest estimate resnet18 --lever ch", ["channels_last", "checkpoint"]),
        ("memest estimate resnet18 --dtype bf", ["bfloat16"]),
        ("memest estimate resnet18 --on a100-4", ["a100-40gb"]),
        ("memest estimate resnet18 --format ", ["text", "json", "csv", "markdown"]),
        ("memest hardware rtx-50", ["rtx-5090"]),
        ("memest levers off", ["offload_optimizer"]),
        ("memest ops conv_transpose1", ["conv_transpose1d"]),
        (f"memest layers {DATA}/unet", [f"{DATA}/unet3d.yaml"]),
    ],
)
def test_a_shell_is_offered_names(line: str, offered: list[str]) -> None:
    assert _offered(line) == offered


# cold start --------------------------------------------------------------------------------------------------------------


def test_an_estimate_starts_without_torch_sympy_and_numpy() -> None:
    code = """
import sys
from memest.cli.app import main
main(["estimate", "resnet50", "--input", "3x224x224", "--batch", "8", "--output", "/dev/null"])
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "sympy", "numpy", "yaml"} & set(done.stdout.split())


@pytest.mark.slow
def test_an_estimate_takes_less_than_700_ms_of_cpu() -> None:
    import resource

    def used() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert _shell("estimate", "resnet50", "--input", "3x224x224", "--batch", "8").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(used() for _ in range(3)) < 0.7


@pytest.mark.parametrize(
    "word, meant", [("1MiB", "--budget 1MiB"), ("24GB", "--budget 24GB"), ("3x64x64", "--input 3x64x64"), ("8", "--batch 8"), ("fast", "")]
)
def test_a_word_without_its_option_is_told_which(word: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = f"; did you mean {meant}?" if meant else ""
    assert main(["fit", "resnet18", word]) == 2
    err = capsys.readouterr().err
    assert err.startswith("memest: Got unexpected extra argument") and err.endswith(f" ({word}){said}\n")


def test_what_is_on_by_default_can_be_turned_off() -> None:
    from dataclasses import fields

    from memest.cli.options import FLAGS
    from memest.estimate.question import Question

    assert all("/--no-" in FLAGS.get(f.name, "") for f in fields(Question) if f.default is True)
    asked = ["estimate", "unet2d:levels=2,base_filters=2", "--input", "3x16x16", "--batch", "1", "--infer", "--no-ov-mmap"]
    assert main([*asked, "--runtime", "openvino", "--ov-weights", "ir"]) == 0
    assert main(asked) == 2
