"""Keras 3 files: the layers' shapes and parameters are those that Keras reported, and nothing that a file says of code is run."""

from __future__ import annotations

import copy
import gzip
import json
import zipfile
from math import prod
from pathlib import Path
from typing import Any

import pytest

import memest
from memest.cli.app import main
from memest.errors import FileError, UnsupportedError, UsageError
from memest.sources.importers.keras import reading

NETWORKS = json.loads(gzip.decompress((Path(__file__).parent / "data" / "keras.json.gz").read_bytes()))["networks"]


def saved(config: Any, tmp_path: Path, name: str = "net.keras") -> Path:
    path = tmp_path / name
    if path.suffix == ".json":
        path.write_text(json.dumps(config), encoding="utf-8")
        return path
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", b"never read")
    return path


def channels_first(shape: list[int]) -> tuple[int, ...]:
    return tuple(shape) if len(shape) < 3 else (shape[0], shape[-1], *shape[1:-1])


def changed(name: str, layer: str, **settings: Any) -> Any:
    """A network's configuration with other settings of one layer."""
    config = copy.deepcopy(NETWORKS[name]["config"])
    for each in config["config"]["layers"]:
        if each["config"]["name"] == layer:
            each.update({k: v for k, v in settings.items() if k in each})
            each["config"].update({k: v for k, v in settings.items() if k not in each})
    return config


@pytest.mark.parametrize("name", NETWORKS)
def test_shapes_and_parameters_are_those_that_keras_reported(name: str, tmp_path: Path) -> None:
    truth = NETWORKS[name]["truth"]
    shape = channels_first([2, *truth["shape"][1:]])
    graph = memest.from_keras(saved(NETWORKS[name]["config"], tmp_path), shape)
    values = memest.estimate(graph, input_shape=shape, mode="infer").timeline.values
    assert sum(prod(p.shape) for p in graph.parameters) == truth["params"]
    checked = 0
    for row in truth["rows"]:
        layers = [layer for layer in graph.layers if layer.name == row["name"] or layer.name.startswith(f"{row['name']}.")]
        if not layers or row["out"] is None or "None" in str(row["out"][0][1:]) or row["class"] == "InputLayer":
            continue
        found = values[layers[-1].outputs[0]].shape
        keras = (2, *row["out"][0][1:])
        assert tuple(found) in (keras, channels_first(list(keras))), row["name"]
        checked += 1
    assert checked >= 3 or name in ("nested", "unet3d_free")


def test_a_configuration_and_its_archive_are_one_network(tmp_path: Path) -> None:
    config = NETWORKS["seq"]["config"]
    of_archive, of_text = (memest.load(saved(config, tmp_path, name)) for name in ("net.keras", "net.json"))
    assert of_archive.layers == of_text.layers and of_archive.parameters == of_text.parameters


def test_memory_lies_channels_last_and_a_convolution_is_torchs(tmp_path: Path) -> None:
    graph = memest.from_keras(saved(NETWORKS["unet3d"]["config"], tmp_path), (1, 1, 16, 16, 16))
    assert graph.inputs[0].layout == "channels_last" and "Keras" in graph.notes[0]
    assert memest.loads(memest.dumps(graph)).layers == graph.layers


def test_other_sizes_can_be_asked_about_and_what_they_would_change_is_refused(tmp_path: Path) -> None:
    path = saved(NETWORKS["unet3d"]["config"], tmp_path)
    graph = memest.from_keras(path)
    small, large = (memest.estimate(graph, input_shape=(2, 1, n, n, n), mode="infer").peak_bytes for n in (16, 32))
    assert large > 4 * small
    dense = saved(NETWORKS["seq"]["config"], tmp_path, "dense.keras")
    with pytest.raises(
        UnsupportedError, match=r"\(Dense\): was built for \d+ features, and gets \d+: another input makes it another network"
    ):
        memest.from_keras(dense, (1, 1, 40, 40))


def test_a_width_that_the_file_does_not_state_is_that_of_its_own_sizes(tmp_path: Path) -> None:
    config = changed("seq", "dense", build_config={})
    path = saved(config, tmp_path)
    own = memest.from_keras(path)
    assert next(p.shape for p in own.parameters if p.name == "dense.weight") == (10, 13 * 13 * 8)
    with pytest.raises(UnsupportedError, match="does not say for which it was built"):
        memest.from_keras(path, (1, 1, 40, 40))


def test_a_stride_asks_its_remainder_of_the_size(tmp_path: Path) -> None:
    """Pads of "same" depend on what is left of a size: the graph says at which it was read, and is read anew at others."""
    path = saved(NETWORKS["mix"]["config"], tmp_path)
    even, odd = (2, 3, 32, 32), (2, 3, 34, 32)
    assert memest.estimate(memest.from_keras(path, odd), input_shape=odd, mode="infer").peak_bytes
    with pytest.raises(memest.MemestError, match="H"):
        memest.estimate(memest.from_keras(path, even), input_shape=odd, mode="infer")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            changed("seq", "flatten", class_name="Lambda"),
            r"layer 'flatten' \(Lambda\): runs Python code that the file holds, which is never executed",
        ),
        (changed("seq", "flatten", class_name="Mine", module="my.layers"), r"layer 'flatten' \(Mine\): a class of your own"),
        (changed("seq", "flatten", class_name="Flaten"), r"no rule for Keras's layer 'Flaten'; did you mean 'Flatten'"),
        (changed("seq", "conv2d", activation="rellu"), r"no rule for activation 'rellu'; did you mean 'relu'"),
        (changed("seq", "conv2d", dtype="mixed_float16"), r"no rule for the dtype policy 'mixed_float16'"),
        (changed("seq", "conv2d", data_format="channels_first"), r"no rule for data_format='channels_first'"),
        (changed("seq", "conv2d", padding="reflect"), r"no rule for padding='reflect'"),
    ],
)
def test_what_has_no_rule_names_the_layer(config: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=message):
        memest.from_keras(saved(config, tmp_path))


@pytest.mark.parametrize("settings", [{"filters": -3}, {"filters": "eight"}, {"strides": [0, 0]}, {"kernel_size": [3.5, 3]}])
def test_settings_that_cannot_be_are_told(settings: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"layer 'conv2d' \(Conv2D\): .* not .*whole number"):
        memest.from_keras(saved(changed("seq", "conv2d", **settings), tmp_path))


def test_files_that_are_none_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut = saved(NETWORKS["seq"]["config"], tmp_path, "cut.keras")
    cut.write_bytes(cut.read_bytes()[:-30])
    with pytest.raises(FileError, match="is no network that Keras 3 saved"):
        memest.from_keras(cut)
    (tmp_path / "old.keras").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64))
    with pytest.raises(FileError, match="file of Keras 2: load it with Keras 3"):
        memest.from_keras(tmp_path / "old.keras")
    with zipfile.ZipFile(tmp_path / "empty.keras", "w") as archive:
        archive.writestr("metadata.json", "{}")
    with pytest.raises(FileError, match=r"there is no config\.json in it"):
        memest.from_keras(tmp_path / "empty.keras")
    monkeypatch.setattr(reading, "MAX_BYTES", 1000)
    with pytest.raises(FileError, match="more than 1,000 bytes"):
        memest.from_keras(saved(NETWORKS["seq"]["config"], tmp_path))
    with pytest.raises(UsageError, match="no such file"):
        memest.from_keras(tmp_path / "absent.keras")


def test_a_circle_and_a_missing_layer_are_told(tmp_path: Path) -> None:
    for history, message in ((["average", 0, 0], "its calls go in a circle"), (["absent", 0, 0], "is no layer of the network")):
        config = copy.deepcopy(NETWORKS["nested"]["config"])
        inner = next(layer for layer in config["config"]["layers"] if layer["class_name"] == "Sequential")
        inner["inbound_nodes"][0]["args"][0]["config"]["keras_history"] = history
        with pytest.raises(FileError, match=message):
            memest.from_keras(saved(config, tmp_path))


def test_mutilated_configurations_are_one_clean_error_or_an_answer(tmp_path: Path) -> None:
    """Each value of a configuration in turn is taken out or made another kind of thing."""
    import random

    dice = random.Random(7)
    for name in ("seq", "nested", "mix"):
        for _ in range(60):
            config = copy.deepcopy(NETWORKS[name]["config"])
            spots: list[tuple[Any, Any]] = []
            _spots(config, spots)
            holder, key = dice.choice(spots)
            if dice.random() < 0.3:
                del holder[key]
            else:
                holder[key] = dice.choice([None, -1, 0, "x", [], {}, [None], True, 10**9, 1.5])
            try:
                memest.from_keras(saved(config, tmp_path, "mutilated.json"))
            except memest.MemestError as e:
                assert "\n" not in str(e)


def _spots(value: Any, found: list[tuple[Any, Any]]) -> None:
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        found.append((value, key))
        _spots(inner, found)


def test_the_command_line_takes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(saved(NETWORKS["unet3d"]["config"], tmp_path))
    assert main(["estimate", path, "--input", "1x16x16x16", "--batch", "1", "--infer"]) == 0
    assert "channels first" in capsys.readouterr().out
    assert main(["estimate", path, "--input", "16x16x16x1", "--batch", "1"]) == 2
    assert "channels come first here" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["unet3d", "seq", "mix", "nested"])
def test_a_batch_of_one_and_the_files_own_sizes_need_no_example(name: str, tmp_path: Path) -> None:
    shape = channels_first([1, *NETWORKS[name]["truth"]["shape"][1:]])
    path = saved(NETWORKS[name]["config"], tmp_path)
    free, at_one = memest.from_keras(path), memest.from_keras(path, shape)
    for batch in (1, 3):
        peaks = {memest.estimate(g, input_shape=(batch, *shape[1:]), mode="infer").peak_bytes for g in (free, at_one)}
        assert len(peaks) == 1
    assert memest.estimate(free, mode="infer").input_shapes == {free.inputs[0].name: shape}


def test_on_the_command_line_a_batch_is_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(saved(NETWORKS["seq"]["config"], tmp_path))
    assert main(["estimate", path, "--infer"]) == 0
    assert main(["estimate", path, "--infer", "--batch", "4"]) == 0
    shown = capsys.readouterr().out
    assert " 1x1x28x28," in shown and " 4x1x28x28," in shown


def test_a_configuration_without_modules_is_named(tmp_path: Path) -> None:
    config = copy.deepcopy(NETWORKS["seq"]["config"])
    for each in config["config"]["layers"]:
        each.pop("module", None)
    with pytest.raises(FileError, match="says nothing of its module, as Keras 3 writes it"):
        memest.from_keras(saved(config, tmp_path))


def dropped(**settings: Any) -> Any:
    """A network of one dropout, which Keras writes down as called outside training."""
    drop = {"name": "drop", "trainable": True, "dtype": "float32", "rate": 0.5, "seed": None, "noise_shape": None, **settings}
    start = {"batch_shape": [None, 6, 4, 3], "dtype": "float32", "name": "x"}

    def tensor(name: str) -> Any:
        return {"class_name": "__keras_tensor__", "config": {"shape": [None, 6, 4, 3], "dtype": "float32", "keras_history": [name, 0, 0]}}

    called = {"args": [tensor("x")], "kwargs": {"training": False}}
    layers = [
        {"module": "keras.layers", "class_name": "InputLayer", "config": start, "name": "x", "inbound_nodes": []},
        {"module": "keras.layers", "class_name": "Dropout", "config": drop, "name": "drop", "inbound_nodes": [called]},
    ]
    inner = {"name": "net", "trainable": True, "layers": layers, "input_layers": [["x", 0, 0]], "output_layers": [["drop", 0, 0]]}
    return {"module": "keras.src.models.functional", "class_name": "Functional", "config": inner, "registered_name": "Functional"}


def test_dropout_is_on_in_training_whatever_it_was_built_with(tmp_path: Path) -> None:
    """Keras puts the model's mode in the place of what a layer was called with when the model was built."""
    graph = memest.from_keras(saved(dropped(), tmp_path), (2, 3, 6, 4))
    (layer,) = [layer for layer in graph.layers if layer.op == "dropout"]
    assert dict(layer.attributes) == {"p": 0.5}


def test_dropout_of_whole_samples_draws_a_number_for_each(tmp_path: Path) -> None:
    graph = memest.from_keras(saved(dropped(noise_shape=[None, 1, 1, 1]), tmp_path), (2, 3, 6, 4))
    (layer,) = [layer for layer in graph.layers if layer.op == "dropout1d"]
    values = memest.estimate(graph, input_shape=(2, 3, 6, 4), mode="infer").timeline.values
    assert values[layer.reads[0]].shape == (2, 1, 72) and values[graph.outputs[0]].shape == (2, 3, 6, 4)
    with pytest.raises(UnsupportedError, match=r"layer 'drop' \(Dropout\): no rule for noise_shape"):
        memest.from_keras(saved(dropped(noise_shape=[None, 6, 1, 1]), tmp_path), (2, 3, 6, 4))
