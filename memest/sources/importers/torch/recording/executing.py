"""A recorded call, made on meta tensors: torch says what it gives, and nothing is computed."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any

import torch

from memest.runtimes.torch.ledger import Value
from memest.sources.importers.torch.calls.plain import Request
from memest.sources.importers.torch.functions import on_meta
from memest.sources.importers.torch.tensors.described import twin
from memest.sources.importers.torch.tensors.live import LiveTensors

MAY_COPY = ("to", "to_device", "contiguous")  # calls that give back their input where it is already as they make it
_NOTHING = object()


def execute(
    live: LiveTensors,
    request: Request,
    func: Any,
    args: Any,
    kwargs: Any,
    values: Sequence[Value | None],
    casting: bool,
    around: AbstractContextManager[Any],
) -> Any:
    """The call on meta tensors, ``around`` which a context stands; where torch has no meta kernel for it, tensors of the shapes our row
    gives."""
    produced: Any = _NOTHING
    if not request.own_result and not casting:  # on meta tensors torch casts nothing
        with suppress(NotImplementedError):
            produced = _on_its_own(live, _with_twins(func, args, on_meta(func, kwargs), around))
    if produced is _NOTHING:
        produced = _as_our_row_says(live, request, values)
    if request.op == "autocast_operands" and not casting:
        return tuple(map(twin, request.tensors[0]))
    if request.op in MAY_COPY and produced is request.tensors[0] and produced.is_meta:  # (a module that keeps the result keeps its own)
        return twin(produced)  # a name of its own: in other dtypes and layouts it is a copy, and the input dies first
    return produced


def _as_our_row_says(live: LiveTensors, request: Request, values: Sequence[Value | None]) -> Any:
    made: list[Any] = []
    given = [t for t in request.tensors if isinstance(t, torch.Tensor)]
    for v in values:
        same = None if v is None else next((t for t in given if live.known(t).value is v), None)
        if same is not None or v is None:
            made.append(same)
            continue
        shape, strides = tuple(int(n) for n in v.spec.shape), tuple(int(n) for n in v.spec.strides)
        with torch._C.DisableTorchFunction():
            made.append(torch.empty_strided(shape, strides, dtype=getattr(torch, v.spec.dtype), device="meta"))
    return made[0] if len(made) == 1 else tuple(made)


def _with_twins(func: Any, args: Any, kwargs: Any, around: AbstractContextManager[Any]) -> Any:
    """The call with a meta twin for each tensor that is none (a constant of the module's own): nothing is computed or changed."""
    twins: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def given(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and not value.is_meta:
            return twins.setdefault(id(value), (twin(value), value))[0]
        if type(value) in (tuple, list):
            return type(value)(map(given, value))
        return value

    args, kwargs = given(tuple(args)), {k: given(v) for k, v in kwargs.items()}
    with around:
        produced = _tidy(func, args, kwargs)
    return next((original for t, original in twins.values() if t is produced), produced)


def _on_its_own(live: LiveTensors, produced: Any) -> Any:
    """``produced`` with new views replaced by tensors that keep no base: a base dies when Python lets go of it, for the call may make
    a copy in other layouts, which keeps nothing. (What a view keeps is in our own values.)"""
    if isinstance(produced, tuple | list):
        return type(produced)(_on_its_own(live, t) for t in produced) if type(produced) in (tuple, list) else produced
    if not isinstance(produced, torch.Tensor) or not produced._is_view() or live.found(produced) is not None:
        return produced
    return twin(produced)


_CALLED: set[Any] = set()
_MOST_CALLED = 4_096


def _tidy(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """``func(*args, **kwargs)``. The first call of a function can load parts of torch whose frames end in a circle (an exception that was
    caught with its traceback); until garbage is collected it would keep every frame below it, with the tensors in its locals."""
    kind = func, *(a for a in (*args, *kwargs.values()) if isinstance(a, bool))
    if kind in _CALLED:
        return func(*args, **kwargs)
    produced = func(*args, **kwargs)
    if len(_CALLED) >= _MOST_CALLED:
        _CALLED.clear()
    _CALLED.add(kind)
    gc.collect(1)
    return produced
