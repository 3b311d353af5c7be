"""Short ways to write rows whose columns have the usual values. In ``torch`` and ``source``, ``{}`` stands for the row's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from memest.ops.composite import Composite
from memest.ops.facts import Facts
from memest.ops.operator import REQUIRED, Attribute, Backward, Example, Forward, Operator, integer

FUNCTIONAL = "torch.nn.functional.{}"
NATIVE = "aten/src/ATen/native"
DERIVED = "derivatives.yaml: {}; aten/src/ATen/native"


def row(
    name: str,
    forward: Forward,
    backward: Backward | None,
    attributes: tuple[Attribute, ...],
    examples: tuple[Example, ...],
    source: str,
    *,
    facts: Facts,
    saves: tuple[str, ...] = (),
    roles: tuple[str, ...] = ("input",),
    torch: str = "torch.{}",
    oracle: str = "",
) -> Operator:
    """A row; most take one tensor and keep nothing."""
    return Operator(
        name=name,
        torch=torch.replace("{}", name),
        roles=roles,
        attributes=attributes,
        forward=forward,
        saves=saves,
        backward=backward,
        examples=examples,
        facts=facts,
        source=source.replace("{}", name),
        oracle=oracle,
    )


def composite(
    name: str,
    compose: Callable[..., Any],
    attributes: tuple[Attribute, ...],
    examples: tuple[Example, ...],
    source: str,
    *,
    facts: Facts,
    roles: tuple[str, ...] = ("input",),
    torch: str = "torch.{}",
    oracle: str = "",
) -> Composite:
    """A composite; most take one tensor."""
    return Composite(
        name=name,
        torch=torch.replace("{}", name),
        roles=roles,
        attributes=attributes,
        compose=compose,
        examples=examples,
        facts=facts,
        source=source.replace("{}", name),
        oracle=oracle,
    )


def attribute(name: str, default: Any = REQUIRED, check: Callable[[Any], Any] = integer) -> Attribute:
    """An attribute; most are integers."""
    return Attribute(name=name, default=default, check=check)


def calls(*shapes_and_attributes: tuple[Any, Mapping[str, Any]], layout: str = "contiguous") -> tuple[Example, ...]:
    """Examples of a row: the shape of its tensor (or those of all its tensors) and the attributes, of each."""
    return tuple(
        Example(shapes=shape if shape and isinstance(shape[0], tuple | list) else (shape,), attributes=attributes, layout=layout)
        for shape, attributes in shapes_and_attributes
    )
