"""What a runtime is: how each operator runs there, what a step asks for in order, what its allocator makes of that, and what the operating
system shows of it.

A runtime says only what differs. An operator's row in its family is torch's own kernel on a CPU and everybody's shape rule; where a
runtime runs another kernel it has a row of its own (a kernel is a row, too), where it runs the same it says so by name, and what it does
not speak of it refuses: absence is an error, never zero.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any, Protocol

from memest.errors import UnsupportedError
from memest.machines.claims import Source
from memest.machines.cpu import Cpu
from memest.machines.engines import Told
from memest.machines.gpu import Gpu
from memest.machines.target import TORCH_CPU, Target
from memest.memory.figure import Figures
from memest.memory.listing import Listing
from memest.memory.stream import Stream
from memest.network.graph import Graph
from memest.network.tensor import Shape
from memest.ops.composite import Composite
from memest.ops.facts import REFUSED, Policy
from memest.ops.operator import Operator
from memest.ops.table import COMPOSITES, operator_named

Row = Operator | Composite


class Rows:
    """How each operator runs on ``runtime``: by a row of its ``own``, as its family says (the names in ``same``), or ``plain``: its outputs
    and nothing else. Composites are made of operators, which are looked up one by one, unless they are plain themselves."""

    def __init__(
        self,
        runtime: str,
        *,
        own: Mapping[str, Row] | None = None,
        same: Container[str] = (),
        plain: Container[str] = (),
        policies: Mapping[str, Policy] | None = None,
    ) -> None:
        self.runtime = runtime
        self._policies = dict(policies or {})
        self.own = dict(own or {})
        self.same = same
        self.plain = plain

    def __getitem__(self, op: str) -> Row:
        """The row of an operator; UnknownNameError for a name that is none, UnsupportedError where nothing is known of it here."""
        found = self.own.get(op)
        if found is not None:
            return found
        entry = operator_named(op)
        if self.how(op) is None:
            raise UnsupportedError(f"no rule for {op!r} on {self.runtime}; memest ops {op} lists the runtimes that have one")
        return entry

    def how(self, op: str) -> str | None:
        """``own``: a row of the runtime's own; ``same``: as its family says; ``plain``: outputs and nothing else; None: not modelled."""
        if op in self.own:
            return "own"
        if op in self.same:
            return "same"
        return "plain" if op in self.plain else "same" if op in COMPOSITES else None

    def policy(self, row: Row, attributes: Iterable[tuple[str, Any]]) -> Policy:
        """What autocast does around a call here: as the row's facts say, unless this runtime's ``policies`` say otherwise. UnsupportedError
        for a row that is not modelled in autocast."""
        policy = self._policies.get(row.name) or row.facts.policy(attributes)
        if policy is REFUSED:
            raise UnsupportedError(f"{row.name} is not modelled in autocast on {self.runtime}")
        return policy

    def is_plain(self, op: str) -> bool:
        """Whether an operator allocates its outputs and nothing else."""
        return self.how(op) == "plain"


class _Every:
    """All names."""

    def __contains__(self, name: object) -> bool:
        return True


EVERY: Container[str] = _Every()
AS_DESCRIBED = Rows(TORCH_CPU, same=EVERY)


class Steps(Protocol):
    """The step asked about, and the first one before it, each played when it is asked for."""

    def asked(self) -> Stream:
        """The step asked about."""

    def first(self) -> Stream:
        """The first step, in which state appears and libraries take what they keep; the step asked about where that is the first."""

    def listed(self) -> tuple[Listing, Listing]:
        """The first step and the one asked about by number, which takes less than playing them."""

    @property
    def is_first(self) -> bool:
        """Whether the step asked about is the first."""

    @property
    def keeps_gradients(self) -> bool:
        """Whether gradients stay from step to step."""

    @property
    def converted(self) -> frozenset[str]:
        """The names of parameters and inputs that lie in channels_last."""

    @property
    def listing(self) -> Mapping[str, int]:
        """The layers that take a list of tensors, with how many these are."""

    @property
    def whole(self) -> bool:
        """Whether a step is all that is done: what it leaves stands until the next takes it."""

    @property
    def distributed(self) -> bool:
        """Whether it is the step of one of several ranks."""


class Runtime(Protocol):
    """Who runs a network. ``modes`` are what it can do of ``train`` and ``infer``; ``rows`` how each operator runs
    there, ``source`` whose bytes its figures are. Where it ``replays``, what its allocator hands out is more than what is asked for.
    ``registered_alone``: of what stands, its figures speak of parameters and buffers, not of plain attributes."""

    name: str
    title: str
    source: Source
    modes: tuple[str, ...]
    rows: Rows
    replays: bool
    registered_alone: bool

    def target(self, machine: Cpu | Gpu | None, version: str | None, recorded: str | None, told: Told | None = None) -> Target:
        """What a step is played for on ``machine`` (None: the one at hand) by a ``version`` (None: that which the graph was ``recorded``
        with, or the runtime's choice), with the settings that it is ``told``. UsageError for a machine it does not run on, a version that
        is not modelled, or settings of another runtime."""

    def describe(self, target: Target) -> str:
        """Whose memory it is, for a line in a report."""

    def measured(self, target: Target) -> str:
        """What its figures were held against, for a sentence in a report."""

    def notes(self, target: Target) -> tuple[str, ...]:
        """What to know of a target before its numbers are believed, one line each."""

    def play(
        self, graph: Graph, input_shapes: Mapping[str, Shape], sizes: Mapping[str, int], recipe: Any, *, remember: bool = True
    ) -> Stream:
        """What is asked for, in order. Symbolic shapes (``Dim``s) are allowed, and need ``remember=False``."""

    def figures(self, requested_bytes: int, steps: Steps, target: Target) -> Figures:
        """The most bytes its allocator hands out at once where ``requested_bytes`` are asked for and alive at once, the most it takes from
        the system for them, and what the operating system (or the driver) shows of the process."""
