"""Whether code of the user's may go by the mode that a module is in, or by whether gradients are on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import CodeType, FunctionType
from typing import Any

from torch import nn

WORDS = frozenset({"training", "train", "eval", "is_grad_enabled", "is_inference_mode_enabled", "is_inference", "requires_grad", "getattr"})
NO_FORWARDS = frozenset({"__init__", "train", "eval"})  # methods that no forward runs
DEPTH = 4  # functions that call functions


def blind(modules: Iterable[nn.Module]) -> bool:
    """True where no code that these modules run speaks of a mode, apart from torch's own; False also where that cannot be told."""
    seen: set[Any] = set()
    return not any(_may_tell(m, seen) for m in modules)


def _may_tell(m: nn.Module, seen: set[Any]) -> bool:
    if m._forward_hooks or m._forward_pre_hooks:
        return True
    if _is_torchs(type(m)):
        return "forward" in vars(m)
    if any(callable(v) and not isinstance(v, nn.Module | type) and not _is_torchs(v) for v in vars(m).values()):
        return True
    return any(_speaks(function, seen, DEPTH) for cls in type(m).__mro__ if not _is_torchs(cls) for function in _functions(vars(cls)))


def _functions(named: Mapping[str, Any]) -> Iterator[Any]:
    for name, value in named.items():
        if name in NO_FORWARDS:
            continue
        found = getattr(value, "__func__", None) or getattr(value, "fget", None) or value
        if isinstance(found, FunctionType):
            yield found


def _speaks(function: FunctionType, seen: set[Any], depth: int) -> bool:
    if function in seen or _is_torchs(function):
        return False
    seen.add(function)
    names = frozenset(_names(function.__code__))
    held = [cell.cell_contents for cell in function.__closure__ or ()]
    if names & WORDS or any(not isinstance(v, FunctionType | type) for v in held):
        return True
    called = [v for v in (*held, *(function.__globals__.get(name) for name in names)) if isinstance(v, FunctionType)]
    return depth > 0 and any(_speaks(f, seen, depth - 1) for f in called)


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    yield from (c for c in code.co_consts if isinstance(c, str))
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _names(inner)


def _is_torchs(value: Any) -> bool:
    return str(getattr(value, "__module__", "")).partition(".")[0] in ("torch", "builtins")
