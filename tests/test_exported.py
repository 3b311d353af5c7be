"""Exported programs (``.pt2``): the graph in the archive, equal to what ``ExportedProgram.module()`` runs, event by event."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest

import memest
from memest.cli.app import main
from memest.errors import FileError, MemestError, UnsupportedError, UsageError
from memest.sources.archives import read
from memest.sources.opening import open_model

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from validation.protocol import Measurement, inputs_for, measure_inference, measure_training  # noqa: E402
from validation.streams import first_difference  # noqa: E402

SHAPE = (2, 3, 16, 16)
Forward = Callable[[Any, Any], Any]


class Net(nn.Module):
    """Layers of the usual kinds, called by ``run``."""

    def __init__(self, run: Forward) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.norm, self.head, self.drop = nn.GroupNorm(2, 8), nn.Linear(8, 4), nn.Dropout(0.2)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.attention = nn.Linear(8, 24)
        self.register_buffer("shift", torch.zeros(8, 1, 1))
        self.run = run

    def forward(self, x: Any) -> Any:
        return self.run(self, x)


def classified(self: Any, x: Any) -> Any:
    y = F.max_pool2d(self.stem(x), 2) + self.shift
    return self.head(self.drop(F.silu(self.norm(y)).mean((2, 3))))


def resized(self: Any, x: Any) -> Any:
    y = F.avg_pool2d(self.stem(x), 2)
    return torch.cat([self.up(y), F.interpolate(y, scale_factor=2.0)], 1).softmax(1)


def attended(self: Any, x: Any) -> Any:
    y = F.adaptive_avg_pool2d(self.stem(x), 4).flatten(2).transpose(1, 2)
    b, n, c = y.shape
    q, k, v = self.attention(y).view(b, n, 3, 2, c // 2).permute(2, 0, 3, 1, 4).unbind(0)
    z = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c)
    return self.head(F.layer_norm(z, (8,)))[:, 1:]


def sliced(self: Any, x: Any) -> Any:
    y = self.stem(F.pad(x, (1, 1, 1, 1), mode="reflect"))
    a, b = y[:, :, ::2, 1:].chunk(2, 1)
    return torch.where(a > 0, a.exp(), b.clamp(min=0.1)).sqrt().div_(2).to(torch.float64)


FORWARDS: Mapping[str, Forward] = {f.__name__: f for f in (classified, resized, attended, sliced)}


def _saved(run: Forward, folder: Path, *, training: bool = False, dynamic: bool = True, decomposed: bool = False) -> tuple[str, Any]:
    """A file, and the module that runs it."""
    batch = {0: torch.export.Dim("batch", min=2, max=32)} if dynamic else None
    program = torch.export.export(Net(run).train(training), (torch.rand(SHAPE),), dynamic_shapes=(batch,))
    program = program.run_decompositions() if decomposed else program
    path = folder / "net.pt2"
    torch.export.save(program, path)
    module = program.module()
    module.eval = module.train = lambda mode=True: module  # type: ignore[assignment,method-assign,misc]  # it takes neither
    return str(path), module


def _same(predicted: Any, measured: Measurement) -> None:
    assert predicted.standing_bytes == measured.standing_bytes
    difference = first_difference(predicted.events, measured.events)
    assert difference is None, f"\n{difference}"
    peak = predicted.standing_bytes + max(accumulate((e.delta for e in predicted.events), initial=0))
    assert peak == measured.peak_bytes == predicted.peak_bytes


@pytest.mark.slow
@pytest.mark.parametrize("name", FORWARDS)
def test_inference_is_what_the_program_does(name: str, tmp_path: Path) -> None:
    path, module = _saved(FORWARDS[name], tmp_path)
    cpu = memest.Cpu.detect().with_(threads=torch.get_num_threads())
    graph = open_model(path, [(4, *SHAPE[1:])], "infer")
    assert graph.inputs[0].shape[1:] == SHAPE[1:] and not isinstance(graph.inputs[0].shape[0], int)
    for batch in (4, 7):
        shape = (batch, *SHAPE[1:])
        predicted = memest.estimate(graph, input_shape=shape, mode="infer", machine=cpu)
        _same(predicted, measure_inference(module, inputs_for([shape])))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["classified", "attended"])
def test_training_is_what_the_program_does(name: str, tmp_path: Path) -> None:
    path, module = _saved(FORWARDS[name], tmp_path, training=True)
    cpu = memest.Cpu.detect().with_(threads=torch.get_num_threads())
    predicted = memest.estimate(open_model(path, [SHAPE]), input_shape=SHAPE, optimizer="adam", loss="mse_loss", machine=cpu)
    _same(predicted, measure_training(module, inputs_for([SHAPE]), "adam", "mse_loss"))


@pytest.mark.parametrize("dynamic", [False, True])
def test_load_takes_a_program(tmp_path: Path, dynamic: bool) -> None:
    batch = {0: torch.export.Dim("batch", min=2, max=32)} if dynamic else None
    torch.export.save(torch.export.export(torch.nn.Conv2d(3, 4, 3), (torch.rand(SHAPE),), dynamic_shapes=(batch,)), tmp_path / "net.pt2")
    graph = memest.load(tmp_path / "net.pt2")
    assert (graph.inputs[0].shape == SHAPE) is not dynamic
    given = (4, *SHAPE[1:]) if dynamic else SHAPE
    same = open_model(str(tmp_path / "net.pt2"), [given])
    assert (
        memest.estimate(graph, input_shape=given, loss="mse").peak_bytes == memest.estimate(same, input_shape=given, loss="mse").peak_bytes
    )
    (tmp_path / "cut.pt2").write_bytes((tmp_path / "net.pt2").read_bytes()[:2000])
    with pytest.raises(FileError, match=r"cut\.pt2 is no exported program of torch\.export\.save"):
        memest.load(tmp_path / "cut.pt2")
    with pytest.raises(UsageError, match="options are for nnU-Net's plans"):
        memest.load(tmp_path / "net.pt2", configuration="2d")


@pytest.mark.slow
def test_sizes_that_the_program_fixes_are_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, _ = _saved(classified, tmp_path, dynamic=False)
    assert open_model(path, [SHAPE], "infer").inputs[0].shape == SHAPE
    with pytest.raises(UsageError, match="input 'x' is 2x3x16x16, got 4x3x16x16; export it with dynamic_shapes"):
        open_model(path, [(4, 3, 16, 16)])
    assert main(["estimate", path, "--infer", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["input_shapes"] == {"x": list(SHAPE)}
    with pytest.raises(UsageError, match="no input 'y'"):
        open_model(path, {"y": SHAPE})


@pytest.mark.slow
def test_sizes_outside_the_range_are_refused(tmp_path: Path) -> None:
    path, _ = _saved(classified, tmp_path)
    with pytest.raises(MemestError, match="was exported for 2 to 32, got 64"):
        open_model(path, [(64, 3, 16, 16)])
    graph = open_model(path, [SHAPE], "infer")
    with pytest.raises(MemestError):
        memest.estimate(graph, input_shape=(33, 3, 16, 16), mode="infer")
    assert memest.estimate(graph, input_shape=(32, 3, 16, 16), mode="infer").peak_bytes > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", FORWARDS)
def test_a_decomposed_program_infers_alone(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, module = _saved(FORWARDS[name], tmp_path, decomposed=True)
    assert not read(Path(path)).trainable
    cpu = memest.Cpu.detect().with_(threads=torch.get_num_threads())
    try:
        graph = open_model(path, [SHAPE], "infer")
    except UnsupportedError as e:
        assert "save it as torch.export.export gives it" in str(e) and name == "attended"  # whose pieces no user calls
        return
    predicted = memest.estimate(graph, input_shape=SHAPE, mode="infer", machine=cpu)
    _same(predicted, measure_inference(module, inputs_for([SHAPE])))
    assert main(["estimate", path, "--input", "2x3x16x16", "--loss", "mse_loss"]) == 3
    said = capsys.readouterr().err
    assert "was decomposed for inference" in said and said.count("\n") == 1


def _archive(path: Path, files: Mapping[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def test_what_is_no_program_is_said(tmp_path: Path) -> None:
    for files, said in (
        ({"net/data.pkl": "x"}, "there is no graph in it"),
        ({"net/models/model.json": "{"}, "no JSON"),
        ({"net/models/model.json": "[]"}, "no exported program"),
        ({"net/models/model.json": json.dumps({"graph_module": {}})}, "no exported program"),
        ({"net/models/a.json": "{}", "net/models/b.json": "{}"}, "2 programs"),
    ):
        with pytest.raises(FileError, match=said):
            read(_archive(tmp_path / "net.pt2", files))
    (tmp_path / "no.pt2").write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(FileError, match="no exported program"):
        read(tmp_path / "no.pt2")
    with pytest.raises(FileError, match="No such file"):
        read(tmp_path / "none.pt2")


def test_an_operator_without_a_rule_is_named(tmp_path: Path) -> None:
    value = {"dtype": 7, "sizes": [{"as_int": 2}], "requires_grad": False}
    call = {"name": "self", "arg": {"as_tensor": {"name": "x"}}, "kind": 1}
    node = {"target": "torch.ops.mine.secret.default", "inputs": [call], "outputs": [{"as_tensor": {"name": "y"}}], "metadata": {}}
    signature = {
        "input_specs": [{"user_input": {"arg": {"as_tensor": {"name": "x"}}}}],
        "output_specs": [{"user_output": {"arg": {"as_tensor": {"name": "y"}}}}],
    }
    graph = {"graph": {"nodes": [node], "tensor_values": {"x": value, "y": value}}, "signature": signature}
    text = json.dumps({"graph_module": graph, "range_constraints": {}, "verifiers": ["TRAINING"], "torch_version": "2.14"})
    path = _archive(tmp_path / "net.pt2", {"net/models/model.json": text})
    with pytest.raises(UnsupportedError, match=r"no rule for mine\.secret\.default in the exported program"):
        open_model(str(path), [(2,)])
