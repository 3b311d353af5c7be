"""Reading a row: run its ``forward`` or ``backward`` on metadata and keep the trace.

Traces depend on metadata alone, so they are remembered: the fifty equal blocks of a network cost one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from memest.machines.target import Target
from memest.network.tensor import Spec
from memest.ops.operator import Operator
from memest.ops.tape import Tape, Tensor, Trace
from memest.sizes.dims import Dim
from memest.sizes.remembering import kept

Arguments = tuple[Spec | tuple[Spec, ...] | None, ...]
Items = tuple[tuple[str, Any], ...]
Kinds = tuple[type, ...]
TRACES = 4_096
LEAVES = frozenset({int, str, bool, float, type, type(None)})


def kinds_of(attributes: Items) -> Kinds:
    """The types of attribute values: 2 and 2.0 are equal keys, and different ones to torch."""
    return tuple([type(value) for _, value in attributes])


def flattened(arguments: Any) -> tuple[list[Any], Arguments]:
    """The tensors of a call's arguments (tensors, lists of them, None) in their order, and the specs, grouped as the arguments are."""
    flat: list[Any] = []
    specs: list[Spec | tuple[Spec, ...] | None] = []
    for a in arguments:
        if a is None:
            specs.append(None)
        elif isinstance(a, (list, tuple)):
            flat.extend(a)
            specs.append(tuple([t.spec for t in a]))
        else:
            flat.append(a)
            specs.append(a.spec)
    return flat, tuple(specs)


def for_symbols(reader: Any) -> Callable[..., Trace]:
    """``reader`` (:func:`forward` or :func:`backward`) for symbolic sizes: traces are remembered by their expressions, as long as what is
    returned here is. The comparisons that a trace rests on are recorded the first time."""
    known: dict[Any, Trace] = {}
    keys: dict[int, tuple[Any, Any]] = {}
    ones: dict[Any, object] = {}
    read = reader.__wrapped__

    def key_of(value: Any) -> Any:
        """``value`` with expressions for the ``Dim``s in it; one object for equal specs, which are met again and again."""
        kind = type(value)
        if kind is Spec:
            found = keys.get(id(value))
            if found is None:
                shape, strides, dtype = value
                written = tuple(map(key_of, shape)), tuple(map(key_of, strides)), dtype
                found = keys[id(value)] = value, ones.setdefault(written, object())
            return found[1]
        if kind is tuple:
            return tuple([v if type(v) in LEAVES else key_of(v) for v in value])
        return value.expr if kind is Dim else value

    def remembering(*arguments: Any) -> Trace:
        key = key_of(arguments)
        found = known.get(key)
        if found is None:
            found = known[key] = read(*arguments)
        return found

    return remembering


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
