"""A lever: something a user can change to train or infer in less memory, and what it costs.

A lever is a row: its options, what it does to the graph and to the recipe, and its price in words. It is asked for by text, as
optimizers are: ``name`` or ``name:option=value,option=value``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from memest.network.graph import Graph
from memest.network.tensor import Shape
from memest.ops.operator import REQUIRED
from memest.runtimes.torch.step.recipe import Recipe

Options = Mapping[str, Any]
Change = Callable[[Graph, Recipe, Options], tuple[Graph, Recipe]]
Fit = Callable[[Graph, Recipe, Options, Mapping[str, Shape], Mapping[str, int]], Recipe]


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option: its default (``REQUIRED`` when there is none) and a check that turns its text into a value, or raises ValueError with
    what was expected."""

    default: Any
    check: Callable[[str], Any]
    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lever:
    """One row. ``change`` gives the graph and the recipe as they are with the lever pulled; it raises UsageError or UnsupportedError when
    the lever cannot be pulled there. ``fit`` (None: nothing) gives the recipe for one input shape, where that decides: when option
    ``fit_option`` is given, after every lever has changed what it changes. ``modes`` are those it means something in; ``excludes`` the
    levers it contradicts; ``source`` is where its rule was read."""

    summary: str
    price: str
    options: Mapping[str, Option]
    modes: tuple[str, ...]
    excludes: tuple[str, ...]
    change: Change
    source: str
    fit: Fit | None = None
    fit_option: str = ""


__all__ = ["REQUIRED", "Change", "Fit", "Lever", "Option", "Options"]
