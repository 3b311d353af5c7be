"""Calls that dense networks make: tests of numbers, and forms of calls under other names of their arguments."""

from __future__ import annotations

from typing import Any

import torch

from memest.sources.importers.torch.calls.plain import CALLS as PLAIN_CALLS
from memest.sources.importers.torch.calls.plain import Call, Request, signature
from memest.sources.importers.torch.calls.special import CALLS as SPECIAL_CALLS

PLAIN = {**dict.fromkeys(("isnan", "isinf", "isfinite"), "input"), "isclose": "input other rtol atol equal_nan", "outer": "input vec2"}
ALIASES = {"ger": "outer"}


def _repeat_interleave(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """``output_size`` only says what comes out."""
    return PLAIN_CALLS[name](name, args, {k: v for k, v in kwargs.items() if k != "output_size"}, recorder)


def _created(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """``torch.zeros(size=…)``."""
    return SPECIAL_CALLS[name](name, args, {("shape" if k == "size" else k): v for k, v in kwargs.items()}, recorder)


def _sized(call: Call, after: int) -> Call:
    """A call whose arguments from ``after`` on, and ``size``, are sizes: a tensor among them is the number that it holds."""

    def binding(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
        if "size" in kwargs:
            kwargs["size"] = _settled(kwargs["size"], recorder)
        sizes = args[after : after + 1] if name == "full" else args[after:]
        if not any(map(_is_number, (*sizes, *(n for s in sizes if isinstance(s, list | tuple) for n in s)))):
            return call(name, args, kwargs, recorder)
        settled = tuple([_settled(s, recorder) for s in sizes])
        args = (*args[:after], *settled, *args[after + len(settled) :])
        made = call(name, args, kwargs, recorder)
        if made is not None:
            made.args = args
        return made

    return binding


def _is_number(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.ndim == 0 and not value.is_floating_point()


def _settled(sizes: Any, recorder: Any) -> Any:
    if isinstance(sizes, list | tuple):
        return tuple([_settled(n, recorder) for n in sizes])
    return recorder.assumed.size(sizes) if _is_number(sizes) else sizes


CALLS: dict[str, Call] = {
    **{n: signature(op, PLAIN[op]) for op in PLAIN for n in (op, f"{op}_")},
    **{n: signature(op, PLAIN[op]) for name, op in ALIASES.items() for n in (name, f"{name}_")},
    "repeat_interleave": _repeat_interleave,
    **dict.fromkeys(("zeros", "ones", "empty", "full"), _sized(_created, 0)),
    "arange": _sized(SPECIAL_CALLS["arange"], 0),
    **{n: _sized(PLAIN_CALLS[n], 0) for n in ("rand", "randn")},
    **{n: _sized(PLAIN_CALLS[n], 1) for n in ("new_zeros", "new_ones", "new_empty", "view", "reshape", "expand", "repeat")},
    "interpolate": _sized(PLAIN_CALLS["interpolate"], 1),
}
