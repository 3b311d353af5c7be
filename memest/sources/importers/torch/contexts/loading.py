"""What torch loads while a forward runs (its first batch norm on meta tensors loads torch's compiler): that code must find torch as it is.

A module that is executed under our replacements would keep them for good, and torch's compiler refuses to load under some.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any


class _Loading(MetaPathFinder):
    """Takes what was put in place away as long as a module of torch is executed, and puts it back."""

    def __init__(self) -> None:
        self.replaced: list[tuple[Callable[[], None], Callable[[], None]]] = []
        self._depth = 0

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """As Python finds it, with its execution wrapped."""
        spec = PathFinder.find_spec(fullname, path, target) if fullname.startswith("torch.") else None
        loader: Any = None if spec is None else spec.loader
        if loader is None:
            return None
        execute = loader.exec_module

        def executed(module: ModuleType) -> None:
            self._depth += 1
            if self._depth == 1:
                for away, _ in reversed(self.replaced):
                    away()
            try:
                execute(module)
            finally:
                self._depth -= 1
                if not self._depth:
                    for _, back in self.replaced:
                        back()

        loader.exec_module = executed
        return spec


_FINDER = _Loading()


@contextmanager
def torch_loads_without(away: Callable[[], None], back: Callable[[], None]) -> Iterator[None]:
    """Until here ``away`` is called before a module of torch is executed, and ``back`` after."""
    _FINDER.replaced.append((away, back))
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
    try:
        yield
    finally:
        _FINDER.replaced.remove((away, back))
        if not _FINDER.replaced:
            sys.meta_path.remove(_FINDER)
