"""torch's tensors in our words: dtype, memory format, metadata with symbolic dims, and those inside a structure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import nn

from memest.errors import UnsupportedError
from memest.network.tensor import Shape, Spec, layout_of, strides_in
from memest.sizes.remembering import kept

META = torch.device("meta")
_PLAIN, _same = torch.Tensor, torch.Tensor._make_subclass
MOST = 4_096
"""Numbers of an example that are remembered."""


def twin(t: torch.Tensor) -> torch.Tensor:
    """Another meta tensor with the metadata of ``t``."""
    with torch._C.DisableTorchFunction():
        return torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=META)


def look_alike(t: torch.Tensor) -> torch.Tensor:
    """A meta tensor with the metadata of the meta tensor ``t``, on its storage: cheaper than one of its own, for tensors that nothing
    computes with."""
    with torch._C.DisableTorchFunction():
        return (
            torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=META) if torch.is_inference_mode_enabled() else _same(_PLAIN, t)
        )


def like_example(t: torch.Tensor) -> torch.Tensor:
    """A meta tensor that lies as an example does; a few whole numbers in a row it remembers."""
    made: Any = torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device="meta")
    made.example = whole_numbers_in(t)
    described: torch.Tensor = made
    return described


def whole_numbers_in(t: torch.Tensor) -> tuple[int, ...]:
    """Those of a small tensor of one dim that is there; () of any other."""
    if t.ndim == 1 and t.dtype in (torch.int64, torch.int32) and t.device.type == "cpu" and 0 < t.numel() <= MOST:
        with torch._C.DisableTorchFunction():
            return tuple(t.tolist())
    return ()


def numbers_of(t: torch.Tensor) -> tuple[int, ...]:
    """The whole numbers of the example that it is made like; () where nobody knows."""
    found: tuple[int, ...] = getattr(t, "example", ())
    return found


def dtype_of(t: torch.Tensor) -> str:
    """``float32``."""
    return str(t.dtype).removeprefix("torch.")


def layout_in_memory(t: torch.Tensor, name: str) -> str:
    """How a tensor lies that is there before the call; UnsupportedError where that is no way for one of its own to lie."""
    layout = _described(tuple(t.shape), t.stride(), t.dtype)[1]
    if layout is None:
        how = f"shape {list(t.shape)}, strides {list(t.stride())}"
        raise UnsupportedError(f"{name} is a view whose elements overlap or leave gaps ({how}), which has no rule: make it contiguous()")
    return layout


def spec_of(t: torch.Tensor, shape: Shape | None = None) -> Spec:
    """Its metadata, with ``shape`` for its sizes (``Dim``s of the same values)."""
    plain, layout = _described(tuple(t.shape), t.stride(), t.dtype)
    if shape is None:
        return plain
    strides = None if layout is None else strides_in(layout, shape)
    return Spec(shape, plain.strides if strides is None or tuple(strides) != plain.strides else strides, plain.dtype)


@kept(4_096)
def _described(shape: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype) -> tuple[Spec, str | None]:
    """Metadata without symbols, and the layout."""
    return Spec(shape, strides, str(dtype).removeprefix("torch.")), layout_of(shape, strides)


def leaves(value: Any, *, within: tuple[int, ...] = (), opened: bool = False) -> Iterator[torch.Tensor]:
    """The tensors of a structure of mappings, sequences and dataclasses; of a mapping ``out`` comes first. What stands ``within`` itself
    is not gone through again. ``opened`` has the attributes of other objects, too (a cache of keys and values), but of no module."""
    if isinstance(value, torch.Tensor):
        yield value
        return
    parts: list[Any] = []
    if isinstance(value, Mapping):
        parts = [value[key] for key in sorted(value, key=lambda key: key != "out")]
    elif isinstance(value, list | tuple | set):
        parts = list(value)
    elif is_dataclass(value) and not isinstance(value, type):
        parts = [getattr(value, field.name) for field in fields(value)]
    elif opened and hasattr(value, "__dict__") and not isinstance(value, type | nn.Module | ModuleType | FunctionType):
        parts = list(vars(value).values())
    if id(value) not in within:
        for part in parts:
            yield from leaves(part, within=(*within, id(value)), opened=opened)


def like(spec: Spec) -> torch.Tensor:
    """A meta tensor that lies as ``spec`` says."""
    shape, strides = tuple(map(int, spec.shape)), tuple(map(int, spec.strides))
    with torch._C.DisableTorchFunction():
        return torch.empty_strided(shape, strides, dtype=getattr(torch, spec.dtype), device=META)
