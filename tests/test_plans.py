"""nnU-Net's plans: the network, the way it is trained, and its whole step against torch with the package's own modules, event by event."""

from __future__ import annotations

import copy
import json
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


@pytest.mark.parametrize(("name", "labels"), CASES, ids="-".join)
def test_the_step_is_that_of_nnunets_own_trainer(name: str, labels: str, tmp_path: Path, cpu: Cpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nnunetv2 is installed: its trainer's ``train_step``, with its loss and its optimizer."""
    torch = pytest.importorskip("torch")
    for folder in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(folder, str(tmp_path))
    trainers = pytest.importorskip("nnunetv2.training.nnUNetTrainer.nnUNetTrainer")
    from validation.nnunet import measure_trainer
    from validation.streams import first_difference

    path = written(tmp_path, labels)
    plans = {**json.loads(path.read_text()), "dataset_name": "Dataset001_none", "continue_training": False}
    plans["configurations"]["3d_lowres"] = {"inherits_from": "3d_fullres"}
    for each in plans["configurations"].values():
        each.setdefault("data_identifier", "none")
    trainer = trainers.nnUNetTrainer(plans, name, 0, json.loads((tmp_path / "dataset.json").read_text()), device=torch.device("cpu"))
    predicted = memest.estimate(load(path, configuration=name), machine=cpu)
    measured = measure_trainer(trainer, predicted.input_shapes["input"], regions=labels == "regions")
    difference = first_difference(predicted.events, measured.events)
    assert difference is None, f"\n{difference}"
    assert (predicted.standing_bytes, predicted.peak_bytes) == (measured.standing_bytes, measured.peak_bytes)


def test_plans_of_old_give_the_network_of_new_ones(tmp_path: Path) -> None:
    stages = {"n_stages": 3, "features_per_stage": [4, 8, 8], "kernel_sizes": [[3, 3]] * 3, "strides": [[1, 1], [2, 2], [1, 2]]}
    words = {**RESIDUAL, **FLAT, **stages}
    newer = configuration(
        "ResidualEncoderUNet",
        {**words, "n_blocks_per_stage": [1, 2, 2], "n_conv_per_stage_decoder": [1, 1]},
        (16, 32),
        batch_size=3,
        batch_dice=False,
    )
    path = written(tmp_path, older=CONFIGURATIONS["2d_older"], newer=newer)
    older, now = (load(path, configuration=name) for name in ("older", "newer"))
    assert older.usual == now.usual and older.inference is not None and now.inference is not None
    assert older.with_(name="", inference=None) == now.with_(name="", inference=None)
    assert older.inference.with_(name="") == now.inference.with_(name="")


def test_what_is_not_said_is_as_nnunet_has_it_and_what_is_said_is_not(tmp_path: Path) -> None:
    graph = load(written(tmp_path), configuration="3d_fullres")
    usual = memest.estimate(graph)
    assert usual.optimizer == "sgd:momentum=0.99,nesterov=true,weight_decay=3e-05" and usual.levers == ("clip:norm=12",)
    assert usual.loss == "dc_and_ce:batch_dice=true over 0.6667,0.3333,0" and usual.input_shapes["input"] == (2, 2, 8, 32, 16)
    own = memest.estimate(graph, input_shape=(1, 2, 8, 16, 16), optimizer="adam", loss="dice", levers=["clip:norm=1", "accumulate:steps=2"])
    assert own.optimizer == "adam" and own.loss == "dice" and own.levers == ("clip:norm=1", "accumulate:steps=2")
    assert own.input_shapes["input"] == (1, 2, 8, 16, 16)
    assert memest.estimate(graph, levers="accumulate:steps=2").levers == ("clip:norm=12", "accumulate:steps=2")


def test_a_configuration_is_chosen_in_three_ways(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path)
    texts = []
    for words in ([f"{path}:configuration=2d"], [str(path), "--configuration", "2d"]):
        assert main(["estimate", *words, "--format", "json"]) == 0
        texts.append(json.loads(capsys.readouterr().out)["peak_bytes"])
    assert texts == [memest.estimate(load(path, configuration="2d")).peak_bytes] * 2


@pytest.mark.slow
def test_every_command_that_estimates_takes_plans(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plans = [str(written(tmp_path)), "--configuration", "2d"]
    for command in (
        ["fit", *plans, "--budget", "64MiB"],
        ["sweep", *plans, "--axis", "batch=1,2"],
        ["advise", *plans, "--budget", "4MiB"],
        ["compare", *plans, "--versus", "batch=4"],
        ["formula", *plans],
        ["layers", *plans],
        ["timeline", *plans],
        ["plan-inference", *plans],
        ["report", *plans, "-o", str(tmp_path / "page.html")],
    ):
        assert main(command) in (0, 1), (command, capsys.readouterr().err)
    assert "dc_and_ce" in capsys.readouterr().out or (tmp_path / "page.html").exists()


def test_channels_and_classes_without_a_data_set(tmp_path: Path) -> None:
    path = written(tmp_path, None)
    with pytest.raises(UsageError, match=r"input_channels, num_classes stand in dataset.json.*give input_channels= and num_classes="):
        load(path, configuration="2d")
    graph = open_model(f"{path}:configuration=3d_fullres,input_channels=1,num_classes=4,regions=true")
    assert graph.inputs[0].shape[1] == 1 and memest.estimate(graph).loss == "dc_and_bce:batch_dice=true over 0.6667,0.3333,0"


def test_the_network_that_predicts_has_one_output(tmp_path: Path) -> None:
    graph = load(written(tmp_path), configuration="3d_residual")
    assert len(graph.outputs) == 3 and graph.inference is not None and len(graph.inference.outputs) == 1
    alone = load(tmp_path / "nnUNetPlans.json", configuration="3d_residual", deep_supervision=False)
    assert memest.estimate(alone).loss == "dc_and_ce:batch_dice=true"


def test_a_loss_over_outputs_needs_a_weight_for_each(tmp_path: Path) -> None:
    graph = load(written(tmp_path), configuration="3d_residual")
    with pytest.raises(UsageError, match="2 weights for 3 outputs"):
        memest.estimate(graph, loss="cross_entropy over 1,0.5")
    with pytest.raises(UsageError, match="all weights are 0"):
        memest.estimate(graph, loss="cross_entropy over 0,0,0")
    with pytest.raises(UsageError, match="'x' after over is not a number"):
        memest.estimate(graph, loss="cross_entropy over 1,x")
    assert not any("the loss takes" in note for note in memest.estimate(graph).notes)


def _changed(**words: Any) -> dict[str, Any]:
    return configuration("PlainConvUNet", {**PLAIN, **words})


REFUSED: dict[str, tuple[dict[str, Any], type[MemestError], str]] = {
    "network": (configuration("UNETR", PLAIN), UnsupportedError, "network 'UNETR' is not modelled; there are PlainConvUNet"),
    "block": (configuration("ResidualEncoderUNet", {**RESIDUAL, "block": "x.BottleneckD"}), UnsupportedError, "block 'x.BottleneckD'"),
    "keyword": (_changed(squeeze_excitation=True), UnsupportedError, "PlainConvUNet with 'squeeze_excitation'"),
    "norm": (_changed(norm_op="torch.nn.GroupNorm"), UnsupportedError, "norm_op 'torch.nn.GroupNorm' is not modelled"),
    "norm of other axes": (_changed(norm_op="torch.nn.InstanceNorm2d"), UnsupportedError, "there are InstanceNorm3d and BatchNorm3d"),
    "norm options": (_changed(norm_op_kwargs={"track_running_stats": True}), UnsupportedError, "InstanceNorm with these norm_op_kwargs"),
    "nonlin": (_changed(nonlin="torch.nn.Softplus"), UnsupportedError, "nonlin 'torch.nn.Softplus' is not modelled"),
    "nonlin option": (_changed(nonlin_kwargs={"slope": 1}), UnsupportedError, "nonlin_kwargs with 'slope'"),
    "nonlin value": (_changed(nonlin_kwargs={"inplace": 3}), FileError, "nonlin_kwargs, inplace: got 3"),
    "dropout": (_changed(dropout_op="torch.nn.AlphaDropout"), UnsupportedError, "dropout_op 'torch.nn.AlphaDropout'"),
    "conv": (_changed(conv_op="torch.nn.Conv2d"), FileError, "conv_op 'torch.nn.Conv2d' does not fit a patch of 3 axes"),
    "stages": (_changed(n_stages=3), FileError, "n_stages is 3, features_per_stage has 4 entries"),
    "strides": (_changed(strides=[[1, 1, 1]]), FileError, "strides is not"),
    "counts": (_changed(strides=[[1, 1, 1]] * 3), FileError, "4 stages need 4 entries, got 3"),
    "no strides": (_changed(strides=None), FileError, "needs strides"),
    "patch": ({**_changed(), "patch_size": "x"}, FileError, "patch_size is a list of whole numbers"),
    "axes": ({**_changed(), "patch_size": [8, 8, 8, 8]}, FileError, "patch_size has 4 axes"),
    "batch": ({**_changed(), "batch_size": 0}, FileError, "batch_size is a whole number"),
    "heritage": ({"inherits_from": "y"}, FileError, "'x' inherits from 'y'"),
    "circle": ({"inherits_from": "x"}, FileError, "inherit in a circle"),
    "nothing": ({"patch_size": [8, 8], "batch_size": 2}, FileError, "neither architecture nor UNet_class_name"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_a_plan_says_wrongly_or_memest_does_not_model_is_named(what: str, tmp_path: Path) -> None:
    plan, error, said = REFUSED[what]
    with pytest.raises(error, match=said.replace("(", r"\(").replace(")", r"\)")) as found:
        load(written(tmp_path, x=plan), configuration="x")
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"a": 1}, "labels have a 'background'"),
        ({"background": 0, "a": "x"}, "label 'a' is a whole number"),
        ({"background": 0, "a": [1, 2], "ignore": 3}, "regions with an ignore label"),
        ([], "a data set has channel_names and labels"),
    ],
    ids=str,
)
def test_a_data_set_that_says_its_labels_wrongly(labels: Any, said: str, tmp_path: Path) -> None:
    path = written(tmp_path)
    (tmp_path / "dataset.json").write_text(json.dumps({"channel_names": {"0": "T1"}, "labels": labels}))
    with pytest.raises(MemestError, match=said):
        load(path, configuration="2d")


def test_options_are_for_plans(tmp_path: Path) -> None:
    path = written(tmp_path)
    with pytest.raises(MemestError, match=r"plans have no option 'configuratio'; did you mean 'configuration'"):
        load(path, configuratio="2d")
    with pytest.raises(UsageError, match=r"2d, 2d_older, 3d_fullres.*choose one with --configuration"):
        load(path)
    assert main(["estimate", "resnet18", "--configuration", "2d"]) == 2


def test_the_largest_patch_fits_and_the_next_does_not(tmp_path: Path, cpu: Cpu) -> None:
    graph = load(written(tmp_path), configuration="3d_residual")
    found = memest.fit_patch(graph, "16MiB", batch=2, machine=cpu)
    assert found.sizes is not None and found.next_sizes is not None and found.step == (4, 8, 8)
    at, after = ((sizes["batch"], 2, sizes["D"], sizes["H"], sizes["W"]) for sizes in (found.sizes, found.next_sizes))
    peaks = [memest.estimate(graph, input_shape=shape, machine=cpu).peak_bytes for shape in (at, after)]
    assert peaks == [found.peak_bytes, found.next_bytes] and peaks[0] <= 16 * 2**20 < peaks[1]
    assert sum(a != b for a, b in zip(at, after, strict=True)) == 1, "one axis grows at a time"
    ratios = [n / planned for n, planned in zip(at[2:], (8, 32, 16), strict=True)]
    assert max(ratios) - min(ratios) <= max(step / planned for step, planned in zip((4, 8, 8), (8, 32, 16), strict=True))


def test_a_patch_is_no_longer_than_the_median_image(tmp_path: Path, cpu: Cpu) -> None:
    graph = load(written(tmp_path), configuration="3d_fullres")
    found = memest.fit_patch(graph, "1TiB", machine=cpu)
    assert found.sizes == {"batch": 2, "D": 24, "H": 40, "W": 40} and found.next_sizes is None  # of 20.5 x 40 x 40, in steps of 4, 8, 8


def test_no_patch_fits(tmp_path: Path, cpu: Cpu) -> None:
    found = memest.fit_patch(load(written(tmp_path), configuration="3d_fullres"), "64KiB", machine=cpu)
    assert not found.bytes_fit and found.smallest is not None and found.smallest.peak_bytes > 64 * 2**10


def test_a_patch_is_fitted_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", str(written(tmp_path)), "--configuration", "2d", "--budget", "4MiB", "--vary", "patch", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["varied"] == ["H", "W"] and found["sizes"]["batch"] == 3
    assert main(["fit", "unet2d:levels=3", "--budget", "64MiB", "--vary", "patch", "--input", "3x64x32", "--batch", "1"]) == 0
    assert main(["fit", "unet2d:levels=3", "--budget", "64MiB", "--vary", "patch", "--batch", "1"]) == 2
    assert "give --input" in capsys.readouterr().err


def test_a_volume_is_predicted_in_windows_of_the_patch(tmp_path: Path) -> None:
    graph = load(written(tmp_path), configuration="3d_fullres")
    found = memest.estimate(graph, mode="infer")
    assert found.levers == ("sliding_window:size=8x32x16,mirror=0+1+2",) and found.input_shapes["input"] == (1, 2, 21, 40, 40)
    small = memest.estimate(graph, mode="infer", input_shape=(1, 2, 4, 16, 16))
    assert small.peak_bytes < found.peak_bytes, "a volume smaller than the patch is padded"
    tiles = memest.estimate(graph, mode="infer", input_shape=(1, 2, 8, 64, 32), levers="tiles:size=8x32x16,halo=0")
    assert tiles.levers == ("tiles:size=8x32x16,halo=0",), "a lever that contradicts a usual one takes its place"


def test_nnunets_own_cuda_settings_are_those_of_its_trainer(tmp_path: Path) -> None:
    graph = load(written(tmp_path), configuration="3d_fullres")
    found = memest.estimate(graph, machine="rtx-4090")
    assert found.levers == ("clip:norm=12", "autocast:dtype=float16") and found.question.cudnn_benchmark
    assert memest.estimate(graph, machine="rtx-4090", cudnn_benchmark=False, levers="autocast:dtype=bfloat16").levers == (
        "clip:norm=12",
        "autocast:dtype=bfloat16",
    )
    on_host = memest.estimate(graph, mode="infer", machine="rtx-4090", levers="sliding_window:size=8x32x16,mirror=0+1+2,results=host")
    on_card = memest.estimate(graph, mode="infer", machine="rtx-4090")
    assert on_host.standing_bytes < on_card.standing_bytes, "the volume stays on the host"
