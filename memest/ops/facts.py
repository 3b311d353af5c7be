"""The facts of a row that are not its kernels': how far it sees, what autocast does with it, what writing over its input keeps, how many
operations it is, over what it takes statistics, and what its backward takes for granted of values.

A row states one of the presets at the end, or says with ``but`` where it differs: nothing is taken for granted of a row that is silent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from fractions import Fraction
from math import prod
from typing import Any, NamedTuple

from memest.network.tensor import Shape

Attributes = Mapping[str, Any]


# how far it sees ---------------------------------------------------------------------------------------------------------


class Window(NamedTuple):
    """Along one spatial dim, position i of the output depends on the input's from ``i * step - left`` to ``i * step + right``."""

    step: Fraction
    left: Fraction
    right: Fraction


STILL = Window(Fraction(1), Fraction(0), Fraction(0))
Windows = Sequence[Window | None]
Geometry = Callable[[Attributes, Sequence[Shape | None], int], Windows]


@dataclass(frozen=True, slots=True)
class Reach:
    """``windows(attributes, shapes, dims)`` gives a window for each of ``dims`` spatial dims, those behind batch and channels; None where
    it has no end or is not known. ``shapes`` are those of the tensors by role, None where one is absent or its shape is not known.
    Statistics that a row takes do not count as sight."""

    name: str
    windows: Geometry


POINTWISE = Reach("pointwise", lambda given, shapes, dims: (STILL,) * dims)
EVERYWHERE = Reach("everywhere", lambda given, shapes, dims: (None,) * dims)


def window_by(geometry: Geometry) -> Reach:
    """A reach that depends on attributes and shapes."""
    return Reach("window", geometry)


def along(name: str) -> Reach:
    """Everywhere along the dims that attribute ``name`` counts (all of them, when it counts none), pointwise along the others; everywhere
    where ``keepdim`` is false, as the dims behind move."""

    def geometry(given: Attributes, shapes: Sequence[Shape | None], dims: int) -> Windows:
        at = given[name]
        if at is None or at == () or not given.get("keepdim", True):
            return (None,) * dims
        met = {d % (dims + 2) for d in (at if isinstance(at, tuple) else (at,))}
        return [None if d + 2 in met else STILL for d in range(dims)]

    return Reach(f"along {name}", geometry)


def slid(stride: int, padding: int, width: int) -> Window:
    """A kernel that slides: output i reads from ``i * stride - padding`` to ``width`` further."""
    return Window(Fraction(stride), Fraction(padding), Fraction(width - padding))


def spread(stride: int, padding: int, width: int) -> Window:
    """A kernel that spreads: input n reaches the outputs from ``n * stride - padding`` to ``width`` further."""
    return Window(Fraction(1, stride), Fraction(width - padding, stride), Fraction(padding, stride))


def repeated(factor: int) -> Window:
    """Every position becomes ``factor`` side by side."""
    return Window(Fraction(1, factor), Fraction(factor - 1, factor), Fraction(0))


# autocast ----------------------------------------------------------------------------------------------------------------


class Policy(Enum):
    """What ``torch.autocast`` does around a call (aten/src/ATen/autocast_mode.h). A call that falls through is looked at call by call;
    ``FLOAT32_RESULT`` asks the call itself for a float32 result (``fp32_set_opt_dtype``, CUDA's alone); a refused row has kernels that
    call wrapped operators themselves, below autograd, where memest cannot see the casts."""

    FALLS_THROUGH = "falls through"
    LOWER = "lower"
    FLOAT32 = "float32"
    PROMOTE = "promote"
    REFUSED = "refused"
    FLOAT32_RESULT = "float32 result"


FALLS_THROUGH, LOWER, FLOAT32, PROMOTE, REFUSED, FLOAT32_RESULT = Policy


@dataclass(frozen=True, slots=True)
class Dispatched:
    """The policies of a row that torch's dispatcher knows by another name than its own, or by several: ``name`` tells by the attributes."""

    policies: Mapping[str, Policy]
    name: Callable[[Attributes], str]


def called(name: str, policy: Policy) -> Dispatched:
    """A row that the dispatcher calls ``name``."""
    return Dispatched({name: policy}, lambda given: name)


# writing over the input --------------------------------------------------------------------------------------------------


class Overwriting(Enum):
    """What autograd keeps of a call with ``inplace=True``: its result or a mask, so that memory is saved in training, or a clone of its
    input, so that it is saved in inference alone. ``BY_METHOD``: torch.Tensor has a method, torch.nn has no flag. ``NEVER``: no attribute
    ``inplace``."""

    KEEPS_RESULT = "keeps result"
    KEEPS_MASK = "keeps mask"
    KEEPS_INPUT = "keeps input"
    BY_METHOD = "by method"
    NEVER = "never"


KEEPS_RESULT, KEEPS_MASK, KEEPS_INPUT, BY_METHOD, NEVER = Overwriting


# operations --------------------------------------------------------------------------------------------------------------

Flops = Callable[[Sequence[Shape], Sequence[Shape], Attributes], int]
"""Floating-point operations of a call, from the shapes of the tensors it gets (absent ones left out), the shapes it makes (views left out)
and its attributes. Products count two a multiply-add, as torch.utils.flop_counter does."""


def each_element(inputs: Sequence[Shape], made: Sequence[Shape], given: Attributes) -> int:
    """One operation for every element that is made."""
    return sum(prod(shape) for shape in made)


def product_of(left: int) -> Flops:
    """A product of matrices or vectors whose left factor is tensor ``left``: every element made is a sum along its last dim."""

    def product(inputs: Sequence[Shape], made: Sequence[Shape], given: Attributes) -> int:
        return 2 * sum(prod(shape) for shape in made[:1]) * inputs[left][-1]

    return product


# statistics --------------------------------------------------------------------------------------------------------------


class Statistics(Enum):
    """What a row's mean and variance are taken over: several samples, or one (so that a window of it has others)."""

    NONE = "none"
    BATCH = "batch"
    SAMPLE = "sample"


NONE, BATCH, SAMPLE = Statistics


# the column --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All of them. ``flops`` is None for a composite: its operations are those of its calls. ``assumes`` is what has to hold of the values
    that it reads for its backward to be this one ("" for one that is the same whatever they are)."""

    reach: Reach
    autocast: Policy | Dispatched
    overwrites: Overwriting
    flops: Flops | None
    statistics: Statistics
    assumes: str

    def but(self, **differences: Any) -> Facts:
        """These facts, where ``differences`` say nothing else."""
        return replace(self, **differences)

    def policies(self, name: str) -> dict[str, str]:
        """Autocast's policies by the names that the dispatcher has for a row of this name."""
        return {name: self.autocast.value} if isinstance(self.autocast, Policy) else {n: p.value for n, p in self.autocast.policies.items()}

    @property
    def text(self) -> str:
        """What is worth telling of them, in words."""
        policies = dict.fromkeys(self.policies("").values())
        told = {
            self.reach.name: True,
            f"autocast {' or '.join(policies)}": set(policies) != {FALLS_THROUGH.value},
            f"in place {self.overwrites.value}": self.overwrites is not NEVER,
            "products": self.flops not in (None, each_element),
            f"statistics of a {self.statistics.value}": self.statistics is not NONE,
            f"backward where {self.assumes}": bool(self.assumes),
        }
        return "; ".join(words for words, true in told.items() if true)

    def policy(self, given: Iterable[tuple[str, Any]]) -> Policy:
        """Autocast's policy of a call with these attributes, as items."""
        return self.autocast if isinstance(self.autocast, Policy) else self.autocast.policies[self.autocast.name(dict(given))]


POINTWISE_FACTS = Facts(reach=POINTWISE, autocast=FALLS_THROUGH, overwrites=NEVER, flops=each_element, statistics=NONE, assumes="")
POINTWISE_IN_PLACE = POINTWISE_FACTS.but(overwrites=BY_METHOD)
ALONG_DIM_FACTS = POINTWISE_FACTS.but(reach=along("dim"))
EVERYWHERE_FACTS = POINTWISE_FACTS.but(reach=EVERYWHERE)
POINTWISE_CALLS = POINTWISE_FACTS.but(flops=None)  # of composites
ALONG_DIM_CALLS = ALONG_DIM_FACTS.but(flops=None)
EVERYWHERE_CALLS = POINTWISE_CALLS.but(reach=EVERYWHERE)
