"""What torch's CUDA build is told, as a new user types it: each mistake one line that names the setting, before the model is opened."""

from __future__ import annotations

import csv
import json
from io import StringIO

import pytest

import memest
from memest.cli.app import main
from memest.machines.cuda import configured_bytes

RUN = ["estimate", "vgg11", "--input", "3x32x32", "--batch", "2"]
ON = [*RUN, "--on", "t4"]


def _refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    return captured.err.removeprefix("memest: ")


@pytest.mark.parametrize("text", [":", "4096:8", ":4096", ":4096:8:", ":4096:-8", ":x:8", ":4096:8:16", ":4096:8,:16:8", ":9999999999:1"])
def test_a_malformed_cublas_workspace_is_named_before_any_layer(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = _refused([*ON, f"--cublas-workspace={text}"], capsys)
    assert said.startswith(f"--cublas-workspace {text!r} is not of the form :KIB:COUNT")
    with pytest.raises(memest.UsageError, match="cublas_workspace"):
        memest.estimate(memest.model("unet2d"), input_shape=(1, 3, 64, 64), machine="t4", cublas_workspace=text, loss="output")


def test_a_cublas_workspace_larger_than_any_card_is_a_size_in_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    assert "asks for 256.00 TiB: a size is in KiB" in _refused([*ON, "--cublas-workspace=:33554432:8192"], capsys)
    assert configured_bytes(":4096:2:16:8") == 4096 * 1024 * 2 + 16 * 1024 * 8
    assert configured_bytes(":0:0") == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--alloc-conf=expandable_segment:True"], "alloc_conf: unknown 'expandable_segment'; did you mean 'expandable_segments'?"),
        (["--alloc-conf=PYTORCH_CUDA_ALLOC_CONF=max_split_size_mb:64"], "alloc_conf: give the value alone, 'max_split_size_mb:64'"),
        (["--alloc-conf=PYTORCH_ALLOC_CONF=max_split_size_mb:64"], "alloc_conf: give the value alone, 'max_split_size_mb:64'"),
        (["--alloc-conf=roundup_power2_divisions:[64:8,256:4,>:1"], "alloc_conf: a bracket has no other one"),
        (["--alloc-conf=per_process_memory_fraction:0.5"], "alloc_conf: per_process_memory_fraction is not played"),
        (["--torch=2.9", "--alloc-conf=large_segment_size_mb:64"], "alloc_conf: torch 2.9 has no large_segment_size_mb"),
        (["--cudnn=v9.24"], "did you mean '9.24'"),
        (["--tf32=ALL"], "tf32 'ALL' is not one of conv, all, none; did you mean 'all'"),
    ],
)
def test_every_other_setting_names_itself(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert words in _refused([*ON, *arguments], capsys)


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("--cudnn-benchmark", "cudnn_benchmark"),
        ("--cudnn-deterministic", "cudnn_deterministic"),
        ("--no-cudnn", "cudnn_enabled"),
        ("--cublas-workspace=:0:0", "cublas_workspace"),
        ("--alloc-conf=expandable_segments:True", "alloc_conf"),
        ("--cudnn=9.24", "cudnn"),
    ],
)
def test_on_a_processor_each_is_refused_by_the_name_it_was_given(option: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"runtime torch-cpu has no {name}: that is torch-cuda's" in _refused([*RUN, option], capsys)


def test_tf32_is_refused_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert "has no tf32: that" in _refused([*RUN, "--tf32", "all"], capsys)


def test_a_device_with_its_number_takes_the_card(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ON, "--device", "cuda:1"]) == 0
    assert "on cuda (t4" in " ".join(capsys.readouterr().out.split())


def test_what_does_nothing_without_cudnn_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ON, "--no-cudnn", "--cudnn-benchmark"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "cuDNN 9.24 off" in out and "cudnn_benchmark without cudnn_enabled: nothing changes, cuDNN is off" in out
    assert main([*ON, "--no-cudnn"]) == 0
    assert "nothing changes" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("sweep --axis batch=1,2", "--on is given 2 times"),
        ("formula", "--on is given 2 times"),
        ("timeline", "--on is given 2 times"),
        ("report -o page.html", "--on is given 2 times"),
        ("fit", "give one limit, not 2"),
        ("advise", "give one limit, not 2"),
    ],
)
def test_a_command_that_plays_one_card_does_not_drop_the_other(command: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    name, *more = command.split()
    assert words in _refused([name, "vgg11", "--input", "3x32x32", "--batch", "2", "--on", "t4", "--on", "h100-80gb", *more], capsys)


def test_each_of_several_cards_is_played_and_has_its_own_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    cards = ("t4", "h100-80gb")
    asked = [*RUN, *(word for card in cards for word in ("--on", card))]
    alone = {c: memest.estimate(memest.model("vgg11"), input_shape=(2, 3, 32, 32), machine=c) for c in cards}
    assert alone["t4"].process.bytes != alone["h100-80gb"].process.bytes
    assert main([*asked, "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(v["on"], v["peak_bytes"], v["low_bytes"], v["high_bytes"], v["fits"]) for v in found["verdicts"]] == [
        (c, e.process.bytes, e.process.low, e.process.high, True) for c, e in alone.items()
    ]
    assert [e["card"] for e in found["others"]] == ["h100-80gb"]
    assert found["others"][0]["reserved"] == alone["h100-80gb"].reserved.to_dict()
    assert main([*asked, "--format", "csv"]) == 0
    rows = list(csv.DictReader(StringIO(capsys.readouterr().out)))
    assert [(row["card"], row["on"], int(row["peak_bytes"])) for row in rows] == [(c, c, e.peak_bytes) for c, e in alone.items()]
    assert main(asked) == 0
    out = capsys.readouterr().out
    assert "kernels ask for" not in out and " h100-80gb: " in " ".join(out.split())
