"""Where graphs come from: built-in models, torch modules, and the text that names either or a file.

Promises: nothing is imported before it is needed (torch only for a torch model), and a name that leads nowhere is a UsageError that
says what a model may be. Refuses to guess: a text is a file, a built-in model or a torch callable by its form alone.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memest.errors import UnknownNameError, UsageError, did_you_mean
from memest.graph import Graph

SUFFIXES = (".yaml", ".yml", ".json")
FORMS = "a .yaml or .json file, '-', a built-in model (see 'memest models') or package.module:callable"
GET_TORCH = "pip install torch, or '.[torch]' in a checkout of memest for a version it knows"
_CALLABLE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*(\(.*\))?", re.DOTALL)

Example = Sequence[int] | Sequence[Sequence[int]] | Mapping[str, Sequence[int]]


def model(name: str, **options: Any) -> Graph:
    """The built-in model ``name``; options as keywords or in the name (``"unet3d:base_filters=32"``). No text runs code or opens a file.

    Raises UnknownNameError for a name or an option that is not there, UsageError for a value that cannot be."""
    from memest import models

    return models.build(name, **options)


def from_torch(module: Any, example: Any, *, name: str | None = None) -> Graph:
    """The graph of a ``torch.nn.Module`` called with ``example``: a shape with the batch, a tensor, or a sequence or mapping of them.

    The module runs once on meta tensors and is left as it was. Raises UnsupportedError for a call without a rule, UsageError when torch is
    not installed."""
    try:
        from memest.importers import torch as importer
    except ModuleNotFoundError as e:
        raise UsageError(f"a torch model needs torch ({e}); {GET_TORCH}") from None
    return importer.from_torch(module, example, name=name)


def is_torch(text: str) -> bool:
    """True when ``text`` has the form of a torch callable, ``package.module:callable(arguments)``."""
    return not is_file(text) and _CALLABLE.fullmatch(text) is not None and not _is_built_in(text)


def is_file(text: str) -> bool:
    """True when ``text`` names a graph file, by its suffix, or standard input."""
    return text == "-" or text.lower().endswith(SUFFIXES)


def open_model(text: str, example: Example | None = None) -> Graph:
    """The graph that ``text`` names: a file, ``-`` (a file on standard input), a built-in model with options, or a torch callable, whose
    module is imported and which is called: never pass on a text that you do not trust.

    ``example`` is the shape (with the batch) a torch model is called with. Raises UsageError when ``text`` leads nowhere, FileError,
    GraphError or UnsupportedError when what it leads to is not a network memest knows."""
    if text == "-":
        return _standard_input()
    if is_file(text):
        return _file(text)
    if is_torch(text):
        return _torch(text, example)
    if _is_built_in(text):
        return _built_in(text)
    raise UsageError(f"unknown model {text!r}{did_you_mean(text.partition(':')[0], _built_in_names())}; a model is {FORMS}")


def _built_in(text: str) -> Graph:
    try:
        return model(text)
    except UnknownNameError as e:
        raise UsageError(str(e)) from None


def _built_in_names() -> list[str]:
    from memest.models import MODELS

    return list(MODELS)


def _is_built_in(text: str) -> bool:
    return text.partition(":")[0] in _built_in_names()


def _file(text: str) -> Graph:
    path = Path(text)
    if not path.exists():
        raise UsageError(f"no such file: {text}")
    if path.is_dir():
        raise UsageError(f"{text} is a directory; a model is {FORMS}")
    from memest import schema

    return schema.load(path)


def _standard_input() -> Graph:
    from memest import schema

    raw = sys.stdin.buffer.read(schema.MAX_BYTES + 1)
    form = "json" if raw.lstrip()[:1] == b"{" else "yaml"
    return schema.loads(raw, form=form, source="<stdin>")


def _torch(text: str, example: Example | None) -> Graph:
    if example is None:
        raise UsageError(f"{text} needs --input, the shape of its example with the batch, such as --input 3x224x224 --batch 8")
    try:
        from memest.importers.torch_loading import build
    except ModuleNotFoundError as e:
        raise UsageError(f"a torch model needs torch ({e}); {GET_TORCH}") from None
    return from_torch(build(text), example)
