"""Recurrent layers over packed sequences, whose lengths differ: the steps of all, one after the other, each as wide as sequences last.

Lengths are values; here they stand as ``batch_sizes``, how many sequences have a first step, a second one, and so on.
Sources: aten/src/ATen/native/PackedSequence.cpp; aten/src/ATen/native/RNN.cpp (``PackedLayer``, ``ReversedPackedLayer``,
``PackedBidirectionalLayer``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from memest.errors import ShapeError, UnsupportedError
from memest.ops.aten.copies import cat, contiguous
from memest.ops.composite import Caller, refuse_on_cuda
from memest.ops.families.recurrent.cells import Hidden, Step, Weights, gathered, parts, times
from memest.ops.families.recurrent.layers import is_onednn, layered, lstm, trains
from memest.ops.tape import Tape, Tensor

Saved = dict[str, Any]


def runs(batch_sizes: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Steps that are as wide: from which to which, and how wide."""
    begin = 0
    for i in range(1, len(batch_sizes) + 1):
        if i == len(batch_sizes) or batch_sizes[i] != batch_sizes[begin]:
            yield begin, i, batch_sizes[begin]
            begin = i


def _in_time(k: Tape, t: Tensor, batch_first: bool) -> Tensor:
    """Steps first."""
    if not batch_first:
        return t
    (batch, steps, *rest), (by_batch, by_step, *others) = t.shape, t.strides
    return k.view(t, (steps, batch, *rest), (by_step, by_batch, *others))


def pack(k: Tape, input: Tensor, lengths: Tensor, *, batch_first: bool, batch_sizes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """``_pack_padded_sequence``: a part for each stretch of steps that are as wide, copied where it does not lie so, all joined."""
    sequence = _in_time(k, input, batch_first)
    if not batch_sizes or batch_sizes[0] != sequence.shape[1]:
        first = batch_sizes[0] if batch_sizes else 0
        raise ShapeError(f"{first} lengths of sequences for a batch of {sequence.shape[1]}")
    if len(batch_sizes) > sequence.shape[0]:
        raise ShapeError(f"a sequence of {len(batch_sizes)} steps in a tensor of {sequence.shape[0]}")
    sizes = k.empty((len(batch_sizes),), "int64")
    steps, made = [], []
    for begin, end, width in runs(batch_sizes):
        part = k.view(sequence, (end - begin, width, *sequence.shape[2:]), sequence.strides)
        dense = contiguous(k, part)
        made += [] if dense is part else [dense]
        steps.append(k.alias(dense, ((end - begin) * width, *sequence.shape[2:])))
    out = cat(k, steps, 0)
    k.free(*made)
    k.note(sizes=input.shape)
    k.save(batch_sizes=sizes)
    return out, sizes


def pack_backward(
    k: Tape, saved: Saved, grads: Sequence[Tensor | None], *, batch_first: bool, batch_sizes: tuple[int, ...]
) -> list[Tensor | None]:
    """Zeros, steps first, into which every step is copied."""
    sizes = saved["sizes"]
    one, two, *rest = sizes
    grad = grads[0]
    assert grad is not None
    out = k.empty((two, one, *rest) if batch_first else sizes, grad.dtype)
    return [_in_time(k, out, batch_first), None]


def _slice(c: Caller, hidden: Hidden, start: int, end: int) -> Hidden:
    """Of each kind of state, the last first."""
    return tuple([c.call("narrow", h, dim=0, start=start, length=end - start) for h in reversed(hidden)][::-1])


def _concat(c: Caller, hiddens: Sequence[Hidden]) -> Hidden:
    """Each kind of state by itself, the last first."""
    return tuple([c.call("cat", list(states), dim=0) for states in reversed(list(zip(*hiddens, strict=True)))][::-1])


def _there(c: Caller, step: Step, input: Any, hidden: Hidden, weights: Weights, batch_sizes: Sequence[int]) -> tuple[Any, Hidden]:
    """``PackedLayer``: sequences that end leave their state behind."""
    products = times(c, input, weights.ih, weights.bias_ih)
    outputs: list[Any] = []
    left: list[Hidden] = []
    given, at, last = hidden, 0, batch_sizes[0]
    for size in batch_sizes:
        one = c.call("narrow", products, dim=0, start=at, length=size)
        at = at + size
        if size < last:
            left.append(_slice(c, hidden, size, last))
            before, hidden = hidden, _slice(c, hidden, 0, size)
            _let_go(c, before, given, outputs)
        last = size
        before, hidden = hidden, step(c, one, hidden, weights, True)
        _let_go(c, before, given, outputs)
        outputs.append(hidden[0])
        c.drop(one)
    left.append(hidden)
    joined = c.call("cat", outputs, dim=0)
    final = _concat(c, left[::-1])
    for states in left:
        _let_go(c, states, given, outputs)
    c.drop(products, *outputs)
    return joined, final


def _let_go(c: Caller, hidden: Hidden, given: Hidden, outputs: list[Any]) -> None:
    """States that nobody needs: not those that the layer was given, nor an output."""
    c.drop(*[h for h in hidden if not any(h is kept for kept in (*given, *outputs))])


def _back(c: Caller, step: Step, input: Any, hidden: Hidden, weights: Weights, batch_sizes: Sequence[int]) -> tuple[Any, Hidden]:
    """``ReversedPackedLayer``: sequences that begin bring their state along."""
    products = times(c, input, weights.ih, weights.bias_ih)
    outputs: list[Any] = []
    given, last = hidden, batch_sizes[-1]
    at: Any = sum(batch_sizes[1:], batch_sizes[0])
    hidden = _slice(c, given, 0, last)
    for size in reversed(batch_sizes):
        if size > last:
            more = _slice(c, given, last, size)
            before, hidden = hidden, _concat(c, (hidden, more))
            c.drop(*more)
            _let_go(c, before, given, outputs)
        at = at - size
        one = c.call("narrow", products, dim=0, start=at, length=size)
        last = size
        before, hidden = hidden, step(c, one, hidden, weights, True)
        _let_go(c, before, given, outputs)
        outputs.append(hidden[0])
        c.drop(one)
    joined = c.call("cat", outputs[::-1], dim=0)
    c.drop(products, *outputs[:-1])
    return joined, hidden


def _ways(batch_sizes: Sequence[int]) -> Any:
    """One direction, and both."""

    def one_way(c: Caller, step: Step, input: Any, hidden: Hidden, weights: Weights) -> tuple[Any, Hidden]:
        return _there(c, step, input, hidden, weights, batch_sizes)

    def both_ways(c: Caller, step: Step, input: Any, hiddens: Sequence[Hidden], weights: Sequence[Weights]) -> tuple[Any, list[Hidden]]:
        one, last = _there(c, step, input, hiddens[0], weights[0], batch_sizes)
        other, first = _back(c, step, input, hiddens[1], weights[1], batch_sizes)
        joined = c.call("cat", [one, other], dim=-1)
        c.drop(one, other)
        return joined, [last, first]

    return one_way, both_ways


EVEN_SINCE, NOT_BEFORE = (2, 13), (2, 11)
"""Torches that run sequences of one length as the padded one does: seen in 2.13 and 2.14, and not in 2.11."""


def _is_even(c: Caller, batch_sizes: Sequence[int]) -> bool:
    """Whether sequences are all as long, and torch makes something of that."""
    if c.target.version <= NOT_BEFORE or any(n != batch_sizes[0] for n in batch_sizes):
        return False
    if c.target.version < EVEN_SINCE:
        raise UnsupportedError("an LSTM over packed sequences of one length is not modelled for torch 2.12; ask for another version")
    return True


def _even(
    c: Caller, input: Any, states: Sequence[Any], params: list[Any], batch_sizes: Sequence[int], given: dict[str, Any]
) -> tuple[Any, ...]:
    """Of an LSTM all of whose sequences are as long: the padded one."""
    steps, batch = len(batch_sizes), batch_sizes[0]
    sequence = c.call("reshape", input, shape=(steps, batch, input.shape[-1]))
    output, *ends = lstm(c, sequence, states[0], states[1], params, **given, batch_first=False)
    flat = c.call("reshape", output, shape=(steps * batch, output.shape[-1]))
    c.drop(output, sequence)
    return flat, *ends


def network(cell: str) -> Any:
    """A network of such layers over packed steps; an LSTM runs step by step, too."""

    def run(c: Caller, input: Any, states: Sequence[Any], params: list[Any], batch_sizes: tuple[int, ...], **given: Any) -> tuple[Any, ...]:
        refuse_on_cuda(c, "a recurrent layer")
        directions = 2 if given["bidirectional"] else 1
        if len(input.shape) != 2 or any(s.shape[0] != given["num_layers"] * directions for s in states):
            raise ShapeError(f"{cell} over packed steps {list(input.shape)} with states {list(states[0].shape)}")
        projected = len(states) == 2 and states[0].shape[2] != states[1].shape[2]
        weights = gathered(params, given["has_biases"], projected, given["num_layers"] * directions)
        if len(states) == 2 and not projected and is_onednn(c, input, weights[0]) and _is_even(c, batch_sizes):
            return _even(c, input, states, params, batch_sizes, given)
        hiddens: list[Hidden] = list(zip(*(parts(c.call("unbind", s, dim=0)) for s in states), strict=True))
        trained = trains(c, given["training"])
        output, finals = layered(c, cell, input, hiddens, weights, given["dropout"], trained, directions, _ways(batch_sizes))
        ends = [c.call("stack", list(kind), dim=0) for kind in reversed(list(zip(*finals, strict=True)))][::-1]
        return output, *ends

    def with_cell(c: Caller, input: Any, hx: Any, cx: Any, params: list[Any], **given: Any) -> tuple[Any, ...]:
        return run(c, input, (hx, cx), params, **given)

    def with_state(c: Caller, input: Any, hx: Any, params: list[Any], **given: Any) -> tuple[Any, ...]:
        return run(c, input, (hx,), params, **given)

    return with_cell if cell == "lstm" else with_state
