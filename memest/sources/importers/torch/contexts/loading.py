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
    """Takes what was put in place ``away`` as long as a module of torch is executed, and puts it ``back``."""

    def __init__(self, away: Callable[[], None], back: Callable[[], None]) -> None:
        self._away, self._back, self._depth = away, back, 0

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
                self._away()
            try:
                execute(module)
            finally:
                self._depth -= 1
                if not self._depth:
                    self._back()

        loader.exec_module = executed
        return spec


@contextmanager
def torch_loads_without(away: Callable[[], None], back: Callable[[], None]) -> Iterator[None]:
    """Until here ``away`` is called before a module of torch is executed, and ``back`` after."""
    finder = _Loading(away, back)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
