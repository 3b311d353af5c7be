"""What cuDNN takes where nobody can be asked: a model, with its range.

Kernels for tensor cores read channels innermost, in whole vectors. Operands that lie otherwise are copied into the workspace first, their
channels filled up, and a result is copied back from there; a weight's gradient that few blocks share is summed in parts. So a workspace
is, but for some bytes, i copies of x, j of w and k of y. Which of them is what cuDNN's heuristics decide; ``rule.json`` holds a decision
tree for each architecture, dtype, layout and direction, grown on its answers to random convolutions, and how far it is off on others
(``measured``). Written by ``python -m validation.cuda.trees``.
"""

from __future__ import annotations

import json
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

from memest.libraries.cudnn.question import Convolution
from memest.libraries.cudnn.workspace import Card, Workspace, column_name, filled_bytes

FEATURES = ("dims", "groups", "in", "out", "in's unit", "out's unit", "kernel", "stride", "dilation", "batch", "positions", "bytes")
RULE = Path(__file__).with_name("rule.json")
_LEAST_RANGE = 10
"""Thousandths of the operands: what is modelled is never without a range."""
_NO_TENSOR_CORES = (7, 5)
"""Its kernels for float32 have none."""


def modelled(card: Card, question: Convolution) -> Workspace:
    """Low, expected and high; nothing of float64, for which cuDNN has no kernel that takes more than its index tables."""
    if question.dtype == "float64":
        return Workspace(bytes=0, low=0, high=sum(question.nbytes), source="rule")
    without = question.dtype == "float32" and not question.tf32
    tree = _tree(min(card.capability, _NO_TENSOR_CORES) if without else card.capability, question)
    i, j, k, unit, low, high = leaf(tree, features(question))
    expected = filled_bytes(question, (i, j, k, unit, 0))
    total = sum(question.nbytes)
    most = max(expected, total * max(high, _LEAST_RANGE) // 1000) + 1
    return Workspace(bytes=expected, low=min(expected, total * low // 1000), high=most, source="rule")


def features(question: Convolution) -> tuple[int, ...]:
    """What a tree asks for, as FEATURES names it; in and out are channels of a group, their units the powers of two that divide them."""
    groups = question.groups
    ins, outs = question.w[1], question.w[0] // groups
    return (
        len(question.stride),
        groups,
        ins,
        outs,
        ins & -ins,
        outs & -outs,
        prod(question.w[2:]),
        max(question.stride),
        max(question.dilation),
        question.x[0],
        prod(question.y[2:]),
        sum(question.nbytes),
    )


def leaf(tree: Any, values: tuple[int, ...]) -> list[int]:
    """Where a tree leads: i, j, k, unit, and the range in thousandths of the operands' bytes."""
    while len(tree) == 4:
        feature, most, below, above = tree
        tree = below if values[feature] <= most else above
    return list(tree)


@cache
def trees() -> dict[str, dict[str, Any]]:
    """By column and direction."""
    return dict(_read()["trees"])


def measured() -> dict[str, list[float]]:
    """Of each column, on convolutions the trees were not grown on: median, 90th and 95th percentile of the error as a part of the
    operands' bytes, the part of answers that is within 1 % of them, the part that lies in the range."""
    return dict(_read()["measured"])


@cache
def _read() -> Any:
    return json.loads(RULE.read_text(encoding="utf-8"))


def _tree(capability: tuple[int, int], question: Convolution) -> Any:
    """That of the architecture, else of the last one before it, else of the first there is for the dtype."""
    found = {c: trees().get(column_name(c, question.dtype, question.channels_last)) for c in _architectures()}
    known = sorted(c for c, tree in found.items() if tree is not None)
    nearest = max((c for c in known if c <= capability), default=known[0])
    return trees()[column_name(nearest, question.dtype, question.channels_last)][question.direction]


@cache
def _architectures() -> frozenset[tuple[int, int]]:
    pairs = (name.partition("/")[0].split(".") for name in trees())
    return frozenset((int(major), int(minor)) for major, minor in pairs)
