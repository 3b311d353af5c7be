"""The closed form of an estimate. Every expression is sympy's, in the graph's own sizes (positive integers), and its unit is the byte.

A formula holds under :attr:`Formula.conditions`, the comparisons of sizes that the step made on its way; where they do not hold the
step runs differently, and :meth:`Formula.evaluate` asks the piece that holds there. Nothing in it is rounded or fitted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from memest.estimate.formulas import shares
from memest.estimate.formulas.domain import Domain, domain
from memest.estimate.formulas.regime import Regime, dominant, regime
from memest.machines.versions import Torch
from memest.memory.figure import Figures
from memest.memory.live_sets import LiveSets
from memest.network.graph import Graph
from memest.runtimes.compiling import programs_of
from memest.runtimes.torch.step import Recipe
from memest.shown import visible
from memest.sizes.conditions import Conditions, reduced
from memest.sizes.dims import Guard
from memest.sizes.remembering import Restated

if TYPE_CHECKING:
    from typing import Self

    from memest.estimate.formulas.symbolic import Translator


class Subject(Protocol):
    """What a formula is of: an estimate (:class:`memest.Estimate`)."""

    @property
    def graph(self) -> str: ...
    @property
    def mode(self) -> str: ...
    @property
    def how(self) -> str: ...
    @property
    def optimizer(self) -> str | None: ...
    @property
    def loss(self) -> str | None: ...
    @property
    def dtype(self) -> str: ...
    @property
    def levers(self) -> tuple[str, ...]: ...
    @property
    def torch(self) -> Torch: ...
    @property
    def where(self) -> str: ...
    @property
    def played(self) -> Graph: ...
    @property
    def recipe(self) -> Recipe: ...
    @property
    def notes(self) -> tuple[str, ...]: ...
    @property
    def sizes(self) -> Mapping[str, int]: ...
    @property
    def requested_bytes(self) -> int: ...
    @property
    def replays(self) -> bool: ...
    @property
    def figures(self) -> Figures: ...
    @property
    def live_sets(self) -> LiveSets: ...
    def at(self, **sizes: int) -> Subject: ...


@dataclass(frozen=True, kw_only=True)
class LayerForm:
    """One layer's bytes as expressions: activations it made that are kept for backward, outputs, parameters, their gradients."""

    activation: Any
    output: Any
    parameter: Any
    gradient: Any


@dataclass(frozen=True, kw_only=True)
class Form(Restated):
    """The peak and its parts as functions of the sizes, around those of ``estimate``. Where an allocator is played, the peak is that of the
    bytes asked for, before it rounds them into blocks (:attr:`figure`)."""

    estimate: Subject

    def __repr__(self) -> str:
        return f"<Formula of {self.estimate!r}>"

    @property
    def program(self) -> LiveSets:
        """The compiled step behind it."""
        return self.estimate.live_sets

    @cached_property
    def symbols(self) -> tuple[Any, ...]:
        """The sizes, as sympy symbols, in the graph's order."""
        from memest.estimate.formulas.symbolic import size

        return tuple(size(name) for name in self.program.symbols)

    @cached_property
    def _conditions(self) -> Conditions:
        own = self.program.conditions
        bounds = Conditions(least=own.least, most=own.most, others=own.others).guards
        found = reduced((*bounds, *self.estimate.played.guards), self.program.symbols)
        return found.both(Conditions(least=own.least, most=own.most, multiple=own.multiple))

    @property
    def conditions(self) -> tuple[str, ...]:
        """Where it holds: comparisons of sizes, as Python writes them."""
        return self._conditions.texts

    @property
    def rules(self) -> tuple[Guard, ...]:
        """The conditions as comparisons."""
        return self._conditions.guards

    @property
    def figure(self) -> str:
        """What the closed form gives: the ``peak``, or the bytes ``requested`` where an allocator hands out more."""
        return "requested" if self.estimate.replays else "peak"

    @property
    def title(self) -> str:
        """What was asked, on one line."""
        e = self.estimate
        levers = "".join(f", {lever}" for lever in e.levers)
        requested = ": bytes requested, before the allocator rounds them into blocks" if e.replays else ""
        return visible(f"{e.graph}: {e.how}{levers}, {e.dtype}, {e.where}{requested}")

    def holds(self, **sizes: int) -> bool:
        """True where the conditions do; sizes left out are the estimate's."""
        return self._conditions.hold({**self.estimate.sizes, **sizes})

    @cached_property
    def _translator(self) -> Translator:
        from memest.estimate.formulas.symbolic import Translator

        return Translator()

    @cached_property
    def peak(self) -> Any:
        """Bytes at the peak: what is there before the step, and the largest of the moments that could be the peak. What a library's kernel
        holds inside is a function ``w_i`` of its sizes, which becomes a number once they are."""
        from memest.estimate.formulas.symbolic import largest

        translate, program = self._translator.expression, self.program
        terms = [*(translate(t) for t in program.terms), 1]
        moments = []
        for row, instant in zip(program.coefficients, program.instants, strict=True):
            counted = sum(int(c) * t for c, t in zip(row, terms, strict=True) if c)
            moments.append(counted + (0 if instant.inner is None else translate(instant.inner)))
        return translate(program.resident) + largest(moments)

    def evaluate(self, **sizes: int) -> int:
        """Bytes at the peak at these sizes (those left out are the estimate's), from the piece that holds there. Raises what an estimate at
        these sizes raises."""
        there = {**self.estimate.sizes, **sizes}
        if there.keys() == self.estimate.sizes.keys() and all(type(n) is int for n in there.values()) and self._conditions.hold(there):
            found = self.program.at(there)
            if found is not None:
                return found.standing_bytes + found.above_bytes
        return self.estimate.at(**sizes).requested_bytes

    __call__ = evaluate

    def at(self, **sizes: int) -> Self:
        """The formula around other sizes: the same piece with another regime, or the piece that holds there."""
        return replace(self, estimate=self.estimate.at(**sizes))

    @property
    def pieces(self) -> tuple[tuple[str, ...], ...]:
        """The conditions of every piece that was needed so far."""
        known = programs_of(self.estimate.played, self.estimate.recipe).known
        return tuple(p.conditions.texts for p in ([self.program] if self.program not in known else known))

    @cached_property
    def domain(self) -> Domain:
        """The sizes among which no floor is left: those that leave the same remainders as the estimate's."""
        return domain((*self.program.terms, self.program.resident), self._conditions, self.estimate.sizes)

    @cached_property
    def simplified(self) -> Any:
        """``peak`` without floors and without the moments that never win in :attr:`domain`; equal to it there."""
        from memest.estimate.formulas.symbolic import largest

        place, program = self.domain, self.program
        terms = [*(place.polynomial(t) for t in program.terms), place.polynomial(1)]
        moments = []
        for i in dominant(program, place, self.estimate.sizes):
            row, inner = program.coefficients[i], program.instants[i].inner
            counted = sum(int(c) * self._translator.polynomial(t) for c, t in zip(row, terms, strict=True) if c)
            moments.append(counted + (0 if inner is None else self._translator.expression(inner)))
        return self._translator.polynomial(place.polynomial(program.resident)) + largest(moments)

    @cached_property
    def regime(self) -> Regime:
        """The moment that is the peak at the estimate's sizes, as polynomials, and where it is."""
        return regime(self.program, self.domain, self.estimate.sizes)

    @property
    def scratch(self) -> tuple[str, ...]:
        """What the regime's scratchpad is called where it is printed; nothing when it takes nothing."""
        name = "w" if "w" not in self.program.symbols else "scratchpad"
        return (name,) if self.regime.scratchpad_bytes else ()

    @cached_property
    def short(self) -> Any:
        """The peak in this regime: one polynomial. ``regime.holds(sizes)`` tells where it is the peak."""
        return self._translator.polynomial(self.regime.peak)

    @cached_property
    def categories(self) -> dict[str, Any]:
        """``short`` by category, scratchpads among the workspaces."""
        found = {c: self._translator.polynomial(p) for c, p in self.regime.by_category.items()}
        if self.regime.scratchpad_bytes:
            found["workspace"] = found.get("workspace", 0) + self.regime.scratchpad_bytes
        return {c: e for c, e in found.items() if e != 0}

    @cached_property
    def totals(self) -> dict[str, Any]:
        """Bytes over the step by category: what is there before it, activations kept when backward begins, gradients of parameters."""
        return {c: self._translator.expression(e) for c, e in shares.totals(self.program).items()}

    @cached_property
    def layers(self) -> dict[str, LayerForm]:
        """The layers in order."""
        e = self._translator.expression
        return {
            name: LayerForm(activation=e(s.activation), output=e(s.output), parameter=e(s.parameter), gradient=e(s.gradient))
            for name, s in shares.shares(self.estimate.played, self.program).items()
        }
