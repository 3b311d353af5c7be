"""Inputs as they are: lists, dicts and tuples of tensors, other dtypes, and arguments that are no tensors."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import memest
from memest.errors import GraphError, UsageError
from memest.machines.cpu import Cpu

torch = pytest.importorskip("torch")

from test_contexts import same  # noqa: E402
from torch import nn  # noqa: E402

from memest.cli.app import main  # noqa: E402
from memest.sources.importers.torch.network import from_torch  # noqa: E402
from validation.protocol import inputs_for, measure_inference, measure_training  # noqa: E402

Pair = namedtuple("Pair", "left right")
A, B = (2, 3, 8, 10), (2, 3, 12, 6)


class Taking(nn.Module):
    """A convolution of every tensor it is given, in whatever structure; ``scale`` and ``mode`` are no tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 4)

    def forward(self, images: Any, mode: str | None = None, scale: float = 1.0) -> Any:
        found = list(images.values() if isinstance(images, dict) else images)
        assert mode in (None, "mean"), f"no mode {mode!r}"
        return self.head(sum(self.conv(x).mean((2, 3)) for x in found) * scale)


class Flat(nn.Module):
    """The same, called with tensors alone."""

    def __init__(self, pack: Callable[..., Any]) -> None:
        super().__init__()
        self.taking, self.pack = Taking(), pack

    def forward(self, a: Any, b: Any) -> Any:
        return self.taking(*self.pack(a, b))


FORMS: dict[str, tuple[Any, Callable[..., Any], list[str]]] = {
    "list": ([[A, B]], lambda a, b: ([a, b],), ["input.0", "input.1"]),
    "tuple of tensors": ([(torch.rand(A), torch.rand(B))], lambda a, b: ((a, b),), ["input.0", "input.1"]),
    "dict": ([{"near": A, "far": B}], lambda a, b: ({"near": a, "far": b},), ["input.near", "input.far"]),
    "by name": ({"images": [A, B], "mode": "mean", "scale": 2}, lambda a, b: ([a, b], "mean", 2), ["images.0", "images.1"]),
    "with others": ([Pair(A, B), None, 0.5], lambda a, b: (Pair(a, b), None, 0.5), ["input.0", "input.1"]),
    "ordered": ([OrderedDict(x=A, y=B)], lambda a, b: (OrderedDict(x=a, y=b),), ["input.x", "input.y"]),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mode", ["train", "infer"])
def test_structures_reach_the_forward_as_they_stand(form: str, mode: str, cpu: Cpu) -> None:
    example, pack, names = FORMS[form]
    graph = from_torch(Taking(), example)
    assert [i.name for i in graph.inputs] == names
    assert [[str(d) for d in i.shape] for i in graph.inputs] == [["N", "3", "H", "W"], ["N", "3", "H1", "W1"]]
    assert memest.loads(memest.dumps(graph)) == graph
    module, shapes = Flat(pack), dict(zip(names, (A, B), strict=True))
    if mode == "train":
        found = memest.estimate(graph, input_shape=shapes, optimizer="adam", loss="mse_loss", machine=cpu)
        same(found, measure_training(module, inputs_for([A, B]), "adam", "mse_loss"))
    else:
        same(memest.estimate(graph, input_shape=shapes, mode="infer", machine=cpu), measure_inference(module, inputs_for([A, B])))


def test_a_list_is_estimated_at_other_sizes() -> None:
    here, there = from_torch(Taking(), [[A, A]]), from_torch(Taking(), [[B, B]])
    shapes = {"input.0": B, "input.1": B}
    assert memest.estimate(here, input_shape=shapes).peak_bytes == memest.estimate(there, input_shape=shapes).peak_bytes


class Mixed(nn.Module):
    def forward(self, x: Any, ids: Any, mask: Any, wave: Any) -> Any:
        return (x * mask).sum(1) + ids.float(), wave.view(2, 2)


def test_inputs_have_dtypes_of_their_own(cpu: Cpu) -> None:
    inputs = [
        torch.rand(4, 6), torch.zeros(4, dtype=torch.int64), torch.ones(4, 6, dtype=torch.bool), torch.zeros(4, dtype=torch.complex64),
    ]  # fmt: skip
    graph = from_torch(Mixed(), inputs)
    assert [i.dtype for i in graph.inputs] == ["float32", "int64", "bool", "complex64"]
    found = memest.estimate(
        graph, input_shape={i.name: tuple(t.shape) for i, t in zip(graph.inputs, inputs, strict=True)}, mode="infer", machine=cpu
    )
    same(found, measure_inference(Mixed(), inputs))


@pytest.mark.parametrize(
    ("example", "words"),
    [
        ([["a", None]], "lists, tuples and dicts"),
        ([[(3, 0, 4)]], "input.0: sizes are positive"),
        ({"images": [A, (2, -1)]}, "images.1: sizes are positive"),
        ([A, {"input": 3}], "no mode {'input': 3}"),
        ([A, "huge"], "no mode 'huge'"),
    ],
)
def test_what_cannot_be_given_is_one_line(example: Any, words: str) -> None:
    with pytest.raises((UsageError, GraphError)) as caught:
        from_torch(Taking(), example)
    assert words in str(caught.value) and "\n" not in str(caught.value)


# from the shell -----------------------------------------------------------------------------------------------------------

CODE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, images, targets=None):
        y = torch.stack([self.conv(i[None]).mean((0, 2, 3)) for i in images])
        return y if targets is None else y + sum(t["boxes"].sum() + t["labels"].sum() for t in targets)
"""


def test_structures_and_dtypes_are_typed_by_the_way_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets_of_lists.py").write_text(CODE)
    images = ["--input", "images.0=3x16x16", "--input", "images.1=3x18x18"]
    targets = ["--input", "targets.0.boxes=4x4", "--input", "targets.0.labels=4xint64"]
    assert main(["estimate", "nets_of_lists.py:Net", *images, *targets]) == 0
    assert "targets.0.labels" in capsys.readouterr().out
    for wrong, words in (
        (["images.0=3x16x16", "images.2=3x16x16"], "--input images.1=SHAPE is missing"),
        (["images.0=3x16x16", "images=3x16x16"], "given as a structure, too"),
        (["images=3x16x16", "images.0=3x16x16"], "given as a shape, too"),
    ):
        assert main(["estimate", "nets_of_lists.py:Net", *(w for text in wrong for w in ("--input", text))]) == 2
        assert words in capsys.readouterr().err
