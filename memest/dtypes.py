"""Element types by torch's names, and their sizes in bytes."""

from __future__ import annotations

from memest.errors import UnknownNameError, did_you_mean

ITEMSIZE: dict[str, int] = {
    "float64": 8,
    "float32": 4,
    "bfloat16": 2,
    "float16": 2,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
    "complex64": 8,
    "complex128": 16,
}
FLOATING = frozenset({"float64", "float32", "bfloat16", "float16"})
COMPLEX = frozenset({"complex64", "complex128"})
INTEGRAL_RANK = ("bool", "uint8", "int8", "int16", "int32", "int64")
FLOATING_RANK = ("float16", "bfloat16", "float32", "float64")


def check_dtype(name: str) -> str:
    """``name`` itself, or an error naming the nearest known dtype."""
    if name not in ITEMSIZE:
        raise UnknownNameError(f"unknown dtype {name!r}{did_you_mean(name, ITEMSIZE)}")
    return name


def promote(a: str, b: str) -> str:
    """The dtype two tensors of at least one dimension combine to (torch.promote_types, without complex)."""
    if a == b:
        return a
    if a in FLOATING and b in FLOATING:
        if {a, b} == {"float16", "bfloat16"}:
            return "float32"
        return max(a, b, key=FLOATING_RANK.index)
    if a in FLOATING or b in FLOATING:
        return a if a in FLOATING else b
    if {a, b} == {"uint8", "int8"}:
        return "int16"
    return max(a, b, key=INTEGRAL_RANK.index)
