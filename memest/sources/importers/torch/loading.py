"""Modules by name: ``package.module:callable(arguments)`` or ``path/to/file.py:callable(arguments)``.

Arguments are literals, dotted names (``conv_op=torch.nn.Conv3d``: of the module itself, built in, or imported) and calls of such names;
nothing else is evaluated; ``**'net.yaml'`` stands for those in a file. Whatever fails is a UsageError of one line with the line of the
user's code.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import nn

from memest.errors import UsageError, did_you_mean, kind_of
from memest.files import decode, parse
from memest.sources.importers.absent_operators import with_absent_operators
from memest.sources.importers.torch.configured import of_folder
from memest.sources.importers.torch.exported import Exported, of_file
from memest.sources.importers.torch.steps.lightning import is_lightning as is_lightning
from memest.sources.importers.torch.surroundings import is_step as is_step

FORM = "write package.module:callable or path/file.py:callable, with arguments as (1, key='literal', other=torch.nn.ReLU)"
STEPS = "where it calls backward(), or takes arguments and uses a module that it finds"
_NOT_THEIRS = tuple(os.path.join(os.path.dirname(os.path.abspath(f)), "") for f in (__file__, torch.__file__, importlib.__file__))


class _FailureError(Exception):
    """What the user's code raised, and what was being done."""

    def __init__(self, what: str, error: BaseException) -> None:
        super().__init__(str(error))
        self.what, self.error = what, error


def build(text: str) -> nn.Module:
    """The module that ``text`` names or the call in it gives; UsageError says what is wrong, and where."""
    return checked(load(text), text)


def checked(made: Any, text: str) -> nn.Module:
    """``made``, which ``text`` gives, as the module it has to be."""
    if not isinstance(made, nn.Module):
        raise UsageError(f"{text}: gives {kind_of(made)}, not a torch.nn.Module; a function is taken for a training step {STEPS}")
    return made


def load(text: str) -> Any:
    """What ``text`` names, where that is a module or a function that trains a step; else what the call in it gives, or what a
    folder's configuration or an exported program describes."""
    if os.path.isdir(text):  # which a long text is not
        return with_absent_operators(lambda: of_folder(Path(text)))
    if text.lower().endswith(".pt2"):
        return of_file(Path(text))
    origin, call = _halves(text)
    name, arguments, keywords = _parsed(call, text)
    try:
        made = with_absent_operators(lambda: _made(origin, name, arguments, keywords, text))
    except _FailureError as e:
        place = _place(e.error)
        raise UsageError(f"{e.what}: {_told(e.error)}{f' ({place})' if place else ''}") from e.error
    return made


def own_example(found: Any) -> Any:
    """What a network says that it is called with: the sizes that an exported program fixes. None for any other."""
    return found.own_shapes if isinstance(found, Exported) else None


def _halves(text: str) -> tuple[str, str]:
    """Where the callable is, and the call: a file's name may hold colons, but ends in ``.py``."""
    head, dot_py, call = text.partition(".py:")
    if dot_py:
        return f"{head}.py", call
    origin, _, call = text.partition(":")
    return origin, call


def _parsed(call: str, text: str) -> tuple[str, list[ast.expr], dict[str, ast.expr]]:
    try:
        tree = ast.parse(call.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        tree = None
    if isinstance(tree, ast.Name | ast.Attribute) and _dotted(tree):
        return ast.unparse(tree), [], {}
    if isinstance(tree, ast.Call) and _dotted(tree.func) and all(k.arg or _is_text(k.value) for k in tree.keywords):
        arguments, keywords = tree.args, {}
        for k in tree.keywords:
            keywords.update({str(k.arg): k.value} if k.arg else _in_file(ast.literal_eval(k.value)))
        for value in (*arguments, *keywords.values()):
            _check(value, text)
        return ast.unparse(tree.func), arguments, keywords
    raise UsageError(f"{text!r}: {FORM}")


def _check(tree: ast.expr, text: str) -> None:
    """UsageError unless ``tree`` is made of literals, dotted names and calls of them, so that nothing runs before all is read."""
    if isinstance(tree, ast.Call) and _dotted(tree.func) and all(k.arg for k in tree.keywords):
        parts: Sequence[ast.expr | None] = [*tree.args, *(k.value for k in tree.keywords)]
    elif isinstance(tree, ast.List | ast.Tuple | ast.Set):
        parts = tree.elts
    elif isinstance(tree, ast.Dict):
        parts = [*tree.keys, *tree.values]
    elif isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub | ast.UAdd):
        parts = [tree.operand] if isinstance(tree.operand, ast.Constant) else [None]
    elif isinstance(tree, ast.Constant) or _dotted(tree):
        parts = ()
    else:
        raise UsageError(f"{text!r}: {ast.unparse(tree)!r} is neither a literal nor a dotted name; {FORM}")
    for part in parts:
        if part is None:
            raise UsageError(f"{text!r}: {ast.unparse(tree)!r} is more than a literal; {FORM}")
        _check(part, text)


def _is_text(tree: ast.expr) -> bool:
    return isinstance(tree, ast.Constant) and isinstance(tree.value, str)


def _in_file(path: str) -> dict[str, ast.expr]:
    """The arguments in a YAML or JSON file, by name."""
    try:
        raw = Path(path).expanduser().read_bytes()
    except OSError as e:
        raise UsageError(f"arguments in {path}: {e.strerror or e}") from None
    found = parse(decode(raw, path), "json" if path.lower().endswith(".json") else "yaml", path)
    if not isinstance(found, dict) or not all(isinstance(name, str) and name.isidentifier() for name in found):
        raise UsageError(f"arguments in {path}: a mapping of names to values is needed")
    return {name: ast.Constant(value) for name, value in found.items()}


def _dotted(tree: ast.expr) -> bool:
    while isinstance(tree, ast.Attribute):
        tree = tree.value
    return isinstance(tree, ast.Name)


def _made(origin: str, name: str, arguments: Sequence[ast.expr], keywords: dict[str, ast.expr], text: str) -> Any:
    module = _imported(origin)
    target: Any = module
    for part in name.split("."):
        target = _attribute(target, part, origin)
    if isinstance(target, nn.Module) or (not arguments and not keywords and is_step(target)):
        return target
    positional = [_value(a, module, text) for a in arguments]
    named = {k: _value(v, module, text) for k, v in keywords.items()}
    needed = [] if arguments or keywords or not isinstance(target, FunctionType) else _needed(target)
    if needed:
        call = f"{name}({', '.join(f'{n}=…' for n in needed)})"
        raise UsageError(f"{text} is called to make a network, and needs arguments: write {call}; it is taken for a training step {STEPS}")
    return _run(text, lambda: target(*positional, **named))


def _needed(function: FunctionType) -> list[str]:
    """The arguments that a function cannot be called without."""
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [name for name, p in inspect.signature(function).parameters.items() if p.default is p.empty and p.kind in plain]


def _run(what: str, action: Callable[..., Any]) -> Any:
    try:
        return action()
    except (Exception, SystemExit) as e:
        raise _FailureError(what, e) from e


# imports -----------------------------------------------------------------------------------------------------------------


def _imported(origin: str) -> ModuleType:
    if origin.endswith(".py"):
        return _file(Path(origin))
    _on_path(os.getcwd())
    try:
        return importlib.import_module(origin)
    except ModuleNotFoundError as e:
        raise UsageError(f"cannot import {origin!r}: {_told(e, kind=False)}") from e
    except (Exception, SystemExit) as e:
        raise _FailureError(f"importing {origin!r} fails", e) from e


def _file(path: Path) -> ModuleType:
    """The module that the file is, its folder on ``sys.path`` as ``python path`` has it; a file read before is not read again."""
    path = path.expanduser().resolve()
    if not path.is_file():
        raise UsageError(f"no such file: {path.name} in {path.parent}")
    name = path.stem
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__file__", None) != str(path):
        name = str(path.with_suffix(""))
        known = sys.modules.get(name)
    if known is not None:
        return known
    _on_path(str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as e:
        del sys.modules[name]
        if "no known parent package" in str(e):
            raise UsageError(f"{path.name} imports relative to its package: write package.module:callable instead of its path") from e
        raise _FailureError(f"importing {path.name} fails", e) from e
    return module


def _on_path(folder: str) -> None:
    if folder not in sys.path:
        sys.path.insert(0, folder)


# values ------------------------------------------------------------------------------------------------------------------


def _value(tree: ast.expr | None, module: ModuleType, text: str) -> Any:
    if isinstance(tree, ast.Name | ast.Attribute):
        return _named(ast.unparse(tree), module, text)
    if isinstance(tree, ast.Call):
        target = _named(ast.unparse(tree.func), module, text)
        positional = [_value(a, module, text) for a in tree.args]
        named = {str(k.arg): _value(k.value, module, text) for k in tree.keywords}
        return _run(f"{text}: {ast.unparse(tree)}", lambda: target(*positional, **named))
    if isinstance(tree, ast.List | ast.Tuple | ast.Set):
        kind = {ast.List: list, ast.Tuple: tuple, ast.Set: set}[type(tree)]
        return _run(text, lambda: kind(_value(e, module, text) for e in tree.elts))
    if isinstance(tree, ast.Dict):
        return _run(text, lambda: {_value(k, module, text): _value(v, module, text) for k, v in zip(tree.keys, tree.values, strict=True)})
    assert tree is not None
    if isinstance(tree, ast.Constant):
        return tree.value
    return _run(text, lambda: ast.literal_eval(tree))


def _named(dotted: str, module: ModuleType, text: str) -> Any:
    """What a dotted name means: in the module that is called, among Python's types, or imported."""
    first, *rest = dotted.split(".")
    if hasattr(module, first):
        found = getattr(module, first)
    elif isinstance(getattr(builtins, first, None), type):
        found = getattr(builtins, first)
    else:
        try:
            found = importlib.import_module(first)
        except ModuleNotFoundError as e:
            hint = did_you_mean(first, vars(module))
            raise UsageError(f"{text}: {dotted!r} is no name of {module.__name__} and cannot be imported ({e}){hint}") from None
        except (Exception, SystemExit) as e:
            raise _FailureError(f"{text}: importing {first!r} fails", e) from e
    path = first
    for part in rest:
        if isinstance(found, ModuleType) and not hasattr(found, part):
            _run(f"{text}: importing {path}.{part} fails", lambda name=f"{path}.{part}": _submodule(name))
        found = _attribute(found, part, path)
        path = f"{path}.{part}"
    return found


def _submodule(name: str) -> None:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as e:
        if e.name is None or not name.startswith(e.name):
            raise


def _attribute(owner: Any, part: str, path: str) -> Any:
    try:
        return getattr(owner, part)
    except AttributeError:
        raise UsageError(f"{path} has no {part!r}{did_you_mean(part, dir(owner))}") from None
    except Exception as e:
        raise _FailureError(f"{path}.{part}", e) from e


# what is told of errors --------------------------------------------------------------------------------------------------


def _told(error: BaseException, kind: bool = True) -> str:
    message = " ".join((error.msg if isinstance(error, SyntaxError) else str(error)).split())[:300]
    return ": ".join(filter(None, (type(error).__name__ if kind else "", message)))


def _place(error: BaseException) -> str:
    """``file:line`` of the innermost line that is neither ours, torch's nor the import machinery's."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{os.path.basename(error.filename)}:{error.lineno}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith("<") and not os.path.abspath(frame.filename).startswith(_NOT_THEIRS):
            return f"{os.path.basename(frame.filename)}:{frame.lineno}"
    return ""
