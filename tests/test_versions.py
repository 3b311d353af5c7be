"""Which torch a result speaks of: chosen, named in every format, and warned about where it is not the one at hand."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from typing import Any

import pytest

import memest
from memest.cli.app import main
from memest.errors import FileError, UsageError
from memest.machines import versions
from memest.machines.versions import BEST_MEASURED, MODELLED, NEWEST, Torch, nearest, torch_of, version_for, version_of
from memest.sources import files as schema

MODEL = "unet2d:base_filters=4,levels=2"
SHAPE = (2, 3, 16, 16)
RUN = [MODEL, "--input", "3x16x16", "--batch", "2"]


@pytest.fixture
def at_hand(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets the torch that is installed."""

    def install(release: str | None) -> None:
        monkeypatch.setattr(versions, "installed", lambda: release)

    return install


def compared_graph() -> memest.Graph:
    """Where the versions differ: the backward of a maximum that could be the peak."""
    b = memest.Builder("compared")
    x = b.input("input", ("N", 3, "H", "W"))
    y = b.layer("conv2d", x, out_channels=3, kernel_size=1)
    z = b.layer("maximum", y, b.layer("relu", y))
    return b.build(z)


def peak_of(graph: memest.Graph, **how: Any) -> int:
    return memest.estimate(graph, input_shape=(64, 3, 32, 32), loss="mse_loss", **how).peak_bytes


# choosing ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "recorded", "version"),
    [
        (None, None, NEWEST),
        (None, "2.9.0", (2, 9)),
        (None, "2.13.0", (2, 13)),
        (None, "2.14.1", (2, 14)),
        (None, "2.4.1", min(MODELLED)),
        (None, "2.99.0", max(MODELLED)),
        ("2.9", "2.13.0", (2, 9)),
        ("2.14", "2.13.0", (2, 14)),
        ("2.13.0+cpu", None, (2, 13)),
        ("2.14.1+cu130", None, (2, 14)),
    ],
)
def test_the_version_is_the_one_asked_for_then_the_one_recorded_with(asked: str | None, recorded: str | None, version: Any) -> None:
    assert version_for(asked, recorded) == version


@pytest.mark.parametrize("asked", ["2.4", "2", "two", "", "2.15.0", "2.14\n", "2.14\x1b[31m", 2.14])
def test_a_version_that_is_not_modelled_is_refused(asked: Any) -> None:
    with pytest.raises(UsageError, match=r"2\.1[34]") as caught:
        memest.estimate(memest.model(MODEL), input_shape=SHAPE, torch=asked)
    assert "\x1b" not in str(caught.value)


def test_every_version_names_a_release_of_its_own() -> None:
    assert list(MODELLED) == sorted(MODELLED) and BEST_MEASURED in MODELLED
    assert all(version_of(m.release) == nearest(m.release) == v and m.how for v, m in MODELLED.items())


def test_behind_the_best_measured_version_stand_all_stored_cases() -> None:
    pytest.importorskip("torch")
    from validation.cases import BY_NAME
    from validation.compare import stored

    releases = {result["torch"] for _, result in stored()}
    assert {version_of(r) for r in releases} >= {BEST_MEASURED}
    measured = [r for _, r in stored() if version_of(r["torch"]) == BEST_MEASURED]
    assert len(measured) == len(BY_NAME)
    assert {r.partition("+")[0] for r in releases} <= {m.release for m in MODELLED.values()}


def test_results_of_two_versions_stand_beside_one_another() -> None:
    pytest.importorskip("torch")
    from validation.compare import stored
    from validation.measure import results_for

    old, new = (results_for("some-machine", release) for release in ("2.13.0+cpu", "2.14.1+cpu"))
    assert old != new and old.parent == new.parent and old.name == "some-machine"
    assert all(results_for(result["machine"], result["torch"]).name == folder for folder, result in stored())


def test_a_row_whose_kernel_changed_follows_the_version() -> None:
    graph = compared_graph()
    old, new = (peak_of(graph, torch=v) for v in ("2.13", "2.14"))
    mask = 64 * 3 * 32 * 32
    assert new - old in (-mask, 0, mask)
    streams = [
        [s.delta for s in memest.estimate(graph, input_shape=(4, 3, 8, 8), loss="mse_loss", torch=v).events] for v in ("2.13", "2.14")
    ]
    assert streams[0] != streams[1] and sorted(streams[0]) == sorted(streams[1])


def test_one_graph_keeps_what_each_version_says_apart() -> None:
    """Compiled tables and summaries live on the graph: one version's are not another's."""
    graph, sizes = compared_graph(), ((4, 3, 8, 8), (5, 3, 8, 9), (6, 3, 10, 8), (7, 3, 12, 16))
    fresh = {(v, s): [e.delta for e in _events(compared_graph(), s, v)] for v in ("2.13", "2.14") for s in sizes}
    for shape in sizes:
        for version in ("2.13", "2.14"):
            assert [e.delta for e in _events(graph, shape, version)] == fresh[version, shape]
    for version in ("2.13", "2.14"):
        swept = memest.sweep(graph, batch=[4, 9], H=[8, 16], W=8, loss="mse_loss", torch=version)
        for row in swept.rows():
            assert row["peak_bytes"] == _estimate(compared_graph(), (row["batch"], 3, row["H"], row["W"]), version).peak_bytes


def _estimate(graph: memest.Graph, shape: tuple[int, ...], version: str) -> memest.Estimate:
    return memest.estimate(graph, input_shape=shape, loss="mse_loss", torch=version)


def _events(graph: memest.Graph, shape: tuple[int, ...], version: str) -> Any:
    return _estimate(graph, shape, version).events


# what is said ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "recorded", "installed", "warned", "noted"),
    [
        ((2, 13), None, None, False, 0),
        ((2, 13), None, "2.13.0", False, 0),
        ((2, 13), None, "2.14.1", False, 1),
        ((2, 13), "2.14.1", "2.14.1", False, 1),
        ((2, 13), "2.14.0", "2.14.1", False, 2),
        ((2, 14), "2.14.1", "2.13.0", False, 1),
        ((2, 13), None, "2.4.1", True, 1),
        ((2, 14), "2.15.0", "2.15.0", True, 1),
        ((2, 13), "2.13.0", "2.4.1", False, 0),
    ],
)
def test_what_differs_is_said(version: Any, recorded: str | None, installed: str | None, warned: bool, noted: int) -> None:
    said = Torch(version=version, recorded=recorded, installed=installed)
    assert bool(said.warning) is warned and len(said.notes) == noted
    assert all(said.modelled in n and ((recorded or "") in n or (installed or "") in n) for n in said.notes)
    if warned:
        assert said.warning == f"modelled as torch {said.modelled}, not measured on yours ({recorded or installed})"


COMMANDS = {
    "estimate": ["estimate", *RUN],
    "layers": ["layers", *RUN],
    "timeline": ["timeline", *RUN],
    "formula": ["formula", *RUN],
    "compare": ["compare", *RUN, "--versus", "optimizer=adam"],
    "fit": ["fit", MODEL, "--budget", "64MiB", "--input", "3x16x16"],
    "sweep": ["sweep", MODEL, "--axis", "batch=1,2", "--input", "3x16x16"],
    "advise": ["advise", *RUN, "--budget", "1GiB", "--infer"],
    "sizes": ["plot", "sizes", MODEL, "--sides", "16", "--batches", "1,2"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_result_names_its_torch_in_every_format(command: str, capsys: pytest.CaptureFixture[str], at_hand: Any) -> None:
    at_hand("2.14.1")
    given = [*COMMANDS[command], "--torch", "2.14"]
    for form in ("text", "markdown"):
        assert main([*given, "--format", form]) == 0
        out = capsys.readouterr().out
        assert "torch 2.14" in out and "2.14.1" in out
    assert main([*given, "--format", "csv"]) == 0
    rows = list(csv.DictReader(StringIO(capsys.readouterr().out)))
    names = ("a_torch", "b_torch") if command == "compare" else ("torch",)
    assert rows and all(row[name] == "2.14" for row in rows for name in names)
    assert main([*given, "--format", "json"]) == 0
    data = json.loads(capsys.readouterr().out)
    found = data["a"] if command == "compare" else data["start"] if command == "advise" else data
    assert found["torch"]["modelled"] == "2.14" and found["torch"]["measured_on"] == "2.14.1"
    assert found["torch"]["installed"] == "2.14.1" and found["torch"]["recorded"] is None


@pytest.mark.parametrize("command", COMMANDS)
def test_a_torch_that_is_not_modelled_is_warned_about_once(command: str, capsys: pytest.CaptureFixture[str], at_hand: Any) -> None:
    at_hand("2.4.1")
    said = "modelled as torch 2.14, not measured on yours (2.4.1)"
    assert main(COMMANDS[command]) == 0
    captured = capsys.readouterr()
    assert captured.err == f"memest: warning: {said}\n"
    assert said in " ".join(captured.out.split())
    assert main([*COMMANDS[command], "--format", "json"]) == 0
    assert said in json.dumps(json.loads(capsys.readouterr().out), ensure_ascii=False)


def test_the_report_page_says_it_too(tmp_path: Any, capsys: pytest.CaptureFixture[str], at_hand: Any) -> None:
    at_hand("2.4.1")
    path = tmp_path / "r.html"
    assert main(["report", *RUN, "--sizes", "16", "--batches", "2", "--optimizer", "sgd", "--torch", "2.14", "-o", str(path)]) == 0
    assert capsys.readouterr().err == "memest: warning: modelled as torch 2.14, not measured on yours (2.4.1)\n"
    assert "modelled as torch 2.14, not measured on yours (2.4.1)" in path.read_text(encoding="utf-8")


def test_python_finds_the_warning_in_the_notes(at_hand: Any) -> None:
    at_hand("2.4.1")
    graph = memest.model(MODEL)
    said = "modelled as torch 2.14, not measured on yours (2.4.1)"
    est = memest.estimate(graph, input_shape=SHAPE)
    assert est.notes == (said,) and est.to_dict()["notes"] == [said]
    assert said in memest.fit(graph, "64MiB", H=16, W=16).notes and said in memest.sweep(graph, batch=1, H=16, W=16).notes
    assert said in memest.advise(graph, "1GiB", input_shape=SHAPE, mode="infer").notes
    at_hand("2.14.5")
    assert memest.estimate(graph, input_shape=SHAPE).notes == ()


def test_compare_names_two_versions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *RUN, "--torch", "2.13", "--versus", "torch=2.14", "--format", "json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["a"]["torch"]["modelled"], data["b"]["torch"]["modelled"]) == ("2.13", "2.14")
    for wrong in (["--torch", "2.4"], ["--versus", "torch=9.9"]):
        assert main(["compare", *RUN, "--versus", "batch=3", *wrong]) == 2
        assert "is not modelled" in capsys.readouterr().err


# what a graph remembers --------------------------------------------------------------------------------------------------


def test_a_file_keeps_the_torch_a_graph_was_recorded_with() -> None:
    graph = compared_graph().with_(torch="2.14.1")
    for form in ("yaml", "json"):
        again = schema.loads(schema.dumps(graph, form=form), form=form)
        assert again.torch == "2.14.1" and again == graph
    assert memest.estimate(graph, input_shape=(2, 3, 8, 8), loss="mse_loss").torch.version == (2, 14)
    assert "torch" not in schema.to_dict(compared_graph())
    assert replace(graph, torch=None) == compared_graph()


@pytest.mark.parametrize("written", ["2.14", "[2, 14]", "'\\e[31m2.14'", "newest", "''"])
def test_a_file_with_another_torch_is_refused(written: str) -> None:
    text = schema.dumps(compared_graph())
    if written == "2.14":  # a number in YAML
        with pytest.raises(FileError, match=r"a text such as '2\.14\.1'"):
            schema.loads(f"{text}torch: 2.14\n")
        return
    with pytest.raises(FileError, match="torch"):
        schema.loads(f"{text}torch: {written}\n")


def test_a_recorded_module_is_played_as_its_torch() -> None:
    torch = pytest.importorskip("torch")
    from memest import from_torch

    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Dropout(), torch.nn.GroupNorm(2, 4))
    graph = from_torch(net, (2, 3, 8, 8))
    release = torch.__version__.partition("+")[0]
    assert graph.torch == release
    found = memest.estimate(graph, input_shape=(2, 3, 8, 8), mode="infer")
    assert found.torch == torch_of(nearest(release), release) and found.torch.installed == release


def test_a_network_that_the_versions_see_differently_is_exact_on_the_torch_at_hand() -> None:
    torch = pytest.importorskip("torch")
    from memest import from_torch
    from validation.protocol import inputs_for, measure_training

    class Net(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.GroupNorm(2, 8)

        def forward(self, x: Any) -> Any:
            y = self.conv(x).transpose(2, 3)
            return torch.maximum(self.norm(y), y)

    shape = (4, 3, 32, 32)
    graph = from_torch(Net(), shape)
    measured = measure_training(Net().train(), inputs_for([shape]), "sgd", "mse_loss")
    cpu = memest.Cpu.detect().with_(threads=torch.get_num_threads())
    found = memest.estimate(graph, input_shape=shape, loss="mse_loss", cpu=cpu)
    assert found.peak_bytes == measured.peak_bytes and [s.delta for s in found.events] == [e.delta for e in measured.events]
    peaks = {v: memest.estimate(graph, input_shape=shape, loss="mse_loss", cpu=cpu, torch=v).peak_bytes for v in ("2.13", "2.14")}
    assert peaks["2.13"] != peaks["2.14"] and found.peak_bytes == peaks[found.torch.modelled]


# the torch that is installed ---------------------------------------------------------------------------------------------


def test_the_installed_torch_is_found_without_importing_it() -> None:
    torch = pytest.importorskip("torch")
    code = "import sys; from memest.machines.versions import installed; print(installed(), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [torch.__version__.partition("+")[0], "False"]


@pytest.mark.parametrize(
    ("content", "found"),
    [("__version__ = '2.4.1+cpu'\n", "2.4.1"), ('__version__: str = "x"\n', "None"), ("", "None"), (None, "None")],
)
def test_a_torch_that_does_not_state_its_version_is_none(content: str | None, found: str, tmp_path: Any) -> None:
    (tmp_path / "torch").mkdir()
    if content is not None:
        (tmp_path / "torch" / "version.py").write_text(content)
        (tmp_path / "torch" / "__init__.py").write_text("raise RuntimeError('imported')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from memest.machines.versions import installed; print(installed())"
    if content is None:
        code = code.replace("sys.path.insert(0,", "sys.path[:] = [p for p in sys.path if 'site-packages' not in p]; sys.path.insert(0,")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == found
