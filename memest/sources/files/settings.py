"""The settings of one entry: checked, and the words that blocks put in their place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from memest.errors import FileError, GraphError, did_you_mean
from memest.network.dtypes import ITEMSIZE
from memest.network.tensor import is_layout
from memest.ops.modules import MODULES
from memest.sizes.dims import Expr, parse
from memest.sources.files.layers import keywords_of
from memest.sources.files.model import BlockModel, ParameterModel, Settings, TensorModel

MAX_REPEAT = 50_000
BLOCK_WORDS = ("in", "out", "name", "repeat", "first")


def owner_of(entry: Mapping[str, Any]) -> tuple[str | None, tuple[str, Settings]]:
    """(the name its parameters begin with, (operator, settings)) of a top-level entry that owns parameters."""
    ((op, settings),) = entry.items()
    if op not in MODULES or not isinstance(settings, dict) or "shares" in settings or "tensors" in settings:
        return None, (op, {})
    owner = settings.get("owner") or settings.get("name") or settings.get("out")
    return (owner if isinstance(owner, str) else None), (op, settings)


def labels_of(entry: Mapping[str, Any]) -> list[str]:
    """The names an entry gives to what it makes."""
    ((_, settings),) = entry.items()
    found = [settings.get("name"), settings.get("out")] if isinstance(settings, dict) else []
    return [f for f in found if isinstance(f, str)]


def label_of(op: str, name: Any) -> str | None:
    """``name`` when it is a text or missing."""
    if name is None or (isinstance(name, str) and name):
        return name
    raise GraphError(f"{op}: name is a text, got {name!r}")


def outputs_of(op: str, out: Any) -> list[str]:
    """``out`` as a list of names."""
    names = [out] if isinstance(out, str) else [] if out is None else out
    if not isinstance(names, list) or not all(isinstance(n, str) and n for n in names):
        raise GraphError(f"{op}: out is a name or a list of names, got {out!r}")
    return names


def number_of(op: str, key: str, value: Any) -> int | None:
    """A count for a block, or None when it is not given."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_REPEAT:
        raise GraphError(f"block {op!r}: {key} is a number from 0 to {MAX_REPEAT:,}, got {value!r}")
    return value


def check_keywords(op: str, settings: Mapping[str, Any], shown: str) -> None:
    """Refuse a setting that an operator does not have, with the nearest it has."""
    known = keywords_of(op)
    for key in settings:
        if key not in known:
            raise GraphError(f"{shown}: {op} has no attribute {key!r}{did_you_mean(key, known)}")


def arguments_of(op: str, block: BlockModel, given: Settings) -> dict[str, Any]:
    """The arguments of one use of a block: defaults, and what is given over them."""
    defaults = dict.fromkeys(block.arguments, ...) if isinstance(block.arguments, list) else dict(block.arguments)
    for key in given:
        if key not in defaults:
            raise GraphError(f"block {op!r} has no argument {key!r}{did_you_mean(key, [*defaults, *BLOCK_WORDS])}")
    values = {**defaults, **given}
    missing = next((k for k, v in values.items() if v is ...), None)
    if missing is not None:
        raise GraphError(f"block {op!r} needs {missing!r}")
    return values


def check_tensor(shown: str, t: TensorModel | ParameterModel) -> None:
    """Refuse a dtype or a layout that is not there."""
    if t.dtype not in ITEMSIZE:
        raise FileError(f"{shown}: unknown dtype {t.dtype!r}{did_you_mean(t.dtype, ITEMSIZE)}")
    if not is_layout(t.layout, len(t.shape)):
        raise FileError(f"{shown}: layout is contiguous, channels_last or its {len(t.shape)} dims from the outermost in, got {t.layout!r}")


def replaced(value: Any, arguments: Mapping[str, Any]) -> Any:
    """``$name`` replaced by the argument; ``$(2*width)`` computed."""
    if isinstance(value, dict):
        return {k: replaced(v, arguments) for k, v in value.items()}
    if isinstance(value, list):
        return [replaced(v, arguments) for v in value]
    if not isinstance(value, str) or not value.startswith("$"):
        return value
    text = value[1:]
    if text in arguments:
        return arguments[text]
    if text.startswith("(") and text.endswith(")"):
        expr = parse(text[1:-1])
        numbers = {k: v for k, v in arguments.items() if isinstance(v, int) and not isinstance(v, bool)}
        return expr.evaluate(numbers) if isinstance(expr, Expr) else expr
    raise GraphError(f"{value!r} is not an argument of the block{did_you_mean(text, arguments)}")
