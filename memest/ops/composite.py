"""Composites: what torch offers as one call and ATen builds from several operators that autograd knows.

A composite is a function of values made of rows: it calls rows through a :class:`Caller`, in ATen's order, and never says a byte
itself. Intermediate values live until it returns (C++ locals), unless it drops them earlier.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from memest.errors import UnsupportedError
from memest.machines.target import Target
from memest.network.tensor import Shape, Spec
from memest.ops.facts import Facts
from memest.ops.operator import Attribute, Example, canonical_attributes


class Value(Protocol):
    """A tensor of the running network, as a composite sees it."""

    @property
    def spec(self) -> Spec: ...

    @property
    def shape(self) -> Shape: ...

    @property
    def requires_grad(self) -> bool: ...

    @property
    def trained(self) -> bool: ...

    @property
    def storage(self) -> Any: ...


class Caller(Protocol):
    """What a composite may do."""

    training: bool
    target: Target

    @property
    def grad_mode(self) -> bool:
        """True outside ``no_grad``."""

    def call(self, op: str, *tensors: Any, **attributes: Any) -> Any:
        """Run a row (or another composite) on values; absent optional tensors are None, ``*`` roles take a list."""

    def drop(self, *values: Any) -> None:
        """Release intermediates before the composite returns."""


def refuse_on_cuda(c: Caller, what: str) -> None:
    """UnsupportedError on CUDA, whose own way of ``what`` was not held against anything yet."""
    if c.target.on_cuda:
        raise UnsupportedError(f"{what} is not modelled on torch-cuda yet; ask for torch-cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Composite:
    """One composite: the same face as an operator row (name, roles, attributes, examples, source), with a body made of calls."""

    name: str
    torch: str
    roles: tuple[str, ...]
    attributes: tuple[Attribute, ...]
    compose: Callable[..., Any]
    examples: tuple[Example, ...]
    facts: Facts
    source: str
    oracle: str = ""

    def canonical(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All attributes with defaults filled in and values checked."""
        return canonical_attributes(self.name, self.attributes, given)
