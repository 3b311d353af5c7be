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
import test_laws as laws

import memest
from memest.cli.app import main
from memest.errors import FileError, UsageError
from memest.machines import versions
from memest.machines.versions import BEST_MEASURED, MODELLED, NEWEST, Torch, nearest, torch_of, version_for, version_of
from memest.ops.operator import Example
from memest.ops.table import COMPOSITES, OPERATORS
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


VERSIONS = [".".join(map(str, v)) for v in MODELLED]


def stream_of(graph: memest.Graph, shape: tuple[int, ...], version: str, **how: Any) -> list[int]:
    cpu = memest.Cpu(isa="avx512", threads=2)
    return [s.delta for s in memest.estimate(graph, input_shape=shape, torch=version, cpu=cpu, **{"loss": "mse_loss", **how}).events]


def changes(graph: memest.Graph, shape: tuple[int, ...], **how: Any) -> list[str]:
    """The versions whose stream is another than that of the version before."""
    streams = [stream_of(graph, shape, v, **how) for v in VERSIONS]
    return [v for v, a, b in zip(VERSIONS[1:], streams, streams[1:], strict=False) if a != b]


def one_layer(op: str, channels: int = 4, **attributes: Any) -> memest.Graph:
    b = memest.Builder(op)
    x = b.input("input", ("N", channels, "H", "W"))
    y = b.layer("conv2d", x, out_channels=channels, kernel_size=1)
    return b.build(b.layer(op, y, **attributes))


def test_the_copy_of_a_repeat_is_ordered_by_small_tensors_after_2_9() -> None:
    assert changes(one_layer("repeat", repeats=(1, 2, 1, 1)), (2, 4, 8, 8)) == ["2.11"]


def test_running_statistics_are_averaged_where_they_are_only_read_up_to_2_10(monkeypatch: pytest.MonkeyPatch) -> None:
    row = COMPOSITES["instance_norm"]
    example = next(e for e in row.examples if e.attributes.get("use_input_stats") is False)
    means = []
    for version in MODELLED:
        monkeypatch.setattr(laws, "VERSION", version)
        means.append(laws.read(row, example, laws.specs_of(example)).deltas.count(12))  # a mean of 3 channels
    assert means == [2, *(0 for v in MODELLED if v >= (2, 11))]


def test_a_product_in_bfloat16_has_room_for_every_sum_from_2_11_on() -> None:
    b = memest.Builder("products")
    x = b.input("input", ("N", 64))
    graph = b.build(b.layer("linear", x, out_features=200))
    assert changes(graph, (200, 64), dtype="bfloat16") == ["2.11"]


def test_a_convolution_over_its_whole_input_is_the_kernel_of_the_release_it_comes_with() -> None:
    whole = one_layer("conv2d", 16, out_channels=64, kernel_size=8)
    assert changes(whole, (16, 16, 8, 8)) == ["2.12"]
    assert changes(whole, (64, 16, 8, 8)) == ["2.11", "2.12"]
    assert changes(whole, (16, 16, 8, 8), dtype="bfloat16") == ["2.11"]
    thirty_two = one_layer("conv2d", 16, out_channels=32, kernel_size=8)
    assert changes(thirty_two, (4, 16, 8, 8)) == ["2.11", "2.12", "2.13"]  # 2.12 leaves sums of 32 terms alone to it
    assert changes(one_layer("conv2d", 16, out_channels=64, kernel_size=3), (16, 16, 8, 8)) == []


def test_resizing_by_lanczos_begins_with_2_12() -> None:
    graph = one_layer("interpolate", scale_factor=0.5, mode="lanczos", antialias=True)
    assert stream_of(graph, (2, 4, 8, 8), "2.12")
    with pytest.raises(memest.MemestError, match=r"interpolate.*lanczos.*2\.12"):
        stream_of(graph, (2, 4, 8, 8), "2.11")


def test_every_version_knows_its_onednn() -> None:
    from memest.libraries.onednn.releases import RELEASES

    assert list(RELEASES) == list(MODELLED)


WHOLE = [  # batch, channels in and out, side, dtype
    (2, 16, 10, 11, "float32"), (16, 3, 1, 6, "float32"), (16, 64, 32, 7, "float32"), (3, 5, 300, 6, "float32"), (65, 16, 64, 6, "float32"),
    (200, 3, 48, 6, "float32"), (2, 16, 10, 11, "bfloat16"), (33, 3, 1, 6, "bfloat16"), (130, 32, 100, 6, "bfloat16"),
]  # fmt: skip


@pytest.mark.parametrize(("batch", "into", "out", "side", "dtype"), WHOLE)
def test_a_convolution_over_its_whole_input_is_exact_on_the_torch_at_hand(
    batch: int, into: int, out: int, side: int, dtype: str, cpu: memest.Cpu
) -> None:
    pytest.importorskip("torch")
    from validation.rows import measure, normalized, predict

    example = Example(
        shapes=((batch, into, side, side), (out, into, side, side), (out,)), attributes={}, dtypes=(dtype,) * 3, layout="contiguous"
    )
    row = OPERATORS["conv2d"] if "conv2d" in OPERATORS else COMPOSITES["conv2d"]
    assert normalized(predict(row, example, cpu)) == normalized([e.delta for e in measure(row, example)])


@pytest.mark.parametrize("shapes", [((1, 1, 600), (1, 600, 30)), ((5, 1, 256), (5, 256, 300)), ((2, 600, 1), (2, 1, 30))])
def test_a_batch_of_rows_and_of_columns_is_multiplied_as_it_lies(shapes: Any, cpu: memest.Cpu) -> None:
    pytest.importorskip("torch")
    from validation.rows import measure, normalized, predict

    example = Example(shapes=shapes, attributes={}, dtypes=("bfloat16", "bfloat16"))
    assert normalized(predict(OPERATORS["bmm"], example, cpu)) == normalized([e.delta for e in measure(OPERATORS["bmm"], example)])


# stored results of versions ----------------------------------------------------------------------------------------------


def test_the_sample_of_cases_is_spread_over_the_groups() -> None:
    pytest.importorskip("torch")
    from validation.cases import CASES
    from validation.versions import SAMPLED, UNSAMPLED, sample

    taken = sample()
    assert len({c.name for c in taken}) == len(taken) == SAMPLED
    counts = {c.group: sum(d.group == c.group for d in taken) for c in CASES if c.group not in UNSAMPLED}
    assert max(counts.values()) - min(counts.values()) <= 1


def test_every_modelled_version_has_a_stored_result_and_a_torchvision() -> None:
    pytest.importorskip("torch")
    from validation.versions import VISION, sample, stored_versions

    results = {r["torch"].partition("+")[0]: r for r in stored_versions()}
    assert set(VISION) == {m.release for m in MODELLED.values()}
    assert set(results) >= {m.release for m in MODELLED.values() if m.how == versions.SAMPLED}
    for result in results.values():
        assert {c["name"] for c in result["cases"]} == {c.name for c in sample()}
        assert all(count["run"] == count["equal"] > 0 for count in result["checked"].values())


def test_a_stored_peak_that_differs_is_a_failure() -> None:
    pytest.importorskip("torch")
    from validation.versions import compare_versions, stored_versions, version_failures, versions_table

    result = next(r for r in stored_versions() if r["torch"].startswith("2.9."))
    small = [c for c in result["cases"] if c["name"].startswith("plain-conv-unet-dims-2")]
    assert small
    found = compare_versions([{**result, "cases": small}])
    assert all(c.run == c.equal for c in found) and f"{len(small)} of {len(small)}" in versions_table(found)
    wrong = [{**small[0], "peak_bytes": small[0]["peak_bytes"] + 4}, *small[1:]]
    problems = version_failures(compare_versions([{**result, "cases": wrong}]))
    assert any(f"cases: 1 of {len(small)} differ {small[0]['name']}" in p for p in problems)
    claimed = sum(m.how == versions.SAMPLED for m in MODELLED.values())
    assert sum("has no stored result" in p for p in problems) == claimed - 1


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
    found = memest.estimate(graph, input_shape=shape, loss="mse_loss", machine=cpu)
    assert found.peak_bytes == measured.peak_bytes and [s.delta for s in found.events] == [e.delta for e in measured.events]
    peaks = {v: memest.estimate(graph, input_shape=shape, loss="mse_loss", machine=cpu, torch=v).peak_bytes for v in ("2.13", "2.14")}
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
