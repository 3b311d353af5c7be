"""Everything a user may get wrong, as the shell sees it: exit code, one line on stderr that names the place, nothing on stdout."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from memest.cli.app import main
from memest.sources.files import reading

HEAD = "name: n\ninputs:\n  x: [N, 3, H, W]\nlayers:\n"
DEEP = "[" * 50
CONV = "- conv2d: {name: c, out_channels: 4, kernel_size: 3}\n"

# what: (file, words that the line must have); shapes are 3x8x8, batch 2
FILES: dict[str, tuple[str, tuple[str, ...]]] = {
    "unknown operator": (HEAD + "- con2d: {}", ("line 5", "'con2d'", "did you mean 'conv2d'")),
    "unknown attribute": (
        HEAD + "- conv2d: {name: c, out_channels: 4, kernel_sise: 3}",
        ("line 5", "layer 'c'", "did you mean 'kernel_size'"),
    ),
    "missing attribute": (HEAD + "- conv2d: {name: c, out_channels: 4}", ("line 5", "layer 'c'", "kernel_size")),
    "ill-typed attribute": (
        HEAD + "- conv2d: {name: c, out_channels: four, kernel_size: 3}",
        ("line 5", "layer 'c'", "out_channels", "'four'"),
    ),
    "cycle": (HEAD + "- relu: {name: a, in: b}\n- relu: {name: b, in: a}", ("line 5", "layer 'a'", "'b'", "cycle")),
    "dangling name": (HEAD + "- relu: {name: a}\n- relu: {name: b, in: aa}", ("line 6", "layer 'b'", "'aa'", "did you mean 'a'")),
    "dangling output": (HEAD + "- relu: {name: a}\noutputs: [b]", ("line 6", "'b'")),
    "duplicate name": (HEAD + "- relu: {name: a}\n- relu: {name: a}", ("line 6", "'a'", "taken")),
    "duplicate key": (HEAD + "- relu: {name: a, name: b}", ("line 5", "'name'", "twice")),
    "channel mismatch": (
        HEAD + CONV + "- conv2d: {name: d, in_channels: 5, out_channels: 4, kernel_size: 3}",
        ("line 6", "layer 'd'", "5", "4"),
    ),
    "groups": (HEAD + "- conv2d: {name: c, out_channels: 4, kernel_size: 3, groups: 2}", ("line 5", "layer 'c'", "groups=2")),
    "vanishing shape": (HEAD + CONV + "- conv2d: {name: d, out_channels: 4, kernel_size: 7}", ("net.yaml", "layer 'd'", "6", "7")),
    "kernel too large": (HEAD + "- conv2d: {name: c, out_channels: 4, kernel_size: 9}", ("net.yaml", "layer 'c'", "8", "9")),
    "pool too large": (HEAD + "- max_pool2d: {name: p, kernel_size: 9}", ("net.yaml", "layer 'p'")),
    "negative channels": (HEAD + "- conv2d: {name: c, out_channels: -4, kernel_size: 3}", ("line 5", "layer 'c'", "-4")),
    "zero kernel": (HEAD + "- conv2d: {name: c, out_channels: 4, kernel_size: 0}", ("line 5", "layer 'c'")),
    "zero stride": (HEAD + "- conv2d: {name: c, out_channels: 4, kernel_size: 3, stride: 0}", ("line 5", "layer 'c'")),
    "negative padding": (HEAD + "- conv2d: {name: c, out_channels: 4, kernel_size: 3, padding: -1}", ("line 5", "layer 'c'")),
    "zero dim": ("inputs: {x: [N, 0, H, W]}\nlayers: [relu]", ("line 1", "positive", "0")),
    "negative dim": ("inputs:\n  x: [N, 3, -8, W]\nlayers: [relu]", ("line 2", "positive", "-8")),
    "dim of text": ("inputs:\n  x: [N, 3, H+, W]\nlayers: [relu]", ("line 2", "'H+'")),
    "dim of code": ("inputs:\n  x: [N, 3, '__import__(\"os\")', W]\nlayers: [relu]", ("line 2", "__import__")),
    "reserved dim": ("inputs:\n  x: [N, 3, t0, W]\nlayers: [relu]", ("line 2", "t0")),
    "three dims for a pool": (HEAD + "- flatten: {start_dim: 1}\n- max_pool2d: {name: p, kernel_size: 2}", ("line 6", "layer 'p'")),
    "unknown size": (HEAD + "- reshape: {name: r, shape: [=N, '=Q']}", ("line 5", "'r'")),
    "tag": (HEAD + "- relu: !!python/object:os.system {}", ("line 5", "tags are not allowed")),
    "local tag": (HEAD + "- relu: !x {}", ("line 5", "tags are not allowed")),
    "alias bomb": (
        "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"{n}: &{n} [{', '.join(['*' + m] * 9)}]\n" for m, n in zip("abcdefgh", "bcdefghi", strict=True)),
        ("line 7", "2,000,000"),
    ),
    "alias of itself": ("inputs:\n  x: &a [*a]\nlayers: [relu]", ("line 2", "*a")),
    "deep nesting": ("inputs:\n  x: " + "[" * 5000 + "]" * 5000, ("line 2", "nested deeper than 40")),
    "deep nesting that never ends": ("inputs:\n  x: " + "{" * 5000, ("line 2", "nested deeper than 40")),
    "nesting just too deep": ("inputs:\n  x: " + "[" * 39 + "]" * 39, ("line 2", "nested deeper than 40")),
    "deep nesting of blocks": ("".join(" " * i + "a:\n" for i in range(2000)), ("line 41", "nested deeper than 40")),
    "deep nesting of items": ("inputs:\n  x:\n  " + "- " * 5000 + "1", ("line 3", "nested deeper than 40")),
    "brackets in a text are not nesting": (
        f'name: \'{DEEP}\'  # {DEEP}\ninputs: {{"{DEEP}\\"": [1]}}\nlayers: @',
        ("line 3", "not YAML"),
    ),
    "block in itself": (HEAD + "- a\nblocks:\n  a:\n    layers: [a]", ("nested deeper", "'a'")),
    "block of layers without end": (
        "inputs: {x: [N, 3, H, W]}\nblocks:\n  b0: {layers: [relu]}\n"
        + "".join(f"  b{i}: {{layers: [b{i - 1}: {{repeat: 100}}]}}\n" for i in range(1, 6))
        + "layers: [b5]",
        ("more than 1,000 layers",),
    ),
    "unknown argument": (HEAD + "- a: {widht: 3}\nblocks:\n  a: {arguments: [width], layers: [relu]}", ("line 5", "did you mean 'width'")),
    "missing argument": (HEAD + "- a\nblocks:\n  a: {arguments: [width], layers: [relu]}", ("line 5", "'width'")),
    "argument not declared": (HEAD + "- a\nblocks:\n  a:\n    layers:\n    - flatten: {start_dim: $x}", ("line 9", "$x")),
    "unknown key": ("inputs: {x: [1, 3, 8, 8]}\nlayers: [relu]\nlayer: []", ("line 3", "did you mean 'layers'")),
    "no layers": ("inputs: {x: [1, 3, 8, 8]}", ("'layers'",)),
    "two operators in one": (HEAD + "- {relu: {}, gelu: {}}", ("line 5", "one operator")),
    "another version": ("memest: 2\ninputs: {x: [1, 3, 8, 8]}\nlayers: [relu]", ("line 1", "version 1")),
    "not a mapping": ("- 1\n- 2\n", ("mapping",)),
    "empty": ("", ("mapping",)),
    "not YAML": ("inputs: {x: [1, 3, 8, 8]}\nlayers: @relu", ("line 2", "not YAML")),
    "inputs of another kind": (HEAD.replace("\n  x: [N, 3, H, W]", " 3") + "- relu", ("line 2", "inputs: expected a mapping, got 3")),
    "a shape of another kind": ("inputs:\n  x: {shape: 3}\nlayers: [relu]", ("line 2", "inputs.x.shape: expected a list, got 3")),
    "a dtype of another kind": ("inputs:\n  x: {shape: [3], dtype: 32}\nlayers: [relu]", ("inputs.x.dtype: expected a text, got 32",)),
    "layers of another kind": ("inputs: {x: [1]}\nlayers: relu", ("line 2", "layers: expected a list, got 'relu'")),
    "settings of another kind": (HEAD + "- relu: [1]", ("line 5", "layers.0.relu: expected a mapping, got [1]")),
    "a number as key": ("inputs: {x: [1]}\nlayers: [relu]\n1: 2", ("line 3", "1: expected a text as key, got 1")),
    "arguments of another kind": (
        HEAD + "- relu\nblocks: {a: {layers: [relu], arguments: 3}}",
        ("line 6", "blocks.a.arguments: expected a"),
    ),
    "a block of nothing": (HEAD + "- relu\nblocks: {a: {layers: []}}", ("line 6", "blocks.a.layers is empty")),
    "a version of another kind": (
        "memest: one\ninputs: {x: [1]}\nlayers: [relu]",
        ("line 1", "memest: expected a whole number, got 'one'"),
    ),
    "yes for true": (HEAD + "- relu\nparameters:\n  p: {shape: [3], trainable: 'yes'}", ("line 7", "expected true or false, got 'yes'")),
    "unknown dtype": ("inputs:\n  x: {shape: [1, 3, 8, 8], dtype: floot32}\nlayers: [relu]", ("line 2", "did you mean 'float32'")),
    "unknown order": (HEAD + CONV + "order: [d]", ("line 6", "'d'")),
    "drops what is read later": (HEAD + "- relu: {name: a}\n- relu: {name: b}\ndrops: {a: [a]}", ("line 7", "'a'")),
    "nothing to train": (HEAD + "- relu", ("nothing to train",)),
}


def _run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and the one line of stderr; stdout must be empty."""
    code = main(arguments)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("memest: ") and captured.err.count("\n") == 1, captured.err
    assert "Traceback" not in captured.err and "please report" not in captured.err, captured.err
    return code, captured.err


@pytest.mark.parametrize("what", FILES)
def test_bad_files(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    text, words = FILES[what]
    path = tmp_path / "net.yaml"
    path.write_text(text)
    monkeypatch.setattr(reading, "MAX_LAYERS", 1000)
    code, line = _run(["estimate", str(path), "--input", "3x8x8", "--batch", "2"], capsys)
    assert code == 3, line
    assert "net.yaml" in line
    for word in words:
        assert word in line, line


def test_batch_norm_on_one_value_per_channel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(HEAD + "- batch_norm: {name: bn}")
    code, line = _run(["estimate", str(path), "--input", "3x1x1", "--batch", "1"], capsys)
    assert code == 3 and "layer 'bn'" in line and "1 value per channel" in line
    assert main(["estimate", str(path), "--input", "3x1x1", "--batch", "1", "--infer"]) == 0


def test_not_utf8(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.yaml"
    path.write_bytes(b"name: n\ninputs: \xff\xfe")
    code, line = _run(["estimate", str(path)], capsys)
    assert code == 3 and "line 2" in line and "UTF-8" in line


@pytest.mark.parametrize("name", ["net.yaml", "net.json"])
def test_a_file_of_100_mb_is_not_read(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import tracemalloc

    path = tmp_path / name
    with path.open("wb") as f:
        f.truncate(100 * 1024 * 1024)
    tracemalloc.start()
    code, line = _run(["estimate", str(path)], capsys)
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert code == 3 and "16,777,216" in line
    assert used < 40 * 1024 * 1024


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"inputs": {"x": [1', "line 1"),
        ('{"inputs": 1, "inputs": 2}', "'inputs' stands twice"),
        ("[" * 100_000, "line 1, column 41: nested deeper than 40"),
        ('{"a":\n' + "[" * 40 + "]" * 40 + "}", "line 2, column 40: nested deeper than 40"),
        ('{"[[\\"": "' + DEEP + '"}', "the file has no"),
        ('{"inputs": 1e999999999, "layers": []}', "inputs: expected a mapping, got inf"),
        ('"\\ud800"', "mapping"),
    ],
)
def test_bad_json(text: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.json"
    path.write_text(text)
    code, line = _run(["estimate", str(path)], capsys)
    assert code == 3 and "net.json" in line and words in line


USAGE = {
    "no command": (["--optimizer"], "--optimizer"),
    "unknown command": (["estimat"], "no command 'estimat'; did you mean 'estimate'?"),
    "a command like none": (["xyzzy"], "no command 'xyzzy'; there are estimate, timeline,"),
    "unknown option": (["estimate", "resnet18", "--bacth", "3"], "--bacth"),
    "no model": (["estimate"], "MODEL"),
    "unknown model": (["estimate", "resnet19"], "did you mean 'resnet18'"),
    "unknown model option": (["estimate", "unet3d:level=3", "--input", "1x1x16x16x16"], "did you mean 'levels'"),
    "bad model option": (["estimate", "unet3d:levels=0", "--input", "1x1x16x16x16"], "levels"),
    "no such file": (["estimate", "nowhere.yaml"], "no such file: nowhere.yaml"),
    "unknown optimizer": (["estimate", "resnet18", "--optimizer", "adm"], "did you mean 'adam'"),
    "optimizer option": (["estimate", "resnet18", "--optimizer", "adam:amsgrd=true"], "did you mean 'amsgrad'"),
    "unknown loss": (["estimate", "resnet18", "--loss", "cross_entrpy"], "did you mean 'cross_entropy'"),
    "unknown format": (["estimate", "resnet18", "--format", "xml"], "xml"),
    "unknown isa": (["estimate", "resnet18", "--isa", "sse"], "sse"),
    "no threads": (["estimate", "resnet18", "--threads", "0"], "--threads"),
    "no batch": (["estimate", "resnet18", "--batch", "0"], "--batch"),
    "negative batch": (["estimate", "resnet18", "--batch", "-1"], "--batch"),
    "no input": (["estimate", "resnet18"], "--input input=SHAPE"),
    "no shape": (["estimate", "resnet18", "--batch", "2"], "Nx3xHxW"),
    "batch forgotten": (["estimate", "resnet18", "--input", "3x32x32"], "--batch"),
    "batch twice": (["estimate", "resnet18", "--input", "2x3x32x32", "--batch", "3"], "--batch says 3"),
    "zero size": (["estimate", "resnet18", "--input", "1x3x0x32"], "positive"),
    "negative size": (["estimate", "resnet18", "--input", "1x3x-1x32"], "-1"),
    "not a shape": (["estimate", "resnet18", "--input", "a lot"], "'a lot'"),
    "wrong number of dims": (["estimate", "resnet18", "--input", "3x32", "--batch", "2"], "got 2"),
    "wrong channels": (["estimate", "resnet18", "--input", "1x4x32x32"], "the graph says 3, got 4"),
    "unknown input": (["estimate", "resnet18", "--input", "inptu=1x3x32x32"], "did you mean 'input'"),
    "too many inputs": (["estimate", "resnet18", "--input", "1x3x32x32", "--input", "1"], "has 1"),
    "input twice": (["estimate", "resnet18", "--input", "input=1", "--input", "input=2"], "twice"),
    "unknown operator": (["ops", "conv2"], "did you mean 'conv2d'"),
    "a directory": (["estimate", "."], "'.' is a directory"),
    "torch model without a shape": (["estimate", "torchvision.models:resnet18"], "--input"),
    "callable with code": (["estimate", "os:system(1 + 1)", "--input", "1x1"], "literal"),
    "callable with a function": (["estimate", "os:system(print(1))", "--input", "1x1"], "'print' is no name of os"),
    "weights": (["estimate", "best.pth", "--input", "3x8x8"], "weights, not a network: give the code that builds it"),
    "a checkpoint": (["layers", "runs/last.ckpt"], "weights, not a network"),
    "safetensors": (["estimate", "model.safetensors"], "package.module:callable or path/file.py:callable"),
    "an exported program": (["estimate", "net.pt2", "--input", "2x3x8x8"], "no such file: net.pt2"),
    "ONNX": (["estimate", "net.onnx", "--input", "3x8x8"], "no such file: net.onnx"),
    "Keras": (["estimate", "net.keras"], "no such file: net.keras"),
    "HDF5": (["estimate", "net.h5"], "a file of Keras 2"),
    "TensorFlow Lite": (["estimate", "net.tflite"], "a TensorFlow file"),
    "Core ML": (["estimate", "net.mlmodel"], "a Core ML file"),
    "a Python file": (["estimate", "models/net.py"], "such as models/net.py:Net"),
    "a hub's name": (["estimate", "timm/resnet50.a1_in1k"], "timm:create_model('resnet50.a1_in1k')"),
}


@pytest.mark.parametrize("what", USAGE)
def test_bad_usage(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, word = USAGE[what]
    if what.startswith("callable with"):
        pytest.importorskip("torch")
    code, line = _run(arguments, capsys)
    assert code == 2, line
    assert word in line


TORCH_MODELS = textwrap.dedent(
    """
    import torch
    from torch import nn

    class Unsupported(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.Conv2d(3, 4, 1), Strange())
        def forward(self, x):
            return self.inner(x)

    class Strange(nn.Module):
        def forward(self, x):
            return torch.linalg.eigvals(x)

    class LooksAtData(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    class Fails(nn.Module):
        def forward(self, x):
            raise ValueError("two\\nlines")

    def number():
        return 3
    """
)


@pytest.mark.parametrize(
    ("call", "code", "words"),
    [
        ("Unsupported", 3, ("eigvals", "inner.1", "bad_nets.py:14")),
        ("LooksAtData", 3, ("bad_nets.py:18",)),
        ("Fails", 3, ("two lines",)),
        ("number", 2, ("not a torch.nn.Module",)),
        ("Nothing", 2, ("bad_nets has no 'Nothing'",)),
        ("number(", 2, ("package.module:callable",)),
    ],
)
def test_bad_torch_models(
    call: str, code: int, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    (tmp_path / "bad_nets.py").write_text(TORCH_MODELS)
    monkeypatch.syspath_prepend(str(tmp_path))
    found, line = _run(["estimate", f"bad_nets:{call}", "--input", "3x8x8", "--batch", "2"], capsys)
    assert found == code, line
    for word in words:
        assert word in line, line
