"""Element types by torch's names, and their sizes in bytes."""

from __future__ import annotations

from memest.errors import UnknownNameError, one_of

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
HALVES = frozenset({"bfloat16", "float16"})  # ATen's reduced floating types, which many kernels accumulate in float32
COMPLEX = frozenset({"complex64", "complex128"})
DIFFERENTIABLE = FLOATING | COMPLEX
INTEGRAL_RANK = ("bool", "uint8", "int8", "int16", "int32", "int64")
FLOATING_RANK = ("float16", "bfloat16", "float32", "float64")
ALIASES = {  # what people write, and torch's names for it
    "bf16": "bfloat16",
    "double": "float64",
    "float": "float32",
    "fp16": "float16",
    "fp32": "float32",
    "fp64": "float64",
    "f16": "float16",
    "f32": "float32",
    "f64": "float64",
    "half": "float16",
}


def dtype_name(text: str) -> str:
    """Torch's name for what people write (``bf16``, ``torch.half``); any other text as it is."""
    plain = text.strip().lower().removeprefix("torch.")
    return ALIASES.get(plain, plain if plain in ITEMSIZE else text)


def check_dtype(name: str) -> str:
    """``name`` itself, or an error naming the nearest known dtype; ValueError for what is no text."""
    if not isinstance(name, str):
        raise ValueError("expected a dtype's name")
    if name not in ITEMSIZE:
        raise UnknownNameError(f"unknown dtype {name!r}{one_of(name, ITEMSIZE, ALIASES)}")
    return name


def opmath(dtype: str) -> str:
    """The dtype that kernels compute in: ATen's ``opmath_type``."""
    return "float32" if dtype in HALVES else dtype


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
