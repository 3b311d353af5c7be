"""What one network of every library's module showed (validation/libraries): kinds of code that were recorded or read wrongly."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import memest
from memest.sizes.dims import parse
from memest.sources.importers.torch.network import from_torch
from validation.protocol import inputs_for, measure_inference, measure_training
from validation.streams import first_difference

SHAPE = (2, 3, 8, 8)


def streams_equal(module: nn.Module, shape: tuple[int, ...], modes: tuple[str, ...] = ("train", "infer")) -> None:
    """The streams that memest plays, from the graph and from the graph's file, are torch's."""
    graph = from_torch(module.train(), shape)
    for read in (graph, memest.loads(memest.dumps(graph))):
        for mode in modes:
            inputs = inputs_for([shape])
            step: dict[str, Any] = {"optimizer": "sgd", "loss": "mse_loss"} if mode == "train" else {}
            measured = measure_training(module.train(), inputs, **step) if step else measure_inference(module, inputs)
            found = memest.estimate(read, input_shape=shape, mode=mode, torch=torch.__version__, **step)
            assert found.standing_bytes == measured.standing_bytes
            difference = first_difference(found.events, measured.events)
            assert difference is None, f"{mode}\n{difference}"


class Module(nn.Module):
    """A convolution, then whatever is done with its result."""

    def __init__(self, body: Callable[[Any, torch.Tensor], torch.Tensor], **parts: Any) -> None:
        super().__init__()
        self.conv, self.body = nn.Conv2d(3, 4, 3, padding=1), body
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The body's."""
        return self.body(self, self.conv(x))


def _assigned(m: Any, x: torch.Tensor) -> torch.Tensor:
    x = x * 2
    x[:, :, 0:, 0:] = x[:, :, 0:, 0:] + x.flip(3)
    return x.softmax(-1).relu()


def _by_numpys_names(m: Any, x: torch.Tensor) -> torch.Tensor:
    return x * torch.mean(x, axis=-1, keepdims=True) + torch.zeros(size=(8, 8), dtype=x.dtype)


def _sized_by_numpy(m: Any, x: torch.Tensor) -> torch.Tensor:
    return x.reshape(2, 4, np.prod((8, 8))).relu()


def _attends_in_three_dims(m: Any, x: torch.Tensor) -> torch.Tensor:
    q = x.flatten(2)
    return nn.functional.scaled_dot_product_attention(q, q, q)


def _shares_a_head(m: Any, x: torch.Tensor) -> torch.Tensor:
    return nn.functional.scaled_dot_product_attention(x, x[:, :1], x[:, 1:2])


def _projects_by_a_part(m: Any, x: torch.Tensor) -> torch.Tensor:
    part = m.weight.split([8, 16])[1]
    return nn.functional.linear(x.flatten(1, 2).transpose(0, 1), part)


def _written_on_what_wants_no_gradient(m: Any, x: torch.Tensor) -> torch.Tensor:
    base = torch.cat([x.detach(), x.detach()], 1)
    base[:, :2] *= x.mean(1, keepdim=True)
    return base * 2


def _unpooled_beside(m: Any, x: torch.Tensor) -> torch.Tensor:
    small, places = nn.functional.max_pool2d(x, 2, return_indices=True)
    return torch.cat([nn.functional.max_unpool2d(small, places, 2), x], 1)


def _compared_with_nothing(m: Any, x: torch.Tensor) -> torch.Tensor:
    return x * 2 if x == () or x != "text" else x


FOUND = (
    *(_assigned, _by_numpys_names, _sized_by_numpy, _attends_in_three_dims, _shares_a_head),
    *(_written_on_what_wants_no_gradient, _unpooled_beside, _compared_with_nothing),
)


@pytest.mark.parametrize("body", FOUND)
def test_streams_are_torchs(body: Callable[[Any, torch.Tensor], torch.Tensor]) -> None:
    streams_equal(Module(body), SHAPE)


def test_a_view_of_a_parameter_says_that_it_requires_grad_under_no_grad() -> None:
    streams_equal(Module(_projects_by_a_part, weight=nn.Parameter(torch.rand(24, 8))), SHAPE)


def test_a_slope_that_several_share_is_added_up_beside() -> None:
    streams_equal(Module(lambda m, x: m.act(m.act(x) * 2), act=nn.PReLU()), SHAPE)


def test_hooks_that_the_first_call_installs_are_gone_after_it() -> None:
    seen: list[torch.Tensor] = []

    def body(m: Any, x: torch.Tensor) -> torch.Tensor:
        if not getattr(m, "installed", False):
            m.act.register_forward_hook(lambda module, given, result: seen.append(result))
            m.installed = True
        seen.clear()
        result = m.act(x)
        joined = torch.cat([*seen, result])
        seen.clear()
        return joined

    module = Module(body, act=nn.ReLU())
    from_torch(module, SHAPE)
    assert not module.act._forward_hooks and not hasattr(module, "installed")
    streams_equal(module, SHAPE)


def test_what_functions_cache_while_they_are_recorded_is_forgotten() -> None:
    grid = lru_cache(maxsize=4)(lambda n: torch.arange(n, dtype=torch.float32))
    pair = lru_cache(maxsize=None)(lambda n: (torch.ones(n), torch.zeros(n)))
    module = Module(lambda m, x: x + grid(8) + pair(8)[0])
    graph = from_torch(module, SHAPE)
    assert sum(p.name.startswith("kept") for p in graph.parameters) == 3
    assert grid.cache_info().currsize == pair.cache_info().currsize == 0
    assert module(torch.rand(SHAPE)).device.type == "cpu"


@pytest.mark.parametrize(
    ("padded", "short"),
    [
        ("W + (0 - W)%7", "((W + 6)//7)*7"),
        ("W//4 + (7 - (W//4)%7)%7", "((W + 24)//28)*7"),
        ("W + (0 - W)%7 + (0 - (W + (0 - W)%7))%7", "((W + 6)//7)*7"),
        ("2*W + 3 + (4 - (2*W + 3)%8)%4", "((W*2 + 2)//4 + 1)*4"),
    ],
)
def test_sizes_filled_up_to_a_multiple_are_one_division(padded: str, short: str) -> None:
    assert str(parse(padded)) == short
    for width in range(1, 60):
        assert eval(padded, {"W": width}) == eval(short, {"W": width})
