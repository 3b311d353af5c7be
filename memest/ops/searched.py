"""Sealed kernels: calls whose inner events no formula tells, because a library chooses its kernels by searching.

With plain sizes a sealed kernel is played event by event, like any other. With symbolic sizes only what outlives the call and the most
bytes the call holds at one moment are written down; that number is an :class:`InnerPeak`, a function of the sizes that plays the kernel
wherever it is asked. So a compiled step holds whatever the library chooses, and no condition on its choice has to be kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memest.machines.target import Target
from memest.network.tensor import Shape, Spec, channels_last_strides, contiguous_strides, is_channels_last, is_contiguous
from memest.ops.tape import Tape, Tensor, Trace
from memest.sizes.choices import greatest
from memest.sizes.dims import Dim, Expr, Opaque, contains_dim, expression, plain, recording
from memest.sizes.remembering import kept

Kernel = Callable[..., Any]
Bound = Callable[..., Any]
REMEMBERED = 8_192
ASKED_LATER = 1  # bytes that stand for what a kernel holds while a step is compiled


@dataclass(frozen=True, slots=True)
class Size:
    """Stands where a symbolic size stood."""

    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InnerPeak:
    """The most bytes that ``kernel`` holds at one moment beyond its operands, as a function of its symbolic sizes. ``operands`` and
    ``attributes`` are those of the call, with a :class:`Size` for each symbolic one."""

    kernel: Kernel
    bound: Bound
    operands: tuple[Any, ...]
    attributes: tuple[tuple[str, Any], ...]
    needs: tuple[bool, ...]
    training: bool
    target: Target

    def __call__(self, *sizes: int) -> int:
        """Bytes at these sizes."""
        return _inner_peak(self, sizes)

    def most(self, *sizes: Any) -> tuple[Any, ...]:
        """Numbers of bytes of which it does not exceed the greatest at these sizes (ints or symbols), without playing the kernel."""
        operands, attributes = self._filled(sizes)
        most: tuple[Any, ...] = self.bound(self.target.machine, *(None if o is None else Spec(*o) for o in operands), **attributes)
        return most

    def play(self, sizes: Sequence[Any]) -> Any:
        """Bytes at these sizes, played anew; sizes may be anything that counts like ints."""
        alive: dict[int, Any] = {}
        running = highest = 0
        for slot, nbytes, _, keep, _, tried, _ in self.trace(sizes).events:
            if keep or tried is not None:  # stands beside the call, which has said so itself; is of a first step, which is played
                continue
            if isinstance(nbytes, int) and nbytes < 0:
                running = running - alive.pop(slot)
            else:
                alive[slot] = nbytes
                running = running + nbytes
                highest = greatest(highest, running)
        return highest

    def trace(self, sizes: Sequence[Any]) -> Trace:
        """The call at these sizes, event by event."""
        tape, tensors, result = self._played(sizes)
        return tape.finish(tensors, result)

    def closed(self, sizes: Sequence[Any]) -> tuple[Trace, list[int]] | None:
        """The same, and the slots of what it returns (-1: None); None where it leaves tensors behind that go when the row around it ends,
        or gives one twice."""
        tape, tensors, result = self._played(sizes)
        given = [-1 if t is None else t.slot for t in result]
        if tape.alive != {slot for slot in given if slot >= 0} or len(tape.alive) < sum(slot >= 0 for slot in given):
            return None
        return tape.finish(tensors, result), given

    def _played(self, sizes: Sequence[Any]) -> tuple[Tape, list[Tensor | None], list[Tensor | None]]:
        operands, attributes = self._filled(sizes)
        tensors = _on_tape(operands)
        tape = Tape(len(tensors), self.needs, self.training, self.target)
        result = self.kernel(tape, *tensors, **attributes)
        return tape, tensors, result if isinstance(result, list) else [result]

    def _filled(self, sizes: Sequence[Any]) -> tuple[list[tuple[Any, ...] | None], dict[str, Any]]:
        operands, attributes = (fill(sizes) for fill in (filler(self.operands), filler(self.attributes)))
        return list(operands), dict(attributes)


@kept(REMEMBERED)
def _inner_peak(peak: InnerPeak, sizes: tuple[int, ...]) -> int:
    found: int = peak.play(sizes)
    return found


def sealed(k: Tape, name: str, kernel: Kernel, bound: Bound, operands: Sequence[Tensor | None], **attributes: Any) -> Any:
    """What ``kernel(k, *operands, **attributes)`` returns: a tensor, or a list of tensors and Nones. Its outputs are new tensors, whose
    metadata and storage do not depend on the library's choice (where they depend on sizes, the caller records how);
    ``bound(machine, *specs, **attributes)`` never falls short of the bytes it holds."""
    specs = tuple(None if t is None else tuple(t.spec) for t in operands)
    given = tuple(attributes.items())
    if not contains_dim((specs, given)):
        return kernel(k, *operands, **attributes)
    sizes: dict[Expr, int] = {}
    peak = InnerPeak(
        kernel=kernel,
        bound=bound,
        operands=emptied(specs, sizes),
        attributes=emptied(given, sizes),
        needs=k.needs,
        training=k.training,
        target=k.target,
    )
    k.free(k.scratch(Dim(ASKED_LATER, Opaque(name, peak, tuple(sizes)))))
    with recording(None):
        tape, tensors = Tape(len(operands), k.needs, k.training, k.target), _on_tape(specs)
        result = kernel(tape, *tensors, **attributes)
        storages: dict[int, int] = {}
        for slot, nbytes, _, keep, *_ in tape.finish(tensors, result if isinstance(result, list) else [result]).events:
            storages.setdefault(slot, nbytes)
            if keep:
                k.keep(keep, plain(nbytes))
    return [_outlives(k, t, storages) for t in result] if isinstance(result, list) else _outlives(k, result, storages)


def _on_tape(specs: Iterable[tuple[Any, ...] | None]) -> list[Tensor | None]:
    """The operands as tensors of a tape of their own."""
    return [None if s is None else Tensor(s[0], s[1], s[2], i) for i, s in enumerate(specs)]


def _outlives(k: Tape, t: Tensor | None, storages: Mapping[int, int]) -> Tensor | None:
    """A new tensor like ``t``, in as large a storage. Strides that follow from its shape are written as they do; where one channel or
    one pixel makes formats alike, they are told apart by what the strides are, as torch does."""
    if t is None:
        return None
    with recording(None):
        held = storages.get(t.slot, 0) // t.itemsize
        larger = held > t.numel
        strides: Shape | None = t.strides
        if _are(t.strides, contiguous_strides(t.shape)):
            strides = None
        elif t.ndim in (4, 5) and _are(t.strides, channels_last_strides(t.shape)):
            strides = channels_last_strides(t.shape)
        elif is_contiguous(t.shape, t.strides):
            strides = None
        elif is_channels_last(t.shape, t.strides):
            strides = channels_last_strides(t.shape)
    if larger:
        return k.alias(k.empty((held,), t.dtype), t.shape, strides)
    return k.empty(t.shape, t.dtype, strides)


def _are(strides: Shape, others: Shape) -> bool:
    """Whether strides are these whatever the sizes."""
    return all(expression(a) == expression(b) for a, b in zip(strides, others, strict=True))


def emptied(value: Any, sizes: dict[Expr, int]) -> Any:
    """``value`` with a :class:`Size` for each symbolic size; ``sizes`` collects them with their numbers at hand."""
    if isinstance(value, tuple):
        return tuple(emptied(v, sizes) for v in value)
    if isinstance(value, Dim):
        sizes.setdefault(value.expr, plain(value))
        return Size(list(sizes).index(value.expr))
    return value


@kept(REMEMBERED)
def filler(value: Any) -> Callable[[Sequence[Any]], Any]:
    """Puts sizes where ``value`` has a :class:`Size`; what has none is left as it is."""
    if isinstance(value, Size):
        number = value.number
        return lambda sizes: sizes[number]
    if not _is_open(value):
        return lambda sizes: value
    parts = [filler(v) for v in value]
    return lambda sizes: tuple([part(sizes) for part in parts])


def _is_open(value: Any) -> bool:
    return any(map(_is_open, value)) if isinstance(value, tuple) else isinstance(value, Size)
