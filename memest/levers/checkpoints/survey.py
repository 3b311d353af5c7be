"""A survey of the plain step: what every layer costs, keeps, needs for a moment, reads and writes. The ground a search stands on.

Of a step of several passes (accumulated gradients, micro-batches) the one with the peak is surveyed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from memest.machines.target import Target
from memest.memory.stream import Storage
from memest.network.graph import Graph
from memest.network.tensor import Shape
from memest.ops.operator import Operator
from memest.ops.tape import Trace
from memest.runtimes.table import runtime_named
from memest.runtimes.torch.autograd import Items, Machine, Node, Part, kernel_ran, last_save
from memest.runtimes.torch.ledger import Ledger, Value
from memest.runtimes.torch.step.playing import finish, hooks_of
from memest.runtimes.torch.step.recipe import Recipe
from memest.runtimes.torch.step.run import Run


@dataclass(frozen=True)
class Survey:
    """Facts by number of layer. Sets of storages are bit masks over ``sizes``; resident ones have size 0."""

    graph: Graph
    flops: tuple[int, ...]
    until_saved: tuple[int | None, ...]  # operations up to its last saved tensor: where a recomputation ends; None when it saves nothing
    carried: int  # bytes that earlier passes leave (their gradients); all others are above them
    sizes: tuple[int, ...]
    holders: Mapping[str, int]  # a value's storage, as a mask
    saved: tuple[int, ...]  # what its nodes keep for backward
    written: Mapping[int, int]  # the last layer that writes into a storage in place
    rise: tuple[int, ...]  # the most bytes above those there when its forward began
    fall: tuple[int, ...]  # the most bytes in its backward above what the layers up to it keep
    arriving: tuple[int, ...]  # bytes above that when its backward begins

    def nbytes(self, mask: int) -> int:
        """Bytes of a set of storages."""
        return weigh(mask, self.sizes)

    def reads_from(self, start: int) -> dict[str, int]:
        """The values made before layer ``start`` and read from there on, with the first layer that does so."""
        made = {name for layer in self.graph.layers[:start] for name in layer.outputs} | {i.name for i in self.graph.inputs}
        found: dict[str, int] = {}
        for i, layer in enumerate(self.graph.layers[start:], start):
            for name in layer.reads:
                if name in made:
                    found.setdefault(name, i)
        return found

    @cached_property
    def crossing(self) -> tuple[int, ...]:
        """Before each layer, and after the last: the storages that were made before and are read later."""
        last: dict[str, int] = {name: len(self.graph.layers) for name in self.graph.outputs}
        for i, layer in enumerate(self.graph.layers):
            last.update((name, max(i, last.get(name, i))) for name in layer.reads)
        found = [0]
        alive: set[str] = {i.name for i in self.graph.inputs}
        for i, layer in enumerate(self.graph.layers):
            alive.update(layer.outputs)
            alive = {name for name in alive if last.get(name, -1) > i}
            found.append(self._mask(tuple(alive)))
        return tuple(found)

    def may_begin(self, start: int) -> bool:
        """False when a later layer writes into what a segment from here on may have as an argument (torch refuses that)."""
        mask = self.crossing[start] if start else self._mask(tuple(i.name for i in self.graph.inputs))
        return all(self.written.get(bit, -1) < start for bit in _bits(mask))

    def _mask(self, names: tuple[str, ...]) -> int:
        mask = 0
        for name in names:
            mask |= self.holders.get(name, 0)
        return mask


def survey(graph: Graph, shapes: Mapping[str, Shape], sizes: Mapping[str, int], recipe: Recipe) -> Survey:
    """Play the plain step once and write down what it does."""
    return _Surveyor(graph, shapes, sizes, recipe).report()


def weigh(mask: int, sizes: Sequence[int]) -> int:
    """The sum of the sizes whose bits are set."""
    total = 0
    while mask:
        low = mask & -mask
        total += sizes[low.bit_length() - 1]
        mask ^= low
    return total


def _bits(mask: int) -> list[int]:
    return [i for i in range(mask.bit_length()) if mask >> i & 1]


class _Counter(Machine):
    """A machine that counts operations, and what nodes keep."""

    def __init__(self, ledger: Ledger, training: bool, target: Target, *, remember: bool = True) -> None:
        super().__init__(ledger, training, target, remember=remember)
        self.operations = 0
        self.kept: list[Storage] = []
        self.until_saved: int | None = None
        self._saves_last = False

    def start(self) -> None:
        """Another layer begins."""
        self.operations, self.kept, self.until_saved = 0, [], None

    def call(self, row: Operator, arguments: list[Value | list[Value] | None], attributes: Items, grad: bool) -> list[Value | None]:
        """The call, counted."""
        inputs = [v.shape for a in arguments if a is not None for v in (a if isinstance(a, list) else [a])]
        self._saves_last = False
        outputs = super().call(row, arguments, attributes, grad)
        made = [v.shape for v in outputs if v is not None and v.base is None]
        assert row.facts.flops is not None, "a machine calls rows, no composites"
        self.operations += row.facts.flops(inputs, made, dict(attributes))
        if self._saves_last:
            self.until_saved = self.operations
        return outputs

    def save(self, node: Node, trace: Trace, storages: list[Storage], parts: list[Part]) -> None:
        """What a call keeps, written down."""
        super().save(node, trace, storages, parts)
        cut = last_save(trace)
        if cut is not None:
            self.until_saved = self.operations
            self._saves_last = kernel_ran(trace, cut)
        self.kept.extend(s for s in node.saved.storages if s is not None)


class _Notes:
    """What each layer of one pass did, in order."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.flops: list[int] = []
        self.until_saved: list[int | None] = []
        self.saved: list[int] = []


class _Surveyor(Run):
    """A run that takes notes between layers."""

    kind_of_machine = _Counter
    machine: _Counter

    def __init__(self, graph: Graph, input_shapes: Mapping[str, Shape], sizes: Mapping[str, int], recipe: Recipe) -> None:
        rows = runtime_named(recipe.target.runtime).rows
        super().__init__(graph, input_shapes, sizes, recipe, rows, hooks_of(recipe.parallel), remember=True)
        self._resident = {storage.id for storage in self.ledger.residents}
        self._bits: dict[int, int] = {}
        self._sizes: list[int] = []
        self._written: dict[int, int] = {}
        self._holders = {name: self._bit(v.storage) for name, v in self.env.items()}
        self._passes: list[_Notes] = []

    def begin_pass(self) -> None:
        """Another pass."""
        self._passes.append(_Notes())
        super().begin_pass()

    def play_layers(self, start: int, end: int, env: dict[str, Value]) -> None:
        """Layer by layer, with what each of them did."""
        machine, notes = self.machine, self._passes[-1]
        for i in range(start, end):
            layer = self.graph.layers[i]
            read = [(v.storage, v.version, v.version.count) for v in map(env.get, layer.reads) if v is not None]
            machine.start()
            notes.starts.append(len(self.ledger.events))
            super().play_layers(i, i + 1, env)
            self._holders.update((name, self._bit(env[name].storage)) for name in layer.outputs if name in env)
            notes.flops.append(machine.operations)
            notes.until_saved.append(machine.until_saved)
            notes.saved.append(self._mask(machine.kept))
            for storage, version, count in read:
                if version.count != count:
                    self._written[self._bit(storage)] = i

    def report(self) -> Survey:
        """The step played, and what was seen."""
        steps = finish(self).events
        totals = list(accumulate((s.delta for s in steps), initial=0))  # totals[i]: before event i
        highest = totals.index(max(totals))
        notes = next((n for n in reversed(self._passes) if n.starts[0] <= highest), self._passes[0])
        begin, end = notes.starts[0], next((n.starts[0] for n in self._passes if n.starts[0] > notes.starts[0]), len(steps))
        carried, steps = totals[begin], steps[begin:end]
        totals = [total - carried for total in totals[begin : end + 1]]
        starts = [start - begin for start in notes.starts]
        ends = [*starts[1:], next((i for i, s in enumerate(steps) if s.phase != "forward"), len(steps))]
        rise = tuple(max(totals[a : b + 1]) - totals[a] for a, b in zip(starts, ends, strict=True))
        number = {layer.name: i for i, layer in enumerate(self.graph.layers)}
        first: dict[int, int] = {}
        most: dict[int, int] = {}
        for e, step in enumerate(steps):
            i = number.get(step.layer)
            if step.phase == "backward" and i is not None:
                first.setdefault(i, totals[e])
                most[i] = max(most.get(i, 0), totals[e], totals[e + 1])
        kept, below = 0, []
        for mask in notes.saved:
            kept |= mask
            below.append(kept)
        sizes = tuple(self._sizes)
        base = [weigh(mask, sizes) for mask in below]
        return Survey(
            graph=self.graph,
            flops=tuple(notes.flops),
            until_saved=tuple(notes.until_saved),
            carried=carried,
            sizes=sizes,
            holders={name: 1 << bit for name, bit in self._holders.items()},
            saved=tuple(notes.saved),
            written=self._written,
            rise=rise,
            fall=tuple(max(0, most.get(i, b) - b) for i, b in enumerate(base)),
            arriving=tuple(max(0, first.get(i, b) - b) for i, b in enumerate(base)),
        )

    def _bit(self, storage: Storage) -> int:
        """The storage's place in ``sizes``."""
        if storage.id not in self._bits:
            self._bits[storage.id] = len(self._sizes)
            self._sizes.append(0 if storage.id in self._resident else storage.nbytes)
        return self._bits[storage.id]

    def _mask(self, storages: list[Storage]) -> int:
        mask = 0
        for storage in storages:
            mask |= 1 << self._bit(storage)
        return mask
