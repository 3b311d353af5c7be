"""What is there before a call may lie in memory in any order: transposed parameters, images read as height, width, channels."""

from __future__ import annotations

from typing import Any

import pytest

import memest
from memest.errors import UnsupportedError
from memest.machines.cpu import Cpu
from memest.network.tensor import contiguous_strides, is_layout, layout_of, strides_in

torch = pytest.importorskip("torch")

from test_contexts import same  # noqa: E402
from torch import nn  # noqa: E402

from memest.sources.importers.torch.network import from_torch  # noqa: E402
from validation.protocol import measure_training  # noqa: E402


class Weighted(nn.Module):
    """A product with a weight that lies as it is given, read in rows afterwards."""

    def __init__(self, weight: Any, how: str) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        if how == "parameter":
            self.weight = nn.Parameter(weight)
        elif how == "buffer":
            self.register_buffer("weight", weight)
        else:
            self.weight = weight

    def forward(self, x: Any) -> Any:
        return nn.functional.linear(self.linear(x), self.weight * 1.0) + self.weight.reshape(-1)[:1]


class Flat(nn.Module):
    """Takes its input in one row."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Any) -> Any:
        return torch.ravel(x) * self.scale


def check(make: Any, x: Any, cpu: Cpu) -> None:
    recipe: dict[str, Any] = {"optimizer": "adam", "loss": "mse_loss"}
    predicted = memest.estimate(from_torch(make(), x), input_shape=tuple(x.shape), machine=cpu, **recipe)
    same(predicted, measure_training(make(), [x], **recipe))


@pytest.mark.parametrize("how", ["parameter", "buffer", "attribute"])
def test_a_transposed_tensor_of_a_module_is_taken_as_it_lies(how: str, cpu: Cpu) -> None:
    check(lambda: Weighted(torch.rand(8, 5).t(), how), torch.rand(4, 8), cpu)


@pytest.mark.parametrize("order", [(0, 2, 3, 1), (0, 3, 1, 2), (3, 2, 1, 0)])
def test_an_input_is_taken_as_it_lies(order: tuple[int, ...], cpu: Cpu) -> None:
    check(Flat, torch.rand(2, 3, 4, 6).permute(order), cpu)


def test_an_image_of_one_is_neither_in_rows_nor_channels_last(cpu: Cpu) -> None:
    image = torch.rand(9, 8, 3).permute(2, 0, 1).unsqueeze(0)
    assert layout_of(tuple(image.shape), image.stride()) == "2,3,0,1"
    check(lambda: nn.Conv2d(3, 4, 3), image, cpu)


@pytest.mark.parametrize("weight", [lambda: torch.rand(5, 1).expand(5, 8), lambda: torch.rand(5, 16)[:, ::2]])
def test_elements_that_overlap_or_leave_gaps_are_refused(weight: Any) -> None:
    with pytest.raises(UnsupportedError, match="weight is a view whose elements overlap or leave gaps"):
        from_torch(Weighted(weight(), "parameter"), (4, 8))
    with pytest.raises(UnsupportedError, match="input is a view"):
        from_torch(Flat(), weight())


def test_layouts_are_kept_in_files(tmp_path: Any, cpu: Cpu) -> None:
    graph = from_torch(Weighted(torch.rand(8, 5).t(), "parameter"), (4, 8))
    memest.save(graph, tmp_path / "net.yaml")
    again = memest.load(tmp_path / "net.yaml")
    assert [p.layout for p in again.parameters if p.name == "weight"] == ["1,0"]
    assert [e.delta for e in memest.estimate(again, input_shape=(4, 8), machine=cpu).events] == [
        e.delta for e in memest.estimate(graph, input_shape=(4, 8), machine=cpu).events
    ]


def test_a_layout_names_strides_and_back() -> None:
    shape = (2, 3, 4, 5)
    assert layout_of(shape, contiguous_strides(shape)) == "contiguous" and strides_in("3,2,1,0", shape) == (1, 2, 6, 24)
    assert layout_of(shape, (1, 2, 6, 24)) == "3,2,1,0" and layout_of(shape, (60, 1, 15, 3)) == "channels_last"
    assert layout_of((3, 4), (1, 1)) is None and layout_of((1, 4), (77, 1)) == "contiguous"
    assert is_layout("1,0", 2) and not is_layout("1,0", 3) and not is_layout("sideways", 2)


def test_what_backward_takes_for_granted_of_values_is_said() -> None:
    class Product(nn.Linear):
        def forward(self, x: Any) -> Any:
            return super().forward(x).cumprod(1)

    graph = from_torch(Product(4, 4), (2, 4))
    said = [n for n in memest.estimate(graph, input_shape=(2, 4)).notes if "no element is zero in what cumprod reads" in n]
    assert said and not memest.estimate(graph, input_shape=(2, 4), mode="infer").notes
