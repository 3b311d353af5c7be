"""What is typed beside the name of torch code: arguments for its call, and the structure of its inputs."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from typing import Any

from memest.errors import UsageError

_CALL = re.compile(r"(?P<head>(?:[^:]+\.py|[\w.]+):\s*[\w.]+)\s*(?:\((?P<own>.*)\)\s*)?", re.DOTALL)
_FLAGS = {"true": "True", "false": "False"}


def with_arguments(text: str, arguments: Sequence[str], file: str | None) -> str:
    """The text of torch code with more arguments in its call: ``NAME=VALUE`` each, and those in ``file``, a mapping in YAML or JSON. What
    comes later counts: the call's own, then the file, then ``arguments``.

    A value is a literal, a dotted name (``torch.nn.Conv3d``) or a call of one; a single word is a text."""
    found = {}
    for argument in arguments:
        name, equals, value = (part.strip() for part in argument.partition("="))
        if not equals or not name.isidentifier() or not value:
            raise UsageError(f"--arg {argument!r}: write NAME=VALUE, such as width=32 or conv=torch.nn.Conv3d")
        if name in found:
            raise UsageError(f"--arg {argument!r}: {name} is given twice")
        found[name] = _value(value)
    call = _CALL.fullmatch(text)
    if call is None:
        raise UsageError(f"--arg and --args are for torch code (package.module:callable or path/file.py:callable), got {text!r}")
    head, own = call["head"], call["own"] or ""
    given = [own.strip().rstrip(","), *([f"**{file!r}"] if file is not None else []), *(f"{name}={value}" for name, value in found.items())]
    return f"{head}({', '.join(filter(None, given))})"


def _value(text: str) -> str:
    """A value as Python writes it."""
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return repr(text)
    return _FLAGS.get(text.lower(), repr(text)) if isinstance(tree, ast.Name) else text


def structured(shapes: Mapping[str, Any]) -> dict[str, Any]:
    """Shapes by the ways to them as the structure they describe: ``images.0`` and ``images.1`` are a list, other words a dict's keys.
    UsageError where a list has a gap, or a way leads through a shape."""
    found: dict[str, Any] = {}
    for way, shape in shapes.items():
        *outer, last = way.split(".")
        at = found
        for key in outer:
            at = at.setdefault(key, {})
            if not isinstance(at, dict):
                raise UsageError(f"--input {way}=…: {key!r} is given as a shape, too")
        if at.setdefault(last, shape) is not shape:
            raise UsageError(f"--input {way}=…: given as a structure, too")
    return {name: _lists(name, part) for name, part in found.items()}


def _lists(name: str, part: Any) -> Any:
    if not isinstance(part, dict):
        return part
    inner = {key: _lists(f"{name}.{key}", value) for key, value in part.items()}
    if not all(key.isdigit() for key in inner):
        return inner
    gap = next((str(n) for n in range(len(inner)) if str(n) not in inner), None)
    if gap is not None:
        raise UsageError(f"--input {name}.{gap}=SHAPE is missing: items of a list are numbered from 0")
    return [inner[str(n)] for n in range(len(inner))]
