"""A module's own state: what it owns, and that it is left as it was found."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from operator import is_
from typing import Any

import torch
from torch import nn

CONTAINERS = frozenset({dict, list, set, OrderedDict, deque})
_EMPTY: dict[Any, Any] = {}


class Owned:
    """What a module consists of: its ``modules`` and its ``tensors`` (parameters and buffers, each once, module by module in torch's order
    of registration), with their paths, and the ``tables`` where the tensors are registered."""

    def __init__(self, module: nn.Module) -> None:
        self.modules = named_modules(module)
        self.tables: list[dict[str, Any]] = [table for _, m in self.modules for table in (m._parameters, m._buffers)]
        self.tensors: list[tuple[str, torch.Tensor]] = []
        seen: set[int] = set()
        for path, m in self.modules:
            for name, t in (*m._parameters.items(), *m._buffers.items()):
                if t is not None and id(t) not in seen:
                    seen.add(id(t))
                    self.tensors.append((f"{path}.{name}" if path else name, t))

    @property
    def rests(self) -> list[tuple[str, int]]:
        """Bytes of storages that its tensors are a part of and no tensor of it sees, by the first tensor's path: a window of
        ``torch.hann_window(64)`` sees 64 of 65 values."""
        storages: dict[int, tuple[str, int, int]] = {}
        for path, t in self.tensors:
            if type(t) in (torch.Tensor, nn.Parameter) and t.layout is torch.strided and not t.is_meta:
                storage = t.untyped_storage()
                first, whole, seen = storages.get(storage.data_ptr(), (path, storage.nbytes(), 0))
                storages[storage.data_ptr()] = first, whole, seen + t.numel() * t.element_size()
        return [(path, whole - seen) for path, whole, seen in storages.values() if whole > seen]

    @property
    def on_meta(self) -> bool:
        """Whether any of its tensors is a meta tensor."""
        return any(t.is_meta for _, t in self.tensors)


def named_modules(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """What ``module.named_modules()`` gives: torch's own goes through a generator for every level of each module."""
    found: dict[nn.Module, str] = {}
    left = [("", module)]
    while left:
        path, m = left.pop()
        if type(m).named_modules is not nn.Module.named_modules:
            return list(module.named_modules())
        if m not in found:
            found[m] = path
            inside = [(f"{path}.{name}" if path else name, child) for name, child in m._modules.items() if child is not None]
            left.extend(reversed(inside))
    return [(path, m) for m, path in found.items()]


class Before:
    """What a module's parts had before a forward: attributes, registered tensors, hooks, the contents of their lists and dicts."""

    def __init__(self, module: nn.Module) -> None:
        attributes = [(m.__dict__, m.__dict__.copy()) for _, m in named_modules(module)]
        inside = [v for _, before in attributes for v in before.values() if type(v) in CONTAINERS]
        self._tables = [*attributes, *[(v, v.copy()) for v in inside if v]]
        self._empty = [v for v in inside if not v]

    def changed(self) -> bool:
        """Whether numbers, flags or texts have been set since: what the next call may go by."""
        tables = (*self._tables, *[(v, _EMPTY) for v in self._empty if v])
        return any(plainly_changed(live, before) for live, before in tables)

    def put_back(self) -> None:
        """What has been set since is taken back."""
        for live, before in self._tables:
            if not same(live, before):
                put_back(live, before)
        for filled in [v for v in self._empty if v]:
            filled.clear()


@contextmanager
def as_it_was(module: nn.Module) -> Iterator[Before]:
    """What happens inside to what the parts of ``module`` have is taken back; gives what they had."""
    before = Before(module)
    try:
        yield before
    finally:
        before.put_back()


def put_back(live: Any, before: Any) -> None:
    """The contents of ``before`` in ``live``: both dicts, or both lists (or sets, or deques)."""
    live.clear()
    if isinstance(live, dict | set):
        live.update(before)
    else:
        live.extend(before)


def same(live: Any, before: Any) -> bool:
    """Whether both hold the same objects in the same places, and in the same order."""
    if not before:
        return not live
    if isinstance(live, set):
        return bool(live == before)
    if len(live) != len(before) or not all(map(is_, live, before)):
        return False
    return not isinstance(live, dict) or all(map(is_, live.values(), before.values()))


def plainly_changed(live: Any, before: Any) -> bool:
    """Whether a number, a flag, a text or None stands where something else stood or nothing did."""
    if same(live, before):
        return False
    if not isinstance(live, dict):
        return len(live) != len(before) or isinstance(live, set) or any(_is_other(a, b) for a, b in zip(live, before, strict=True))
    return any(_is_other(value, before.get(key, ...)) for key, value in live.items())


def _is_other(value: Any, before: Any) -> bool:
    return (value is None or isinstance(value, bool | int | float | str)) and value is not before and value != before
