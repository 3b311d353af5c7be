"""A timeline compiled once and evaluated at any size.

The order of events does not depend on sizes while the comparisons made on the way come out the same. So the step is played once with
symbolic sizes; what is left is a table of distinct size formulas, the list of events that refer to them, and the conditions (guards)
under which the order holds. Evaluating it at other sizes computes the formulas, one cumulative sum and a maximum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from memest.dims import Dim, Expr, Guard, Opaque, expression, plain, recording, symbol
from memest.graph import Graph
from memest.ledger import Step
from memest.tensor import Shape
from memest.timeline import Recipe, play


@dataclass(frozen=True, slots=True)
class Summary:
    """The peak of a step: resident bytes, the most bytes on top of them, and the number of the event that reaches it (-1: none)."""

    resident_bytes: int
    above_bytes: int
    event: int


class Program:
    """The compiled step of one graph and recipe, for all sizes at which its guards hold."""

    def __init__(self, steps: tuple[Step, ...], residents: int | Expr, guards: tuple[Guard, ...], symbols: tuple[str, ...]) -> None:
        import numpy as np  # a single estimate never compiles, and need not pay for numpy

        self.steps = steps
        self.guards = guards
        self.symbols = symbols
        distinct: dict[int | Expr, int] = {}
        index = [distinct.setdefault(expression(s.storage.nbytes), len(distinct)) for s in steps]
        self.sizes: tuple[int | Expr, ...] = tuple(distinct)
        self._index = np.array(index, dtype=np.intp)
        self._positive = np.array([plain(s.delta) > 0 for s in steps], dtype=bool)
        self._signs = np.where(self._positive, 1, -1)
        self._compute = compile_sizes((*self.sizes, residents), guards, symbols)

    def evaluate(self, sizes: Mapping[str, int]) -> Summary | None:
        """The peak at these sizes; None where a guard does not hold (the step would run differently)."""
        values = self._compute(*(sizes[s] for s in self.symbols))
        if values is None:
            return None
        import numpy as np

        *numbers, resident = values
        if not self.steps:
            return Summary(resident, 0, -1)
        if sum(numbers) * len(self.steps) < 2**62:
            totals = np.cumsum(np.array(numbers, dtype=np.int64)[self._index] * self._signs)
            where = int(totals.argmax())
            above = int(totals[where])
        else:
            running = list(accumulate(n if p else -n for n, p in zip((numbers[i] for i in self._index), self._positive, strict=True)))
            above = max(running)
            where = running.index(above)
        return Summary(resident, above, where) if above > 0 else Summary(resident, 0, -1)


def compile_program(graph: Graph, input_shapes: Mapping[str, Shape], sizes: Mapping[str, int], recipe: Recipe) -> Program:
    """Play the step with symbolic sizes (at the given example) and keep what does not depend on the example."""
    symbols = tuple(sizes)
    symbolic = {name: Dim(n, symbol(name)) for name, n in sizes.items()}
    shapes: dict[str, Shape] = {}
    for i in graph.inputs:
        shapes[i.name] = tuple(Dim(n, d) if isinstance(d, Expr) else n for d, n in zip(i.shape, input_shapes[i.name], strict=True))
    guards: dict[Guard, None] = {}
    with recording(guards):
        timeline = play(graph, shapes, symbolic, recipe, remember=False)
        resident: Any = sum(s.nbytes for s in timeline.residents)
    return Program(timeline.steps, expression(resident), tuple(guards), symbols)


def compile_sizes(
    sizes: tuple[int | Expr, ...], guards: tuple[Guard, ...], symbols: tuple[str, ...]
) -> Callable[..., tuple[int, ...] | None]:
    """One Python function of the symbols: None when a guard fails, else all sizes. Shared subexpressions are computed once."""
    writer = _Writer()
    for g in guards:
        left, right = writer.term(g.left), writer.term(g.right)
        writer.lines.append(f"  if not ({left} {g.op} {right}): return None")
    result = "".join(f"{writer.term(s)}, " for s in sizes)
    source = "\n".join([f"def compute({', '.join(symbols)}):", *writer.lines, f"  return ({result})"])
    namespace: dict[str, Any] = dict(writer.functions)
    exec(compile(source, "<program>", "exec"), namespace)
    compute: Callable[..., tuple[int, ...] | None] = namespace["compute"]
    return compute


class _Writer:
    """Turns expressions into assignments to temporaries, each distinct one once."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.functions: dict[str, Callable[..., int]] = {}
        self._names: dict[Expr, str] = {}

    def term(self, e: Any) -> str:
        if not isinstance(e, Expr):
            return f"({', '.join(self.term(v) for v in e)},)" if isinstance(e, tuple) else repr(int(e))
        if e.op == "symbol":
            return str(e.args[0])
        known = self._names.get(e)
        if known is not None:
            return known
        body = self._body(e)
        name = f"t{len(self._names)}"
        self._names[e] = name
        self.lines.append(f"  {name} = {body}")
        return name

    def _body(self, e: Expr) -> str:
        args = [self.term(a) for a in e.args]
        if isinstance(e, Opaque):
            function = f"f{len(self.functions)}"
            self.functions[function] = e.function
            return f"{function}({', '.join(args)})"
        if e.op in ("max", "min"):
            return f"{e.op}({', '.join(args)})"
        return f"{args[0]} {e.op} {args[1]}"
