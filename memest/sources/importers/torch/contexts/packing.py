"""Hooks of saved tensors (``torch.autograd.graph.saved_tensors_hooks``, ``save_on_cpu``) while a forward is recorded.

Which tensors a call saves is asked of our own rows; each is given to the hooks as a meta tensor, and what they do is written down with the
call. Hooks around a checkpoint see nothing of what is in it, and those inside see it in the checkpoint's place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import _get_current_function_mode_stack

from memest.errors import UnsupportedError
from memest.memory.stream import Storage
from memest.network.graph import Casting, Items, Layer, Packing
from memest.network.tensor import Spec
from memest.ops.composite import Composite
from memest.ops.operator import Operator
from memest.runtimes.torch.autograd import AccumulateGrad, Keeping, Machine, Part
from memest.runtimes.torch.ledger import Ledger, Value
from memest.runtimes.torch.step import Caller
from memest.sizes.dims import recording
from memest.sources.importers.torch.refusals import defined_at
from memest.sources.importers.torch.tensors.described import leaves, like
from memest.sources.importers.torch.tensors.live import LiveTensors, Tracked
from memest.sources.importers.torch.tensors.numbers import Numbers

Pair = tuple[Callable[[Any], Any], Callable[[Any], Any]]


class Listener(Protocol):
    """What is told of hooks."""

    def begin_packing(self, pair: Pair) -> None:
        """Hooks are in force."""

    def end_packing(self) -> None:
        """Those that came last are no more."""


class Recorder(Protocol):
    """What is asked of the recorder."""

    live: LiveTensors
    machine: Machine
    numbers: Numbers
    checkpoint: str | None
    failure: UnsupportedError | None

    def __enter__(self) -> Any: ...

    def __exit__(self, *_: object) -> None: ...

    @property
    def castings(self) -> tuple[Casting, ...]:
        """What contexts of autocast say here."""

    def apart(self) -> AbstractContextManager[list[Layer]]:
        """Calls that run at another time."""

    def refusal(self, what: str) -> UnsupportedError:
        """The error that says that ``what`` has no rule, with the place."""


@contextmanager
def telling(listener: Callable[[], Listener | None]) -> Iterator[None]:
    """Hooks that are put in force by their context are told to this thread's ``listener`` instead."""
    enter, leave = saved_tensors_hooks.__enter__, saved_tensors_hooks.__exit__

    def entered(self: Any) -> Any:
        told = listener()
        return enter(self) if told is None else told.begin_packing((self.pack_hook, self.unpack_hook))

    def left(self: Any, *error: object) -> Any:
        told = listener()
        return leave(self, *error) if told is None else told.end_packing()

    saved_tensors_hooks.__enter__, saved_tensors_hooks.__exit__ = entered, left
    try:
        yield
    finally:
        saved_tensors_hooks.__enter__, saved_tensors_hooks.__exit__ = enter, leave


class Packings:
    """The hooks in force in one recording, the innermost last; None where a checkpoint stands, which keeps in its own way."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.stack: list[Pair | None] = []
        self._known: dict[tuple[Any, ...], Packing] = {}

    @property
    def pair(self) -> Pair | None:
        """Those that see what is saved here."""
        return self.stack[-1] if self.stack else None

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Calls that run at another time, when these hooks are no more in force."""
        outer, self.stack = self.stack, []
        try:
            yield
        finally:
            self.stack = outer

    def of_call(self, row: Operator | Composite, reads: Sequence[Any], attributes: Items, training: bool) -> tuple[Packing, ...]:
        """What they do with what a call saves for backward."""
        if self.pair is None:
            return ()
        machine = Machine(Ledger(), training, self._recorder.machine.target, remember=False)
        machine.keeping = seen = _Seen()
        values: dict[int, Value] = {}

        def value(entry: Tracked) -> Value:
            found = values.get(id(entry))
            if found is None:
                found = values[id(entry)] = machine.ledger.hold(Value(entry.value.spec, machine.ledger.resident(0, "", "")))
                if entry.grad:
                    found.requires_grad, found.node = True, AccumulateGrad(found, "")
            return found

        given = [None if e is None else [value(t) for t in e] if isinstance(e, list) else value(e) for e in reads]
        known = row.canonical(dict(attributes))
        flags = {k: training if k == "training" and v is None else v for k, v in known.items()}
        caller = Caller(machine, True)
        with caller.inside(self._recorder.castings), recording(None):
            caller.run(row, given, tuple(flags.items()))
        return self.of(seen.specs)

    def of(self, specs: Sequence[Spec]) -> tuple[Packing, ...]:
        """What they do with tensors that are saved."""
        return () if self.pair is None else tuple([self._one(self.pair, spec) for spec in specs])

    def _one(self, pair: Pair, spec: Spec) -> Packing:
        key = (pair, spec.shape, spec.strides, spec.dtype)  # the hooks themselves: others may come to lie where they lay
        with recording(None):
            found = self._known.get(key)
        if found is None:
            found = self._recorded(pair, spec)
            with recording(None):
                self._known[key] = found
        return found

    def _recorded(self, pair: Pair, spec: Spec) -> Packing:
        recorder, live = self._recorder, self._recorder.live
        name = live.take("saved")
        with recorder.apart() as packed, torch.no_grad(), self._seen():
            with recording(None):
                given = like(spec)
            live.follow(given, name, Value(spec, recorder.machine.ledger.resident(0, "", name)), grad=False)
            whole = self._run(pair[0], given)
            kept = tuple(dict.fromkeys([live.known(t).names[-1] for t in leaves(whole)]))
            first = _dying(packed, live, {name, *kept})
            del given
        with recorder.apart() as unpacked, torch.no_grad(), self._seen():
            back = self._run(pair[1], whole)
            if not isinstance(back, torch.Tensor):
                raise recorder.refusal(
                    f"saved_tensors_hooks whose unpack hook gives {type(back).__name__}, not a tensor: let it give back what was packed"
                )
            entry = live.known(back)
            made = entry.value.spec
            if (made.shape, made.dtype) != (spec.shape, spec.dtype):
                what = f"gives {made.dtype} of {list(made.shape)} where {spec.dtype} of {list(spec.shape)} was packed"
                raise recorder.refusal(f"saved_tensors_hooks whose unpack hook {what}: let it give that back")
            result = entry.names[-1]
            second = _dying(unpacked, live, {name, *kept, result})
            del back, whole, entry
        live.check_gone((*first, *second), [name], "saved_tensors_hooks")
        if any(layer.selected for layer in (*first, *second)):
            raise recorder.refusal(
                "a selective checkpoint that keeps what saved_tensors_hooks inside of it make: let its policy recompute their operators"
            )
        return Packing(given=name, dtype=spec.dtype, packed=first, kept=kept, unpacked=second, result=result)

    def _run(self, hook: Callable[[Any], Any], given: Any) -> Any:
        """What a hook gives; of one that needs what no tensor here has it is said which."""
        recorder = self._recorder
        read, numbers = recorder.numbers.read, "numbers out of a tensor"
        try:
            found = hook(given)
            if recorder.numbers.read > read:
                raise UnsupportedError(f"{hook}: {numbers}")
            return found
        except UnsupportedError as e:
            recorder.failure = None
            why = str(e).partition(": ")[2].partition(";")[0].removeprefix("no rule for ")
            raise recorder.refusal(
                f"the hook of saved_tensors_hooks{defined_at(hook)}: {why}; keep tensors instead (.to(dtype), .cpu(), save_on_cpu)"
            ) from None

    def _seen(self) -> AbstractContextManager[Any]:
        """Calls are recorded, though this is amid one that is."""
        recorder = self._recorder
        there = any(mode is recorder for mode in _get_current_function_mode_stack())
        return nullcontext() if there else recorder


def only_kept(p: Packing) -> bool:
    """Whether the tensor itself is kept, as without hooks. (On a CPU ``t.cpu()`` is the tensor.)"""
    return {layer.op for layer in (*p.packed, *p.unpacked)} <= {"to_device"} and len(p.kept) == 1


def _dying(layers: Sequence[Layer], live: LiveTensors, stay: set[str]) -> tuple[Layer, ...]:
    return tuple([replace(layer, drops=tuple(n for n in gone if n not in stay)) for layer, gone in zip(layers, live.drops, strict=True)])


class _Seen(Keeping):
    """Looks at what is saved."""

    one_by_one = True

    def __init__(self) -> None:
        self.specs: list[Spec] = []

    def keep(self, spec: Spec, storage: Storage, number: bool) -> Part:
        """Noted, unless no hook sees it."""
        if not number:
            self.specs.append(spec)
        return _Nothing()


class _Nothing:
    is_itself = False

    def unpack(self) -> tuple[Spec, Storage]:
        """Never asked."""
        raise NotImplementedError

    def release(self) -> None:
        """Nothing was kept."""
