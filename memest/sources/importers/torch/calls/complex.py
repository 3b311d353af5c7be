"""Calls with complex tensors: transforms, views, and the arithmetic that has rules of its own; anything else is refused by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from memest.errors import UnsupportedError
from memest.sources.importers.torch.calls import plain as plain_calls
from memest.sources.importers.torch.calls import special
from memest.sources.importers.torch.calls.plain import Call, Request, bound, plain, request, signature

MOVED = frozenset(  # rows that only move or look at elements, whatever those are
    {
        *("view", "reshape", "permute", "transpose", "t", "movedim", "squeeze", "unsqueeze", "expand", "flatten", "unflatten"),
        "contiguous",
        *("clone", "detach", "data", "slice", "narrow", "select", "getitem", "split", "chunk", "unbind", "cat", "stack", "roll", "flip"),
        *("repeat", "index_select", "pad", "tile", "tensor_unfold", "unfold_backward", "triu", "tril"),
        *("zeros", "empty", "new_zeros", "new_empty", "zeros_like", "empty_like", "view_as", "reshape_as"),
    }
)
OWN = frozenset(
    {
        *("view_as_real", "view_as_complex", "complex", "real", "imag", "complex_add", "complex_sub", "complex_mul", "complex_div"),
        *("complex_abs", "complex_angle", "complex_exp", "polar"),
        *("rfft", "irfft", "fft", "ifft", "rfft2", "irfft2", "fft2", "ifft2", "rfftn", "irfftn", "fftn", "ifftn", "fftshift", "ifftshift"),
    }
)
PRODUCTS = frozenset({"bmm", "mm", "matmul", "einsum", "sum"})
"""Rows of real numbers, of which complex ones of two dims or more differ by conjugates that are copied."""
ALIKE = frozenset({"add", "sub", "neg", "where", "masked_fill", "setitem", "to", "mul", "div"})
"""Rows of real numbers that do the same with complex ones, where all are of one kind and none is multiplied by another."""
ARITHMETIC = {
    **dict.fromkeys(("add", "__add__", "__radd__"), "complex_add"),
    **dict.fromkeys(("sub", "__sub__", "subtract"), "complex_sub"),
    **dict.fromkeys(("mul", "__mul__", "__rmul__", "multiply"), "complex_mul"),
    **dict.fromkeys(("div", "__truediv__", "divide", "true_divide"), "complex_div"),
    **dict.fromkeys(("abs", "__abs__", "absolute"), "complex_abs"),
}
SPECTRUM = signature("_fft_r2c", "input dims")


def _r2c(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """How it is normalized moves nothing."""
    return SPECTRUM(name, args[:2], {"onesided": args[3]}, recorder)


ONE = {f"fft_{name}": name for name in ("fft", "ifft", "rfft", "irfft")}
MANY = {f"fft_{name}": name for name in ("fft2", "ifft2", "rfft2", "irfft2", "fftn", "ifftn", "rfftn", "irfftn")}
SHIFTS = {f"fft_{name}": name for name in ("fftshift", "ifftshift")}


def _is_complex(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_complex()


def _tensors(made: Request) -> Iterator[Any]:
    for t in made.tensors:
        yield from t if isinstance(t, list) else (t,)


def check_complex(made: Request | None) -> None:
    """UnsupportedError where a complex tensor goes to a row that has real numbers in mind."""
    if made is None or made.op in OWN or made.op in MOVED or not any(map(_is_complex, _tensors(made))):
        return
    if made.op in ALIKE and _are_alike(made):
        return
    if made.op not in PRODUCTS or (made.op == "matmul" and any(t.ndim < 2 for t in _tensors(made))):
        raise UnsupportedError(f"{made.op} of a complex tensor has no rule; take abs, real and imag, or view_as_real before")


def _are_alike(made: Request) -> bool:
    """Whether all tensors, masks apart, are of one complex kind, a dtype asked for is a complex one, and a number is real."""
    kinds = {t.dtype for t in _tensors(made) if t is not None and t.dtype != torch.bool}
    if made.op in ("mul", "div") and made.tensors[1] is not None:
        return False
    complex_asked = str(made.attributes.get("dtype", "complex")).startswith("complex")
    return len(kinds) == 1 and complex_asked and not isinstance(made.attributes.get("value"), complex)


def _arithmetic(name: str, real: Call) -> Call:
    def binding(called: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
        given = bound(("input", "other"), args, kwargs)
        if not any(map(_is_complex, given.values())):
            return real(called, args, kwargs, recorder)
        first, second = given["input"], given.get("other")
        if not isinstance(first, torch.Tensor):
            first, second = second, first
        if isinstance(second, complex) or given.get("alpha", 1) != 1 or (second is None and name != "complex_abs"):
            raise UnsupportedError(f"{called} of a complex tensor with these arguments has no rule; compute with its parts (real, imag)")
        if name == "complex_abs":
            return Request(name, [first], {})
        other = isinstance(second, torch.Tensor)
        return Request(name, [first, second if other else None], {} if other else {"value": second})

    return binding


def _to(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """Real numbers made complex ones of their width have a row of their own: their gradient is a view."""
    made = REAL[name](name, args, kwargs, recorder)
    if made is None or not str(made.attributes.get("dtype", "")).startswith("complex") or not args[0].is_floating_point():
        return made
    wanted, given = made.attributes["dtype"], args[0].dtype
    if wanted != plain(given.to_complex()):
        raise UnsupportedError(f"{name} {wanted} of {plain(given)} has no rule; convert to the float of its width first")
    return Request("_to_complex", [args[0]], {})


def _angle(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    if not _is_complex(args[0]):
        raise UnsupportedError("torch.angle of a real tensor has no rule: it is 0, or pi where x < 0")
    return Request("complex_angle", [args[0]], {})


def _exp(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    return Request("complex_exp", [args[0]], {}) if args and _is_complex(args[0]) else REAL["exp"](name, args, kwargs, recorder)


def _view(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """``x.real``, ``x.imag``, and their functions."""
    return Request(name.removeprefix("__get__:"), [args[0]], {}, own_result=True)


def _transform(names: str, table: dict[str, str]) -> Call:
    def binding(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
        given = {n: v for n, v in bound(names.split(), args, kwargs).items() if v is not None or n in ("dim", "s")}
        return request(table[name], {n: (v,) if n == "dim" and names[6] == "s" and isinstance(v, int) else v for n, v in given.items()}, {})

    return binding


REAL = {**plain_calls.CALLS, **special.CALLS}
CALLS: dict[str, Call] = {
    **{name: _arithmetic(op, REAL[name]) for name, op in ARITHMETIC.items() if name in REAL},
    **{name: signature(name, names) for name, names in (("view_as_real", "input"), ("view_as_complex", "input"), ("complex", "real imag"))},
    **dict.fromkeys(("real", "imag", "__get__:real", "__get__:imag"), _view),
    **dict.fromkeys(("to", "type"), _to),
    "angle": _angle,
    "exp": _exp,
    "_fft_r2c": _r2c,
    "polar": signature("polar", "abs angle"),
    **dict.fromkeys(ONE, _transform("input n dim norm", ONE)),
    **dict.fromkeys(MANY, _transform("input s dim norm", MANY)),
    **dict.fromkeys(SHIFTS, _transform("input dim", SHIFTS)),
}
