"""Operators as they are called: one module or function a case, with the tensors it gets and what is done with the result.

A case is described once: the oracle runs it on CUDA, and memest predicts it from the graph that its importer records of the same module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

Shape = tuple[int, ...]
ONES, LOSS = "ones", "loss"
HALF, BFLOAT = "float16", "bfloat16"


@dataclass(frozen=True, kw_only=True)
class Call:
    """``make()`` gives the module; ``shapes`` and ``dtype`` are those of its inputs. ``train``: gradients flow back, from ones; with
    ``target`` ("classes", "numbers") the module takes a target, too, and gives the loss they flow from. ``input_grad``: the inputs get
    one. ``autocast`` is a dtype; ``benchmark`` and ``cudnn`` are ``torch.backends.cudnn``'s ``benchmark`` and ``enabled``. ``ranks``: this
    process is the first of so many. A loss, which no importer meets inside a module, is predicted by ``rows`` of the table and their
    attributes, one after the other."""

    name: str
    make: Callable[[], nn.Module]
    shapes: tuple[Shape, ...]
    dtype: str = "float32"
    channels_last: bool = False
    train: bool = True
    input_grad: bool = True
    target: str = ""
    autocast: str = ""
    benchmark: bool = False
    cudnn: bool = True
    ranks: int = 0
    rows: tuple[tuple[str, Mapping[str, Any]], ...] = ()

    @property
    def settings(self) -> list[Any]:
        """All that is done with the module, for telling whether a result is of this case."""
        found = [
            self.shapes, self.dtype, self.channels_last, self.train, self.input_grad, self.target, self.autocast, self.benchmark, self.cudnn
        ]  # fmt: skip
        return [*found, self.ranks] if self.ranks else found

    def inputs(self, device: str) -> list[torch.Tensor]:
        """The inputs on a device, and the target."""
        kind = getattr(torch, self.dtype)
        made = [laid_out(torch.empty(s, dtype=kind), self.channels_last).to(device) for s in self.shapes]
        for t in made:
            t.requires_grad_(self.train and self.input_grad)
        if not self.target:
            return made
        first = self.shapes[0]
        classes = self.target == "classes"
        return [*made, torch.zeros((first[0], *first[2:]) if classes else first, dtype=torch.int64 if classes else None, device=device)]


def laid_out(t: torch.Tensor, channels_last: bool) -> torch.Tensor:
    """An image or a volume in channels_last, if asked for."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d} if channels_last else {}
    return t.contiguous(memory_format=formats.get(t.ndim, torch.contiguous_format))


def built(call: Call, device: str) -> nn.Module:
    """The module of a case on a device, as its dtype and layout want it."""
    with torch.device(device):
        module = call.make()
    module = module.to(getattr(torch, call.dtype))
    if call.channels_last:
        module = module.to(memory_format=torch.channels_last if len(call.shapes[0]) == 4 else torch.channels_last_3d)
    return module.train(call.train)


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *tensors: torch.Tensor) -> Any:
        return self.function(*tensors)


class HalfInput(nn.Module):
    """A module of float32 parameters that gets its input in half."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x.half())


class InEval(nn.Module):
    """A module that stays in eval mode while gradients are wanted."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.inner.eval()
        return self.inner(x)


class Twice(nn.Module):
    """A layer that is called twice, so that autocast finds its weight in the cache."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(torch.relu(self.inner(x)))


class Embedding(nn.Module):
    """Rows of a table, by indices of the input's shape."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.table = nn.Embedding(rows, columns)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.table(torch.zeros(x.shape, dtype=torch.int64, device=x.device))


class SelfAttention(nn.Module):
    """Multi-head attention of a sequence with itself, without the weights as a result."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


def attention_by(backend: str) -> Callable[..., torch.Tensor]:
    """Scaled dot-product attention by one of torch's kernels."""

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        from torch.nn.attention import SDPBackend, sdpa_kernel

        with sdpa_kernel(getattr(SDPBackend, backend)):
            return F.scaled_dot_product_attention(query, key, value)

    return attend
