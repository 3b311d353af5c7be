"""Packages whose compiled operators are missing: a torchvision built for CUDA beside a CPU torch registers shape rules for operators
that its extension did not bring, and cannot be imported, though its networks are plain Python.

Promises: nothing is declared before an import has failed for want of exactly that operator, and nothing stays declared after the
attempt that needed it, so the real extension may still be loaded later.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, TypeVar

import torch

T = TypeVar("T")
_ABSENT = re.compile(r"operator (\w+)::(\w+) does not exist")
_MOST = 1000


def with_absent_operators(attempt: Callable[[], T]) -> T:
    """What ``attempt`` gives; it is made again, with the operator declared, each time it fails because one does not exist."""
    declared: set[tuple[str, str]] = set()
    with ExitStack() as libraries:
        while True:
            before = set(sys.modules)
            try:
                return attempt()
            except Exception as e:
                absent = _absent(e)
                if absent is None or absent in declared or len(declared) >= _MOST:
                    raise
            declared.add(absent)
            _forget_orphans(before)
            _declare(*absent, libraries)


def _absent(error: BaseException | None) -> tuple[str, str] | None:
    """The namespace and name of the operator that an error, or what caused it, says does not exist."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        found = _ABSENT.search(str(error))
        if found is not None:
            return found[1], found[2]
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


def _declare(namespace: str, name: str, libraries: ExitStack) -> None:
    library: Any = torch.library.Library(namespace, "FRAGMENT")
    library.define(f"{name}(...) -> ...")
    libraries.callback(library._destroy)


def _forget_orphans(before: set[str]) -> None:
    """Drop the new submodules of packages whose own import failed: found again, they would not be attributes of their package."""
    for name in sorted(set(sys.modules) - before):
        if any(name[:i] not in sys.modules for i, c in enumerate(name) if c == "."):
            del sys.modules[name]
