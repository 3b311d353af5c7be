"""From a graph and the choices a page offers to plain data: numbers and texts only, ready for JSON.

Events are kept in segments that choices share: all optimizers have the forward and the backward pass in common. Sizes are linear forms of
a few terms, each term a formula of the symbols. Every choice is checked at the sizes the page opens with: the data, evaluated as the
browser evaluates it, gives the bytes of the estimate, or there is no page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

from memest.errors import MemestError, UnsupportedError, UsageError
from memest.estimate.estimate import Estimate, answer
from memest.estimate.formulas.javascript import SAFE, magnitude
from memest.estimate.inputs import InputShape
from memest.estimate.peak import CATEGORIES
from memest.estimate.question import Settings, question
from memest.levers.table import meant
from memest.memory.stream import Event, Storage
from memest.network.graph import Graph, as_graph
from memest.network.tensor import nbytes, numel
from memest.planning.page.grid import Axis, axes_of, points_of, start_of
from memest.planning.page.kernels import kernel_table
from memest.planning.page.pieces import Piece, cover, played_piece
from memest.planning.page.reading import Reading
from memest.runtimes.table import runtime_named
from memest.sizes.dims import Dim, Expr, Opaque, expression, linear, plain

if TYPE_CHECKING:
    from typing_extensions import Unpack

OPTIMIZERS = ("sgd", "sgd:momentum=0.9", "adam", "adamw")
DTYPES = ("float32", "bfloat16")
REFUSED = -1
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class PageModel:
    """``data`` is plain (dicts, lists, texts, ints); ``terms`` are the formulas behind ``data["terms"]``, of ``symbols``; ``big`` says that
    a number could reach 2**53, so that doubles would not do."""

    data: Mapping[str, Any]
    terms: tuple[Expr, ...]
    symbols: tuple[str, ...]
    axes: tuple[Axis, ...]
    big: bool


def page_model(
    graph: Graph,
    *,
    input_shape: InputShape,
    optimizers: Sequence[str] = OPTIMIZERS,
    dtypes: Sequence[str] | None = None,
    batches: Sequence[int] = (),
    sizes: Mapping[str, Sequence[int]] | None = None,
    say: Say = lambda text: None,
    **settings: Unpack[Settings],
) -> PageModel:
    """The data of a page on ``graph`` that opens at ``input_shape`` and the ``mode`` among ``settings``, which are those of
    :func:`memest.estimate`: training with each of ``optimizers``, and inference.

    ``dtypes`` None: float32, and bfloat16 where the network has it. Raises what ``estimate`` raises for the sizes it opens with."""
    graph = as_graph(graph, "a report")
    if not optimizers:
        raise UsageError("a page needs at least one optimizer")
    asking = question(graph, settings, "page_model")
    modes = runtime_named(asking.runtime).modes
    wanted = [("train", o) for o in dict.fromkeys(optimizers) if "train" in modes] + [("infer", None)]
    if not asking.training:
        wanted = wanted[-1:] + wanted[:-1]
    writer: _Writer | None = None
    for number, dtype in enumerate(dict.fromkeys(dtypes or DTYPES)):
        for kind, optimizer in wanted:
            levers = asking.levers if kind == asking.mode else meant(asking.levers, kind)
            here = replace(asking, mode=kind, dtype=dtype, optimizer=optimizer or asking.optimizer, levers=levers)
            try:
                found = answer(graph, here, input_shape)
                say(f"playing {kind}{f', {optimizer}' if optimizer else ''}, {dtype}")
                if writer is None:
                    conditions = played_piece(found, found.sizes).conditions
                    writer = _Writer(graph, axes_of(graph, found.sizes, conditions, batches, sizes))
                writer.choice(found)
            except MemestError:
                if dtypes is None and number > 0:
                    continue  # a dtype that nobody asked for and that this network does not have
                raise
    assert writer is not None
    return writer.finished(say)


class _Writer:
    """Collects choices into plain data; equal things are written once."""

    def __init__(self, graph: Graph, axes: tuple[Axis, ...]) -> None:
        self.graph = graph
        self.axes = axes
        self.symbols = tuple(a.symbol for a in axes)
        self.settings = points_of(axes)
        self.start = start_of(axes)
        self.strings = _Index()
        self.terms = _Index()
        self.forms = _Index()
        self.segments = _Index()
        self.layers = _Index()
        self.kernels: dict[Opaque, set[int]] = {}
        self.choices: list[dict[str, Any]] = []
        self.programs: list[dict[str, Any]] = []
        self.checks: list[Estimate] = []

    def choice(self, found: Estimate) -> None:
        """One more choice: its pieces over the grid."""
        covered = cover(found, self.settings, self.start)
        first = len(self.programs)
        for number, piece in enumerate(covered.pieces):
            where = {i for i, p in enumerate(covered.found) if p == number}
            self.programs.append(self._program(found, piece, where))
        refusals = list(dict.fromkeys(f for f in covered.found if isinstance(f, str)))
        self.choices.append(
            {
                "mode": found.mode,
                "optimizer": found.optimizer,
                "dtype": found.dtype,
                "programs": [first + f if isinstance(f, int) else REFUSED - refusals.index(f) for f in covered.found],
                "refusals": refusals,
            }
        )
        self.checks.append(found)

    def _program(self, found: Estimate, piece: Piece, where: set[int]) -> dict[str, Any]:
        steps = piece.timeline.events
        cut = next((i for i, s in enumerate(steps) if s.phase == "optimizer_step"), len(steps))
        allocations: dict[int, int] = {}
        residents = [[self._size(s.nbytes), CATEGORIES.index(s.category), self.strings[s.layer]] for s in piece.timeline.residents]
        return {
            "residents": residents,
            "segments": [self._segment(part, allocations, where) for part in (steps[:cut], steps[cut:]) if part],
            "layers": self.layers[self._layers(found.played, piece)],
            "conditions": list(piece.conditions.texts),
        }

    def _segment(self, steps: Sequence[Event], allocations: dict[int, int], where: set[int]) -> int:
        """``moves``: 0 for the next allocation, n for the release of allocation number n - 1 of the program; ``made``: size, category and
        reason of each allocation (a kernel's size is -1 - its number); ``runs``: phase, layer, operator and how many events."""
        moves: list[int] = []
        made: list[int] = []
        for step in steps:
            storage = step.storage
            if plain(step.delta) > 0:
                allocations[storage.id] = len(allocations)
                moves.append(0)
                made += [self._moved(storage, where), CATEGORIES.index(storage.category), self.strings[storage.reason]]
            else:
                moves.append(1 + allocations[storage.id])
        runs: list[int] = []
        for (phase, layer, op), run in groupby(steps, lambda s: (s.phase, s.layer, s.op)):
            runs += [self.strings[phase], self.strings[layer], self.strings[op], sum(1 for _ in run)]
        return self.segments[tuple(moves), tuple(made), tuple(runs)]

    def _moved(self, storage: Storage, where: set[int]) -> int:
        size = expression(storage.nbytes)
        if isinstance(size, Opaque):
            self.kernels.setdefault(size, set()).update(where)
            return -1 - list(self.kernels).index(size)
        return self._size(size)

    def _size(self, size: int | Expr) -> int:
        """The number of a linear form: its constant, then pairs of coefficient and term."""
        terms, constant = linear(expression(size))
        form = [constant]
        for term, coefficient in terms.items():
            if isinstance(term, Opaque):
                raise UnsupportedError(f"a size that has no formula: {term.op}")
            form += [coefficient, self.terms[term]]
        return self.forms[tuple(form)]

    def _layers(self, played: Graph, piece: Piece) -> tuple[Any, ...]:
        """One row a layer: name, operator, shapes of its outputs, elements and bytes of the parameters it reads first."""
        owned = {p.name: p for p in played.parameters if not p.buffer}
        rows = []
        for layer in played.layers:
            own = [owned.pop(n) for n in dict.fromkeys(layer.reads) if n in owned]
            shapes = tuple(
                tuple(self._size(d) for d in piece.timeline.values[n].shape) for n in layer.outputs if n in piece.timeline.values
            )
            elements, total = sum(numel(p.shape) for p in own), sum(nbytes(p.shape, p.dtype) for p in own)
            names = tuple(self.strings[p.name] for p in own)
            rows.append((self.strings[layer.name], self.strings[layer.op], shapes, elements, total, names))
        return tuple(rows)

    def finished(self, say: Say) -> PageModel:
        """The whole, with the kernels' values, checked against the estimates."""
        tables = []
        for number, (kernel, where) in enumerate(self.kernels.items()):
            say(f"kernel {number + 1} of {len(self.kernels)} at {len(where):,} settings")
            tables.append(self._table(kernel, sorted(where)))
        first = self.checks[0]
        largest = {a.symbol: max(a.values) for a in self.axes}
        data: dict[str, Any] = {
            "model": self.graph.name,
            "loss": first.loss or next((c.loss for c in self.checks if c.loss), None),
            "runtime": first.runtime,
            "where": first.where,
            "owner": runtime_named(first.runtime).source.owner,
            "replayed": _replayed(first),
            "torch": {"modelled": first.torch.modelled, "notes": [*first.notes, f"Modelled is {first.torch}."]},
            "categories": list(CATEGORIES),
            "axes": [{"symbol": a.symbol, "values": list(a.values), "start": a.start, "batch": a.is_batch} for a in self.axes],
            "inputs": [{"name": i.name, "shape": [tree(d) for d in i.shape], "dtype": i.dtype} for i in self.graph.inputs],
            "terms": [tree(t) for t in self.terms],
            "forms": [list(f) for f in self.forms],
            "kernels": tables,
            "segments": [{"moves": list(m), "made": list(a), "runs": list(r)} for m, a, r in self.segments],
            "programs": self.programs,
            "layers": [[list(row) for row in rows] for rows in self.layers],
            "choices": self.choices,
            "strings": list(self.strings),
        }
        data["largest"] = _largest(data, list(self.terms), largest)
        model = PageModel(data=data, terms=tuple(self.terms), symbols=self.symbols, axes=self.axes, big=data["largest"] >= SAFE)
        for number, found in enumerate(self.checks):
            reading = Reading(data).at(number, self.start)
            if (reading.peak_bytes, reading.standing_bytes) != (found.requested_bytes, found.standing_bytes):
                said = f"the page would say {reading.peak_bytes}, the estimate {found.requested_bytes}"
                raise UnsupportedError(f"{self.graph.name}: {said}; please report it")
        return model

    def _table(self, kernel: Opaque, where: Sequence[int]) -> dict[str, Any]:
        table = kernel_table(kernel, [tuple(self.settings[i].values()) for i in where], self.symbols)
        codes = [0] * len(self.settings)
        for i, code in zip(where, table.codes.tolist(), strict=True):
            codes[i] = code
        return {"op": kernel.op, "entries": [n for entry in table.entries for n in entry], "codes": codes}


def _replayed(found: Estimate) -> str:
    """Where an allocator is played, its figures at the sizes a page opens with, in a sentence; else nothing."""
    if not found.replays:
        return ""
    figures = [(name, getattr(found, name)) for name in ("allocated", "reserved", "process")]
    said = ", ".join(f"{name} {f.bytes:,}{'' if f.claim == 'exact' else f' (modelled: {f.low:,} to {f.high:,})'}" for name, f in figures)
    how = f"{found.mode}, {found.optimizer}" if found.optimizer else found.mode
    at = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in found.input_shapes.items())
    return f"By replay of the allocator, bytes of {how}, {found.dtype}, {at}: {said}."


class _Index(dict[Any, int]):
    """Things numbered in the order they are first asked for."""

    def __missing__(self, key: Any) -> int:
        self[key] = len(self)
        return self[key]


def tree(e: int | Expr) -> Any:
    """An expression as plain data: a number, a symbol's name, or [operator, left, right]."""
    if isinstance(e, Expr):
        return e.args[0] if e.op == "symbol" else [e.op, *(tree(a) for a in e.args)]
    return int.__int__(e) if isinstance(e, Dim) else e


def _largest(data: Mapping[str, Any], terms: Sequence[Expr], largest: Mapping[str, int]) -> int:
    """A number that nothing computed in the page exceeds: all that is resident or ever allocated in one step, added up."""
    bounds = [magnitude(t, largest) for t in terms]
    forms = [abs(f[0]) + sum(abs(c) * bounds[t] for c, t in zip(f[1::2], f[2::2], strict=True)) for f in data["forms"]]
    kernels = [max(k["entries"][0::3], default=0) for k in data["kernels"]]

    def total(numbers: Iterable[int]) -> int:
        return sum(forms[n] if n >= 0 else kernels[-1 - n] for n in numbers)

    made = [total(s["made"][0::3]) for s in data["segments"]]
    totals = [total(r[0] for r in p["residents"]) + sum(made[s] for s in p["segments"]) for p in data["programs"]]
    most: int = max([0, *bounds, *forms, *totals])
    return most
