"""Reading a row: run its ``forward`` or ``backward`` on metadata and keep the trace.

Traces depend on metadata alone, so they are remembered: the fifty equal blocks of a network cost one.
"""

from __future__ import annotations

from typing import Any

from memest.machines.target import Target
from memest.network.tensor import Spec
from memest.ops.operator import Operator
from memest.ops.tape import Tape, Tensor, Trace
from memest.sizes.remembering import kept

Arguments = tuple[Spec | tuple[Spec, ...] | None, ...]
Items = tuple[tuple[str, Any], ...]
Kinds = tuple[type, ...]
TRACES = 4_096


def kinds_of(attributes: Items) -> Kinds:
    """The types of attribute values: 2 and 2.0 are equal keys, and different numbers to torch."""
    return tuple([type(value) for _, value in attributes])


@kept(TRACES)
def forward(
    row: Operator,
    arguments: Arguments,
    attributes: Items,
    needs: tuple[bool, ...],
    training: bool,
    target: Target,
    kinds: Kinds,
) -> Trace:
    """The trace of a forward call. ``needs`` is flat, one entry a tensor (absent ones have none)."""
    flat: list[Tensor] = []
    call: list[Any] = []
    for a in arguments:
        if a is None:
            call.append(None)
        elif isinstance(a, Spec):
            flat.append(Tensor(a.shape, a.strides, a.dtype, len(flat)))
            call.append(flat[-1])
        else:
            group = [Tensor(s.shape, s.strides, s.dtype, len(flat) + i) for i, s in enumerate(a)]
            flat.extend(group)
            call.append(group)
    tape = Tape(len(flat), needs if row.backward is not None else (False,) * len(flat), training, target)
    result = row.forward(tape, *call, **dict(attributes))
    outputs = result if isinstance(result, tuple) else (result,)
    return tape.finish(flat, outputs)


@kept(TRACES)
def backward(
    row: Operator,
    saved: tuple[tuple[str, Spec], ...],
    notes: Items,
    grads: tuple[Spec | None, ...],
    attributes: Items,
    needs: tuple[bool, ...],
    training: bool,
    target: Target,
    kinds: Kinds,
) -> Trace:
    """The trace of a node's backward: slots are the saved tensors, then the defined gradients."""
    assert row.backward is not None
    flat: list[Tensor] = []
    kept: dict[str, Any] = dict(notes)
    for role, s in saved:
        flat.append(Tensor(s.shape, s.strides, s.dtype, len(flat)))
        kept[role] = flat[-1]
    incoming: list[Tensor | None] = []
    for g in grads:
        if g is None:
            incoming.append(None)
        else:
            flat.append(Tensor(g.shape, g.strides, g.dtype, len(flat)))
            incoming.append(flat[-1])
    tape = Tape(len(flat), needs, training, target)
    result = row.backward(tape, kept, incoming, **dict(attributes))
    return tape.finish(flat, tuple(g if n else None for g, n in zip(result, needs, strict=True)))
