"""Modules by name: ``package.module:callable(arguments)``, with literal arguments only."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import sys
from typing import Any

from torch import nn

from memest.errors import UsageError, did_you_mean


def build(text: str) -> nn.Module:
    """The module that ``package.module:callable`` or ``package.module:callable(1, key=2)`` gives; UsageError says what is wrong."""
    path, _, call = text.partition(":")
    name, arguments, keywords = _parsed(call, text)
    target = _attribute(_imported(path), name, path)
    if isinstance(target, nn.Module):
        return target
    try:
        made = target(*arguments, **keywords)
    except Exception as e:
        raise UsageError(f"{text}: {type(e).__name__}: {' '.join(str(e).split())}") from None
    if not isinstance(made, nn.Module):
        raise UsageError(f"{text}: gives a {type(made).__name__}, not a torch.nn.Module")
    return made


def _parsed(call: str, text: str) -> tuple[str, list[Any], dict[str, Any]]:
    try:
        tree = ast.parse(call, mode="eval").body
        if isinstance(tree, ast.Call):
            name = ast.unparse(tree.func)
            return name, [ast.literal_eval(a) for a in tree.args], {k.arg or "": ast.literal_eval(k.value) for k in tree.keywords}
        if isinstance(tree, ast.Name | ast.Attribute):
            return ast.unparse(tree), [], {}
    except (SyntaxError, ValueError):
        pass
    raise UsageError(f"{text!r}: write package.module:callable or package.module:callable(1, key='literal')")


def _imported(path: str) -> Any:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    if path.split(".")[0] == "torchvision":
        _declare_torchvision_operators()
    try:
        return importlib.import_module(path)
    except ImportError as e:
        raise UsageError(f"cannot import {path!r}: {e}") from None
    except Exception as e:
        raise UsageError(f"importing {path!r} fails: {type(e).__name__}: {' '.join(str(e).split())}") from None


def _declare_torchvision_operators() -> None:
    """torchvision registers shape rules for operators of its compiled extension, and cannot be imported where that extension does not
    load (a CUDA build beside a CPU torch). Declaring the operators is enough: its networks are plain Python."""
    import torch

    if "torchvision" in sys.modules:
        return
    with_extension = importlib.util.find_spec("torchvision")
    if with_extension is None or with_extension.origin is None:
        return
    extension = os.path.join(os.path.dirname(with_extension.origin), "_C.so")
    try:
        torch.ops.load_library(extension)
    except (OSError, ImportError):
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _LIBRARIES.append(library)


_LIBRARIES: list[Any] = []


def _attribute(module: Any, dotted: str, path: str) -> Any:
    found = module
    for part in dotted.split("."):
        if not hasattr(found, part):
            raise UsageError(f"{path} has no {part!r}{did_you_mean(part, dir(found))}")
        found = getattr(found, part)
    return found
