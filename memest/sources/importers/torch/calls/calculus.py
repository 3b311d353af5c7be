"""Calls of functions of calculus, element by element, under torch's and torch.special's names."""

from __future__ import annotations

from typing import Any

from memest.sources.importers.torch.calls.plain import Call, Request, binary, signature

ONE = (
    *("acos", "acosh", "asin", "asinh", "atan", "atanh", "tan", "cosh", "sinh"),
    *("erfc", "erfinv", "lgamma", "digamma", "sinc", "frac", "i0", "exp2"),
)
NAMED = {"arccos": "acos", "arccosh": "acosh", "arcsin": "asin", "arcsinh": "asinh", "arctan": "atan", "arctanh": "atanh"}
SPECIAL = {"special_gammaln": "lgamma", "special_psi": "digamma"} | {
    f"special_{n}": n for n in ("erfc", "erfinv", "digamma", "sinc", "i0", "exp2", "erf", "expm1", "log1p", "round")
}
TWO = {"atan2": "atan2", "arctan2": "atan2", "hypot": "hypot", "logaddexp": "logaddexp"}


def _with_inplace(names: dict[str, Call]) -> dict[str, Call]:
    return names | {f"{name}_": call for name, call in names.items() if not name.startswith("special_")}


def _rounded(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    """To as many ``decimals`` as ever."""
    return signature("round", "input")(name, args, {key: value for key, value in kwargs.items() if key != "decimals"}, recorder)


CALLS: dict[str, Call] = {
    **_with_inplace({name: signature(op, "input") for name, op in ({n: n for n in ONE} | NAMED | SPECIAL).items()}),
    "special_expit": signature("sigmoid", "input"),
    "special_logsumexp": signature("logsumexp", "input dim keepdim"),
    **{f"special_{n}": signature(n, "input dim dtype") for n in ("softmax", "log_softmax")},
    **{name: binary(op) for name, op in TWO.items()},
    **{n: signature(n, "input other") for n in ("copysign", "fmax", "fmin")},
    "heaviside": signature("heaviside", "input values"),
    **{n: signature(n, "input") for n in ("signbit", "isposinf", "isneginf", "deg2rad", "rad2deg")},
    **{n: signature("polygamma", "n input") for n in ("polygamma", "special_polygamma")},
    "round": _rounded,
    **{f"{n}.Scalar": signature(f"{n}.Scalar", "input value") for n in ("mul", "div")},
    **_with_inplace({"nan_to_num": signature("nan_to_num", "input nan posinf neginf")}),
}
