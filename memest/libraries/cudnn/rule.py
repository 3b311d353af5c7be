"""What cuDNN takes where nobody can be asked: a model, with its range.

Kernels for tensor cores read channels innermost, in whole vectors. Operands that lie otherwise are copied into the workspace first, their
channels filled up, and a result is copied back from there; a weight's gradient that few blocks share is summed in parts. So a workspace
is, but for some bytes, i copies of x, j of w and k of y. Which of them is what cuDNN's heuristics decide; ``rule.json`` holds a decision
tree for each kind of card, dtype, layout and direction, grown on cuDNN's answers to random convolutions (of 9.24, for Volta of 9.10, the
last that knows it), and how far it is off on others (``measured``): in the median column half of the answers are met to 4 % of the
operands' bytes, nine in ten to 1.5 times them, and the range holds 96 of 100. Written by ``python -m validation.cuda.trees``.
"""

from __future__ import annotations

import json
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

from memest.libraries.cudnn.question import Convolution
from memest.libraries.cudnn.workspace import Card, Workspace, column_name, filled_bytes, kind_of

FEATURES = ("dims", "groups", "in", "out", "in's unit", "out's unit", "kernel", "stride", "dilation", "batch", "positions", "bytes")
RULE = Path(__file__).with_name("rule.json")
UNASKED = Path(__file__).with_name("unasked.json")
_LEAST_RANGE = 10
"""Thousandths of the operands: what is modelled is never without a range."""
_NO_TENSOR_CORES = "7.5"
"""Its kernels for float32 have none."""


def modelled(card: Card, question: Convolution) -> Workspace:
    """Low, expected and high; nothing of float64, for which cuDNN has no kernel that takes more than its index tables."""
    if question.dtype == "float64":
        return Workspace(bytes=0, low=0, high=sum(question.nbytes), source="rule")
    without = question.dtype == "float32" and not question.tf32
    kind = kind_of(card)
    tree = _tree(min(kind, _NO_TENSOR_CORES, key=_order) if without else kind, question)
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
def of_steps() -> str:
    """How far whole steps are off that rest on this model, as measured."""
    found = json.loads(UNASKED.read_text(encoding="utf-8"))
    least, most = (round(100 * part) for part in found["allocated_equal"])
    allocated, reserved = (round(100 * found[f"{name}_worst"]) for name in ("allocated", "reserved"))
    return (
        f"of {found['networks']} networks predicted without cuDNN {least} to {most} in 100 were equal in what is allocated, "
        f"the worst {allocated} % off (reserved {reserved} %)"
    )


@cache
def _read() -> Any:
    return json.loads(RULE.read_text(encoding="utf-8"))


def _tree(kind: str, question: Convolution) -> Any:
    """That of the kind of card, else of the architecture before it, else of the first there is for the dtype."""
    names = {k: column_name(k, question.dtype, question.channels_last) for k in _kinds()}
    known = [k for k, name in names.items() if name in trees()]
    nearest = max((k for k in known if _order(k) <= _order(kind)), default=known[0], key=_order)
    return trees()[names[nearest]][question.direction]


@cache
def _kinds() -> tuple[str, ...]:
    """Ascending."""
    return tuple(sorted({name.partition("/")[0] for name in trees()}, key=_order))


def _order(kind: str) -> tuple[int, int, bool]:
    version, _, large = kind.partition("-")
    major, _, minor = version.partition(".")
    return int(major), int(minor), bool(large)
