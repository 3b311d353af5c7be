"""Folders with a ``config.json`` and no weights: the network that the library builds, nothing fetched, nothing of the folder run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import memest
from memest.cli.app import main
from memest.errors import FileError, MemestError, UnsupportedError, UsageError
from memest.sources.importers.absent_operators import with_absent_operators
from memest.sources.importers.torch.loading import build
from memest.sources.opening import is_torch, open_model

VIT = {
    "architectures": ["ViTForImageClassification"],
    "model_type": "vit",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
RESNET = {
    "architectures": ["ResNetForImageClassification"],
    "model_type": "resnet",
    "embedding_size": 8,
    "hidden_sizes": [8, 16],
    "depths": [1, 1],
}
SWIN = {
    "architectures": ["SwinForImageClassification"],
    "model_type": "swin",
    "embed_dim": 12,
    "depths": [2],
    "num_heads": [2],
    "image_size": 32,
    "patch_size": 4,
    "window_size": 4,
}


def _folder(at: Path, config: Any, name: str = "config.json") -> Path:
    at.mkdir(parents=True, exist_ok=True)
    (at / name).write_text(json.dumps(config))
    return at


@pytest.mark.slow
@pytest.mark.parametrize("config", [VIT, RESNET, SWIN], ids=["vit", "resnet", "swin"])
def test_transformers_network_is_the_one_its_class_builds(config: dict[str, Any], tmp_path: Path) -> None:
    transformers = with_absent_operators(lambda: pytest.importorskip("transformers"))
    folder = _folder(tmp_path / "net", config)
    settings = transformers.AutoConfig.from_pretrained(str(folder))
    twin = with_absent_operators(lambda: getattr(transformers, config["architectures"][0]))(settings).train()
    example = {"pixel_values": (2, 3, 32, 32)}
    graph = open_model(str(folder), example)
    assert graph == memest.from_torch(twin, example)
    assert memest.estimate(graph, input_shape={"pixel_values": (2, 3, 32, 32)}, optimizer="adam").peak_bytes > 0


@pytest.mark.slow
def test_diffusers_and_timm(tmp_path: Path) -> None:
    timm = with_absent_operators(lambda: pytest.importorskip("timm"))
    cfg = {"architecture": "resnet18", "num_classes": 7, "pretrained_cfg": {"input_size": [3, 64, 64], "num_classes": 7}}
    folder = _folder(tmp_path / "timm", cfg)
    assert open_model(str(folder), [(2, 3, 64, 64)]) == memest.from_torch(timm.create_model("resnet18", num_classes=7), (2, 3, 64, 64))
    diffusers = with_absent_operators(lambda: pytest.importorskip("diffusers"))
    unet: Callable[..., Any] = diffusers.AutoencoderKL
    options = {"block_out_channels": (16,), "norm_num_groups": 4}
    _folder(tmp_path / "pipe" / "vae", {"_class_name": "AutoencoderKL", **options})
    _folder(tmp_path / "pipe", {"_class_name": "StableDiffusionPipeline", "vae": ["diffusers", "AutoencoderKL"]}, "model_index.json")
    example = {"sample": (1, 3, 16, 16)}
    assert open_model(str(tmp_path / "pipe" / "vae"), example) == memest.from_torch(unet(**options), example)
    with pytest.raises(UsageError, match=r"a pipeline of several networks: name one of its folders, such as .*vae"):
        open_model(str(tmp_path / "pipe"), example)


@pytest.mark.slow
def test_code_in_the_folder_is_not_run(tmp_path: Path) -> None:
    with_absent_operators(lambda: pytest.importorskip("transformers"))
    folder = _folder(tmp_path, {"architectures": ["MyNet"], "model_type": "mine", "auto_map": {"AutoModel": "net.MyNet"}})
    (folder / "net.py").write_text("raise SystemExit('run')")
    with pytest.raises(UnsupportedError, match="its code is in the folder, which memest does not run"):
        build(str(folder))
    _folder(tmp_path, VIT | {"architectures": ["ViTForImageClasification"]})
    with pytest.raises(UnsupportedError, match="did you mean 'ViTForImageClassification'"):
        build(str(folder))


def test_what_is_no_configuration_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FileError, match="no configuration of transformers, diffusers or timm"):
        build(str(_folder(tmp_path / "a", {"layers": 3})))
    with pytest.raises(MemestError, match=r"config\.json"):
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "config.json").write_text("{")
        build(str(tmp_path / "b"))
    assert main(["estimate", str(tmp_path / "a"), "--input", "3x8x8", "--batch", "1"]) == 3
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["estimate", str(tmp_path), "--input", "3x8x8", "--batch", "1"]) == 2
    assert "without a config.json" in capsys.readouterr().err
    assert is_torch(str(tmp_path / "a")) and not is_torch(str(tmp_path))
