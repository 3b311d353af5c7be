"""Tensors that modules have as plain attributes (``self.stride = torch.tensor(…)``, lists and dicts of them), in no table of torch's.

What the forward reads of them is a buffer like any other from then on; the rest stands in memory all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from memest.network.dtypes import ITEMSIZE
from memest.network.graph import Parameter
from memest.network.tensor import nbytes
from memest.sources.importers.torch.tensors.described import dtype_of, layout_of
from memest.sources.importers.torch.tensors.live import LiveTensors
from memest.sources.importers.torch.tensors.state import Owned

_DEPTH = 3


def attributes_of(modules: Iterable[tuple[str, nn.Module]]) -> Iterator[tuple[str, torch.Tensor]]:
    """Each with its path, of ``modules`` and theirs."""
    for path, module in modules:
        for name, value in list(vars(module).items()):
            if name not in _TORCHS:
                yield from _inside(f"{path}.{name}" if path else name, value, _DEPTH)


_TORCHS = frozenset(vars(nn.Module()))


def _inside(name: str, value: Any, depth: int) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield name, value
    elif depth and type(value) in (list, tuple, dict):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in list(items):
            if isinstance(key, str | int):
                yield from _inside(f"{name}.{key}", item, depth - 1)


def own_the_rest(modules: Iterable[tuple[str, nn.Module]], owned: Owned, live: LiveTensors) -> None:
    """A call is over: what of those tensors it did not read stands beside it, each memory once. What no module registers no
    ``module.to`` moves, so where the network runs on a card it lies on the host."""
    with torch._C.DisableTorchFunction():
        met = [t for e in live.tracked.values() if (t := e.ref()) is not None]
        known = {_memory(t) for t in (*(t for _, t in owned.tensors), *met) if t.layout is torch.strided}
        for path, t in attributes_of(modules):
            if t.layout is not torch.strided or (t.is_meta and not owned.on_meta) or live.found(t) is not None or _memory(t) in known:
                continue
            known.add(_memory(t))
            name, size, dtype = live.take(live.unique(path)), t.untyped_storage().nbytes(), dtype_of(t)
            whole = dtype in ITEMSIZE and nbytes(tuple(t.shape), dtype) == size
            shape, dtype, layout = (tuple(t.shape), dtype, layout_of(t)) if whole else ((size,), "uint8", "contiguous")
            live.parameters.append(Parameter(name=name, shape=shape, dtype=dtype, trainable=False, buffer=True, layout=layout))
            live.on_host[name] = None


def _memory(t: torch.Tensor) -> int:
    return t.untyped_storage()._cdata
