"""What a forward that cannot be taken as it stands is told: calls of ``torch.cuda`` on a machine without a card, exceptions, circles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import memest
from memest.errors import GraphError, MemestError, UnsupportedError, UsageError

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from memest.sources.importers.torch.network import from_torch  # noqa: E402

SHAPE = (2, 3, 8, 8)
without_a_card = pytest.mark.skipif(torch.cuda.is_available(), reason="has a card")


class Net(nn.Module):
    """What a function makes of a convolution's result."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.conv, self.function, self.size = nn.Conv2d(3, 4, 3, padding=1), function, torch.tensor(3)

    def forward(self, x: Any) -> Any:
        given = self.function(self.conv(x))
        return given if isinstance(given, torch.Tensor) else self.conv(x)


def _peak(function: Callable[[Any], Any], **asked: Any) -> int:
    return memest.estimate(from_torch(Net(function), SHAPE), input_shape=SHAPE, mode="infer", **asked).peak_bytes


@without_a_card
@pytest.mark.parametrize("name", ["synchronize", "reset_peak_memory_stats", "empty_cache", "nvtx.range_pop"])
def test_calls_that_move_nothing_are_passed_over(name: str) -> None:
    inside: Any = torch.cuda.nvtx if "nvtx" in name else torch.cuda
    original = getattr(inside, name.rpartition(".")[2])
    assert _peak(lambda y: getattr(inside, name.rpartition(".")[2])()) == _peak(lambda y: None)
    assert getattr(inside, name.rpartition(".")[2]) is original


def test_blocks_given_back_stop_a_card() -> None:
    with pytest.raises(UnsupportedError, match=r"test_refusals.py:\d+\): torch.cuda.empty_cache\(\), .* not modelled on torch-cuda yet"):
        _peak(lambda y: torch.cuda.empty_cache(), runtime="torch-cuda", machine="rtx-4090")


@without_a_card
@pytest.mark.parametrize(
    ("function", "error", "said"),
    [
        (lambda y: torch.cuda.Event(), GraphError, "this line needs a GPU, and nothing runs on one here: guard it"),
        (lambda y: torch.cuda.get_device_name(), GraphError, "needs a GPU"),
        (lambda y: y["image"], GraphError, r"x\['image'\]: a tensor has no names; .*{'image': image} a dict"),
        (lambda y: y.images, GraphError, r"no attribute 'images'; where that is an input, .*\[\[image, image\]\] is one list"),
        (
            lambda y: nn.functional.batch_norm(y.mean((2, 3))[:1], None, None, training=True),
            GraphError,
            "give an example with a batch of 2 or more",
        ),
    ],
)
def test_who_is_refused_learns_where_and_what_to_do(function: Any, error: type[MemestError], said: str) -> None:
    with pytest.raises(error, match=rf"^Net \(test_refusals.py:\d+\): .*{said}") as caught:
        from_torch(Net(function), SHAPE)
    assert "\n" not in str(caught.value)


def test_who_hands_over_another_form_learns_what_each_argument_is_given() -> None:
    class Two(nn.Module):
        def forward(self, images: Any, targets: Any) -> Any:
            return targets["boxes"]

    said = "given are images = a tensor of 2x3x8x8, targets = a tensor of 2x4; a list of examples has one for each argument"
    with pytest.raises(GraphError, match=said):
        from_torch(Two(), [(2, 3, 8, 8), (2, 4)])


def test_who_calls_with_other_arguments_learns_which_there_are() -> None:
    with pytest.raises(GraphError, match=r"unexpected keyword argument 'imge'; forward takes x; given are imge = a tensor of 4x3x6x6"):
        from_torch(Net(lambda y: y), {"imge": (4, 3, 6, 6)})
    graph = from_torch(Net(lambda y: y), (4, 3, 6, 6))
    with pytest.raises(UsageError, match="has no input 'image'; there are input"):
        memest.estimate(graph, input_shape={"image": (4, 3, 6, 6)})


def test_a_target_by_its_shape_is_told_to_be_floating() -> None:
    with pytest.raises(GraphError, match=r"an input given by its shape is of floating dtype; whole numbers are torch.zeros"):
        memest.step(lambda x, y: nn.functional.cross_entropy(x, y), (4, 3, 6, 6), (4, 6, 6))


def test_a_tensor_as_a_size_that_is_named_is_asked_for() -> None:
    module = Net(lambda y: nn.functional.interpolate(y, size=(module.size, module.size)))
    with pytest.raises(UnsupportedError, match="a tensor as a size depends on values; say which number it holds"):
        from_torch(module, SHAPE)
    graph = from_torch(module, SHAPE, assume={"size": 3})
    assert memest.estimate(graph, input_shape=SHAPE, mode="infer").timeline.values[graph.outputs[0]].shape == (2, 4, 3, 3)


def _asserts(y: Any) -> Any:
    if y.shape[-1] % 7:
        raise AssertionError


def test_an_assertion_without_words_is_told_by_its_code() -> None:
    with pytest.raises(GraphError, match=r"AssertionError: raise AssertionError$"):
        from_torch(Net(_asserts), SHAPE)


def test_a_reentrant_checkpoint_with_one_tensor_twice_is_refused() -> None:
    def forward(y: Any) -> Any:
        return checkpoint(lambda a, b: a.sigmoid() * b, y, y, use_reentrant=True)

    with pytest.raises(UnsupportedError, match=r"test_refusals.py:\d+\): .*one tensor given twice: give it once"):
        from_torch(Net(forward), SHAPE, mode="train")
    assert from_torch(Net(forward), SHAPE, mode="infer").layers


def test_tensors_in_a_circle_are_said() -> None:
    def forward(y: Any) -> Any:
        maps: list[Any] = []

        def down(z: Any, n: int) -> None:
            maps.append(z.sigmoid())
            if n:
                down(maps[-1], n - 1)

        down(y, 2)
        return maps[0]

    assert any(note.startswith("3 tensors of the forward wait in a circle") for note in from_torch(Net(forward), SHAPE).notes)
    assert not from_torch(Net(lambda y: y.sigmoid()), SHAPE).notes
