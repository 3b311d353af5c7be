"""Equations of ``einsum``: the labels of the dims of its operands and of its result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from memest.errors import GraphError, ShapeError, UnsupportedError
from memest.network.tensor import Shape

ELLIPSIS = "."


def torch_order(label: str) -> tuple[bool, str]:
    """Dims of an ellipsis first, then capitals, then small letters."""
    return not label.startswith(ELLIPSIS), label


def parsed(equation: str, shapes: Sequence[Shape]) -> tuple[list[list[str]], list[str]]:
    """Labels of every operand and of the output; the dims of an ellipsis are labels ``.0``, ``.1`` … counted from the right.

    GraphError or ShapeError for an equation that does not fit, UnsupportedError for a label repeated in one operand."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(shapes):
        raise GraphError(f"equation {equation!r} has {len(terms)} operands, got {len(shapes)}")
    covered = [len(shape) - len(term.replace("...", "")) for term, shape in zip(terms, shapes, strict=True)]
    most = max((n for n, term in zip(covered, terms, strict=True) if "..." in term), default=0)
    inputs = [_labels(term, n, most) for term, n in zip(terms, covered, strict=True)]
    for labels, shape in zip(inputs, shapes, strict=True):
        if len(labels) != len(shape):
            raise ShapeError(f"equation {equation!r} does not fit an operand of shape {list(shape)}")
        if len(set(labels)) != len(labels):
            raise UnsupportedError(f"einsum with a label repeated in one operand ({equation!r}) is not modelled; take the diagonal first")
    if arrow:
        return inputs, _labels(right, most, most)
    seen = Counter(label for labels in inputs for label in labels if not label.startswith(ELLIPSIS))
    return inputs, [*_labels("...", most, most), *sorted((label for label, n in seen.items() if n == 1), key=torch_order)]


def _labels(term: str, covered: int, most: int) -> list[str]:
    before, dots, after = term.partition("...")
    return [*before, *(f"{ELLIPSIS}{d}" for d in range(most - covered, most) if dots), *after]
