"""A network's inference call as data flow: operators in order, the values they make, read and write. Values die after their last reader.

It is that of the null runtime: an operator makes its outputs and nothing else. A value is a storage: views of it are the value itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from memest.network.dtypes import FLOATING, ITEMSIZE
from memest.network.tensor import Shape
from memest.ops.facts import NEVER, NONE, POINTWISE, each_element
from memest.ops.reading import flattened
from memest.ops.shapes import Seen
from memest.runtimes.executor import Execution, calls
from memest.runtimes.null import RUNTIME

if TYPE_CHECKING:
    from memest.estimate.estimate import Estimate
    from memest.ops.shapes import Row

MIXES = frozenset({"channel_shuffle", "local_response_norm"})
"""Rows that see a position alone but read several of its channels: they cannot write over what they read."""


OWNED = ("parameter", "buffer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """Bytes of a storage, who made it, and the shape and dtype it was made with."""

    nbytes: int
    layer: str
    shape: Shape
    dtype: str

    def in_bytes(self, itemsize: int) -> Value:
        """The same value with that many bytes an element, where its elements are of a floating type and larger."""
        if self.dtype not in FLOATING or ITEMSIZE[self.dtype] <= itemsize:
            return self
        return replace(self, nbytes=self.nbytes * itemsize // ITEMSIZE[self.dtype])


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A layer: the values it reads, makes and writes over, by number; the operations it comes ``after``; whether each element of what it
    makes depends on the same element of what it reads alone (``elementwise``), or it puts what it reads side by side (``joins``).
    ``over`` are values that it may write its result over where they die: it is elementwise, reads each of them once, whole, and in the
    shape, order and dtype of what it makes."""

    layer: str
    reads: tuple[int, ...]
    makes: tuple[int, ...]
    writes: tuple[int, ...]
    after: tuple[int, ...]
    elementwise: bool
    joins: bool
    over: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """The call. ``inputs`` are there before it, ``outputs`` stay after it."""

    values: tuple[Value, ...]
    operations: tuple[Operation, ...]
    inputs: frozenset[int]
    outputs: frozenset[int]

    def in_bytes(self, itemsize: int) -> Flow:
        """The same with values of so many bytes an element at most, where their elements are of a floating type."""
        return replace(self, values=tuple(v.in_bytes(itemsize) for v in self.values))

    def lives(self, order: Sequence[int] | None = None) -> list[tuple[int, int]]:
        """For each value the operation that makes it and that after its last reader, as places in ``order`` (None: as written)."""
        place = {n: at for at, n in enumerate(range(len(self.operations)) if order is None else order)}
        born, dead = [0] * len(self.values), [1] * len(self.values)
        for n, operation in enumerate(self.operations):
            for v in operation.makes:
                born[v] = place[n]
                dead[v] = max(dead[v], place[n] + 1)
            for v in operation.reads:
                dead[v] = max(dead[v], place[n] + 1)
        for v in self.outputs:
            dead[v] = len(self.operations) + 1
        return list(zip(born, dead, strict=True))


def flow_of(estimate: Estimate) -> Flow:
    """The flow of an inference call."""
    graph = estimate.played
    run = Execution(estimate.recipe.target, RUNTIME.rows, remember=True)
    numbers: dict[int, int] = {}
    values: list[Value] = []
    operations: list[Operation] = []
    makers: dict[str, int] = {}
    touched: dict[int, tuple[int | None, list[int]]] = {}
    named: dict[str, Seen] = {}

    def number(seen: Seen, layer: str) -> int:
        if seen.storage.id not in numbers:
            numbers[seen.storage.id] = len(values)
            values.append(Value(nbytes=seen.storage.nbytes, layer=layer, shape=seen.spec.shape, dtype=seen.spec.dtype))
        return numbers[seen.storage.id]

    inputs: set[int] = set()
    for n, call in enumerate(calls(run, graph, estimate.input_shapes, estimate.sizes)):
        row = RUNTIME.rows[call.layer.op]
        seen = [t for t in flattened(call.tensors)[0] if t.storage.category not in OWNED]
        reads = tuple(dict.fromkeys(number(t, t.storage.layer) for t in seen))
        inputs.update(numbers[t.storage.id] for t in seen if t.storage.category == "input")
        outputs = [o for o in call.outputs if o is not None and o.storage.category not in OWNED]
        made = tuple(dict.fromkeys(number(o, call.layer.name) for o in outputs if o.storage.id not in numbers))
        same = [t for t in seen if any(o is t for o in outputs)] if outputs else seen
        writes = tuple(dict.fromkeys(numbers[t.storage.id] for t in same))
        after = {makers[name] for name in call.layer.reads if name in makers}
        after |= _ordered_after(n, reads, writes, touched)
        operations.append(
            Operation(
                layer=call.layer.name,
                reads=reads,
                makes=made,
                writes=writes,
                after=tuple(sorted(after - {n})),
                elementwise=_elementwise(row),
                joins=row.name == "cat",
                over=_over(row, seen, outputs, numbers),
            )
        )
        makers.update(dict.fromkeys(call.layer.outputs, n))
        named.update((name, o) for name, o in zip(call.layer.outputs, call.outputs, strict=False) if o is not None)
    kept = {numbers[named[name].storage.id] for name in graph.outputs if name in named and named[name].storage.id in numbers}
    return Flow(values=tuple(values), operations=tuple(operations), inputs=frozenset(inputs), outputs=frozenset(kept))


def _ordered_after(n: int, reads: Sequence[int], writes: Sequence[int], touched: dict[int, tuple[int | None, list[int]]]) -> set[int]:
    """The operations that ``n`` comes after because one of the two writes over a value that both touch."""
    found: set[int] = set()
    for v in reads:
        writer, readers = touched.setdefault(v, (None, []))
        found |= {writer} if writer is not None else set()
        if v in writes:
            found |= set(readers)
            touched[v] = n, []
        else:
            readers.append(n)
    return found


def _over(row: Row, seen: Sequence[Seen], outputs: Sequence[Seen], numbers: Mapping[int, int]) -> tuple[int, ...]:
    if not _elementwise(row) or len(outputs) != 1 or any(t.storage is outputs[0].storage for t in seen):
        return ()
    made = outputs[0]
    once = [t for t in seen if sum(t.storage is u.storage for u in seen) == 1]
    return tuple(numbers[t.storage.id] for t in once if t.spec == made.spec and t.storage.nbytes == made.storage.nbytes)


def _elementwise(row: Row) -> bool:
    facts = row.facts
    if facts.reach is not POINTWISE or row.name in MIXES or row.name == "cat":
        return False
    return facts.overwrites is not NEVER or facts.statistics is not NONE or facts.flops in (each_element, None)
