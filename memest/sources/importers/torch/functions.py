"""torch's functions as objects: their names, their bodies without dispatch, and where what they create lands."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

from memest.sizes.remembering import kept


@kept(4_096)
def name_of(func: Any) -> str:
    """Its own name; ``__get__:shape`` for an attribute."""
    name = str(getattr(func, "__name__", func))
    if name in ("__get__", "__set__"):
        owner = getattr(func, "__self__", None)
        return f"{name}:{getattr(owner, '__name__', '?')}"
    return name


def full_name(func: Any) -> str:
    """With its module."""
    module = getattr(func, "__module__", None) or getattr(getattr(func, "__objclass__", None), "__name__", "")
    return f"{module}.{name_of(func)}".lstrip(".")


_BODIES: dict[Any, Callable[..., Any]] = {}
_BLIND = {
    "has_torch_function": lambda *_: False,
    "has_torch_function_unary": lambda *_: False,
    "has_torch_function_variadic": lambda *_: False,
}


def without_dispatch(func: types.FunctionType) -> Callable[..., Any]:
    """A Python-level torch function that goes straight to its body, so that the calls in it are seen."""
    body = _BODIES.get(func)
    if body is None:
        cells = [c.cell_contents for c in func.__closure__ or ()]
        closure = tuple(types.CellType(held if held is func else _inner(held)) for held in cells) if cells else None
        body = types.FunctionType(func.__code__, {**func.__globals__, **_BLIND}, func.__name__, func.__defaults__, closure)
        body.__kwdefaults__ = func.__kwdefaults__
        body = _BODIES.setdefault(func, body)
    return body


def _inner(value: Any) -> Any:
    """What a dispatching closure holds (boolean_dispatch's two functions) enters its body too."""
    return without_dispatch(value) if isinstance(value, types.FunctionType) else value


def on_meta(func: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Creation calls land on meta; elsewhere devices are left as given."""
    name = name_of(func)
    if "device" in kwargs or name in _CREATION:
        return {**kwargs, "device": "meta"}
    return kwargs


_CREATION = frozenset(
    {"zeros", "ones", "full", "empty", "arange", "rand", "randn", "linspace", "eye", "randint", "randperm", "tensor", "scalar_tensor"}
)
