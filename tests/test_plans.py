"""nnU-Net's plans: the network, the way it is trained, and its whole step against torch with the package's own modules, event by event."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import memest
from memest.cli.app import main
from memest.errors import FileError, MemestError, UnsupportedError, UsageError
from memest.machines.cpu import Cpu
from memest.sources.opening import load, open_model

STYLE: dict[str, Any] = {
    "conv_op": "torch.nn.modules.conv.Conv3d",
    "conv_bias": True,
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
    "norm_op_kwargs": {"eps": 1e-05, "affine": True},
    "dropout_op": None,
    "dropout_op_kwargs": None,
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}
STAGES: dict[str, Any] = {
    "n_stages": 4,
    "features_per_stage": [4, 8, 16, 16],
    "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3]],
    "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2]],
    "n_conv_per_stage_decoder": [2, 2, 2],
}
PLAIN = {**STAGES, "n_conv_per_stage": [2, 2, 2, 2], **STYLE}
RESIDUAL = {**STAGES, "n_blocks_per_stage": [1, 2, 2, 2], "n_conv_per_stage_decoder": [1, 1, 1], **STYLE}
FLAT = {"conv_op": "torch.nn.modules.conv.Conv2d", "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d"}
PLAIN_2D = {**PLAIN, **FLAT, "kernel_sizes": [[3, 3]] * 4, "strides": [[1, 1], [2, 2], [2, 2], [2, 1]]}
OLDER = {
    "UNet_class_name": "ResidualEncoderUNet",
    "UNet_base_num_features": 4,
    "unet_max_num_features": 8,
    "conv_kernel_sizes": [[3, 3], [3, 3], [3, 3]],
    "pool_op_kernel_sizes": [[1, 1], [2, 2], [1, 2]],
    "n_conv_per_stage_encoder": [1, 2, 2],
    "n_conv_per_stage_decoder": [1, 1],
}


def architecture(network: str, words: dict[str, Any]) -> dict[str, Any]:
    """One as plans have it."""
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{network}",
        "arch_kwargs": words,
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def configuration(network: str, words: dict[str, Any], patch: tuple[int, ...] = (8, 32, 16), **others: Any) -> dict[str, Any]:
    """One configuration."""
    return {"batch_size": 2, "patch_size": list(patch), "batch_dice": True, "architecture": architecture(network, words), **others}


CONFIGURATIONS: dict[str, Any] = {
    "2d": configuration("PlainConvUNet", PLAIN_2D, (32, 16), batch_dice=False, batch_size=3),
    "2d_older": {"batch_size": 3, "patch_size": [16, 32], "batch_dice": False, **OLDER},
    "3d_fullres": configuration("PlainConvUNet", PLAIN, median_image_size_in_voxels=[20.5, 40, 40.0]),
    "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres", "batch_dice": False},
    "3d_residual": configuration("ResidualEncoderUNet", RESIDUAL),
    "3d_batch_norm": configuration(
        "PlainConvUNet", {**PLAIN, "norm_op": "torch.nn.BatchNorm3d", "norm_op_kwargs": {"eps": 1e-5}, "nonlin": "torch.nn.ReLU"}
    ),
    "3d_dropout": configuration(
        "ResidualEncoderUNet", {**RESIDUAL, "dropout_op": "torch.nn.Dropout3d", "dropout_op_kwargs": {"p": 0.2}, "stem_channels": 8}
    ),
    "3d_bare": configuration("PlainConvUNet", {**PLAIN, "conv_bias": False, "norm_op": None, "norm_op_kwargs": None, "nonlin_first": True}),
    "3d_nonlin_first": configuration("PlainConvUNet", {**PLAIN, "nonlin_first": True, "nonlin_kwargs": {}}),
}
LABELS: dict[str, dict[str, Any]] = {
    "classes": {"background": 0, "a": 1, "b": 2},
    "ignored": {"background": 0, "a": 1, "b": 2, "ignore": 3},
    "regions": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "active": 3},
}


def written(folder: Path, labels: str | None = "classes", **configurations: Any) -> Path:
    """Plans in ``folder``, with a data set beside them."""
    path = folder / "nnUNetPlans.json"
    path.write_text(json.dumps({"plans_name": "nnUNetPlans", "configurations": configurations or CONFIGURATIONS}))
    if labels is not None:
        data: dict[str, Any] = {"channel_names": {"0": "T1", "1": "T2"}, "labels": LABELS[labels], "numTraining": 2, "file_ending": ".nii"}
        if labels == "regions":
            data["regions_class_order"] = [1, 2, 3]
        (folder / "dataset.json").write_text(json.dumps(data))
    return path


def package_network(plan: dict[str, Any], channels: int, heads: int, deep_supervision: bool = True) -> Any:
    """The package's own network, as ``get_network_from_plans`` makes it."""
    import pydoc

    unet = pytest.importorskip("dynamic_network_architectures.architectures.unet")
    words = copy.deepcopy(plan["architecture"]["arch_kwargs"])
    for key in ("conv_op", "norm_op", "dropout_op", "nonlin"):
        words[key] = None if words[key] is None else pydoc.locate(words[key])
    kind = getattr(unet, plan["architecture"]["network_class_name"].rpartition(".")[2])
    return kind(input_channels=channels, num_classes=heads, deep_supervision=deep_supervision, **words)


CASES = [
    ("2d", "classes"),
    ("3d_fullres", "classes"),
    ("3d_fullres", "ignored"),
    ("3d_fullres", "regions"),
    ("3d_cascade_fullres", "classes"),
    ("3d_residual", "classes"),
    ("3d_batch_norm", "regions"),
    ("3d_dropout", "classes"),
    ("3d_bare", "classes"),
    ("3d_nonlin_first", "ignored"),
]


@pytest.mark.parametrize(("name", "labels"), CASES, ids="-".join)
def test_the_step_is_that_of_nnunet_event_by_event(name: str, labels: str, tmp_path: Path, cpu: Cpu) -> None:
    torch = pytest.importorskip("torch")
    from validation.nnunet import measure_training
    from validation.streams import first_difference

    path = written(tmp_path, labels)
    plan = {**CONFIGURATIONS["3d_fullres" if name == "3d_cascade_fullres" else name], **CONFIGURATIONS[name]}
    graph = load(path, configuration=name)
    predicted = memest.estimate(graph, machine=cpu)
    regions, heads = labels == "regions", 3
    channels = 4 if name == "3d_cascade_fullres" else 2
    data = torch.rand((plan["batch_size"], channels, *plan["patch_size"]))
    measured = measure_training(
        package_network(plan, channels, heads).train(),
        data,
        regions=regions,
        batch_dice=plan["batch_dice"],
        ignore_label=3 if labels == "ignored" else None,
    )
    difference = first_difference(predicted.events, measured.events)
    assert difference is None, f"\n{difference}"
    assert (predicted.standing_bytes, predicted.peak_bytes) == (measured.standing_bytes, measured.peak_bytes)
