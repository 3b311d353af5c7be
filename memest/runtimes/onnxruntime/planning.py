"""Which buffer each tensor takes, and what a run asks of its allocator for that.

Source: onnxruntime/core/framework/allocation_planner.cc (``ComputeReusePlan``, ``FindReusableInput``, ``FindReusableTensor``): by counting
readers; a kernel that works in place takes over an input that dies with it; else the first buffer of the free list, last freed first, of
the identical shape and element size (scalars never); else a new one. What the caller gets is apart, and never taken again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from memest.memory.planners.blocks import aligned
from memest.network.dtypes import ITEMSIZE
from memest.network.tensor import same_shape
from memest.runtimes.onnxruntime.kernels import aliased, in_place
from memest.runtimes.onnxruntime.lowering.nodes import Net, Node, Value

ALIGNMENT = 64  # bytes: kAllocAlignment of onnxruntime/core/framework/allocator.h


class Buffer:
    """Bytes that tensors take one after the other: made at step ``first`` by its ``owner``, given back after step ``last`` (None: never
    during the run). ``traced``: it is part of the memory pattern; what the caller gets is not."""

    __slots__ = ("first", "last", "nbytes", "owner", "traced", "uses")

    def __init__(self, owner: Value, first: int, traced: bool) -> None:
        self.owner, self.first, self.traced = owner, first, traced
        self.nbytes = aligned(owner.nbytes, ALIGNMENT)
        self.last: int | None = None
        self.uses = 0


class Plan(NamedTuple):
    """The nodes in order, and for each the buffers that are made when it runs."""

    order: Sequence[Node]
    made: Sequence[Sequence[Buffer]]
    buffers: Sequence[Buffer]


def planned(net: Net) -> Plan:
    """The buffers of a network."""
    order = net.order()
    owner: dict[Value, Buffer] = {}
    fixed: set[Value] = set()  # weights and inputs: there before the run, and after it
    free: list[Buffer] = []
    made: list[list[Buffer]] = []
    for step, node in enumerate(order):
        fresh: list[Buffer] = []
        for slot, value in enumerate(node.outputs):
            found = None if value.given_back else _of_input(node, slot, owner)
            if found is None and not value.given_back and _is_fixed_alias(node, slot, owner, fixed):
                fixed.add(value)
                continue
            if found is None and not value.given_back:
                found = _of_free(value, free)
            if found is None:
                found = Buffer(value, step, not value.given_back)
                fresh.append(found)
            owner[value] = found
            found.uses += value.uses
        made.append(fresh)
        for value in [*node.reads, *(v for v in node.outputs if not v.uses)]:
            buffer = owner.get(value)
            if buffer is None:
                continue
            buffer.uses -= 1 if value.uses else 0
            if buffer.uses == 0:
                buffer.last = step
                free.insert(0, buffer)
    return Plan(order, made, [b for fresh in made for b in fresh])


def _of_input(node: Node, slot: int, owner: dict[Value, Buffer]) -> Buffer | None:
    """The buffer of an input that this output must share, or may take over."""
    for read, written in aliased(node):
        if written == slot:
            source = node.inputs[read]
            return None if source is None else owner.get(source)
    for read, written in in_place(node):
        source = node.inputs[read] if read < len(node.inputs) else None
        if written == slot and source is not None and source in owner and owner[source].uses == 1 and _alike(source, node.outputs[slot]):
            return owner[source]
    return None


def _is_fixed_alias(node: Node, slot: int, owner: dict[Value, Buffer], fixed: set[Value]) -> bool:
    """Whether an output is another shape of what stands anyway."""
    shared = [node.inputs[read] for read, written in aliased(node) if written == slot]
    return any(v is not None and v not in owner and (v.maker is None or v in fixed) for v in shared)


def _of_free(value: Value, free: list[Buffer]) -> Buffer | None:
    if not value.shape:
        return None
    for n, buffer in enumerate(free):
        if _alike(buffer.owner, value):
            return free.pop(n)
    return None


def _alike(a: Value, b: Value) -> bool:
    return ITEMSIZE[a.dtype] == ITEMSIZE[b.dtype] and same_shape(a.shape, b.shape)
