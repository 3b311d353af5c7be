"""Hooks of saved tensors (``torch.autograd.graph.saved_tensors_hooks``, ``save_on_cpu``), played where autograd packs and unpacks.

A tensor is packed at the moment the call saves it: what it reads before its kernel, what it gives after that. Packing and unpacking run
without gradients; what was packed stays until the node has run, what was unpacked dies with the node's kernel.

Source: torch/csrc/autograd/saved_variable.cpp (set_hooks_and_pack_data, unpack).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from memest.errors import GraphError, UnsupportedError
from memest.memory.stream import Storage
from memest.network.graph import Layer, Packing, Segment
from memest.network.tensor import Spec, numel
from memest.runtimes.torch.autograd import Holder, Keeping, Machine, Part
from memest.runtimes.torch.ledger import Ledger, Value
from memest.runtimes.torch.step.caller import Caller


class Run(Protocol):
    """What plays layers (:class:`memest.runtimes.torch.step.run.Run`)."""

    ledger: Ledger
    machine: Machine
    caller: Caller
    checkpoint: Callable[[Segment, dict[str, Value]], None] | None

    def play_layer(self, layer: Layer, env: dict[str, Value]) -> None:
        """One layer, on the values in ``env``."""


@contextmanager
def packed_by(run: Run, packings: Sequence[Packing]) -> Iterator[None]:
    """What is saved goes through these hooks, one for each tensor, if there are any."""
    if not packings:
        yield
        return
    machine, outer = run.machine, run.machine.keeping
    machine.keeping = hooks = Hooked(run, packings)
    try:
        yield
    finally:
        machine.keeping = outer
    hooks.check()


class Hooked(Keeping):
    """The hooks around one layer; ``packings`` are those of the tensors that it saves, in order."""

    one_by_one = True

    def __init__(self, run: Run, packings: Sequence[Packing]) -> None:
        self._run, self._packings, self._next = run, packings, 0

    def keep(self, spec: Spec, storage: Storage, number: bool) -> Part:
        """Numbers are kept as they are: no hook sees them."""
        if number:
            return _Plain(self._run.ledger, spec, storage)
        if self._next == len(self._packings):
            if self._run.machine.target.on_cuda:
                return self._besides(spec, storage)
            raise GraphError("saves more tensors than its packing says")
        self._next += 1
        how = self._packings[self._next - 1]
        if spec.dtype != how.dtype and not _moves(how):
            raise UnsupportedError(f"saved_tensors_hooks on {spec.dtype}, recorded on {how.dtype}: what they do may depend on the dtype")
        return _Packed(self._run, how, spec, storage)

    def _besides(self, spec: Spec, storage: Storage) -> Part:
        """What a kernel of a card saves and the CPU's does not: of nothing nothing is made, and what moves one tensor moves any."""
        if not numel(spec.shape):
            return _Plain(self._run.ledger, spec, storage)
        how = self._packings[-1]
        if not _moves(how):
            raise UnsupportedError(
                f"saved_tensors_hooks on {list(spec.shape)} of {spec.dtype}, which a card alone saves: what they do is not known"
            )
        return _Packed(self._run, how, spec, storage)

    def check(self) -> None:
        """GraphError where the layer saved fewer tensors than are described, and some. (Where checkpoints are played as if they were not
        there, not all that one returns has a history.)"""
        if self._run.checkpoint is not None and 0 < self._next < len(self._packings):
            raise GraphError(f"saves {self._next} tensors, its packing is described for {len(self._packings)}")


class Unseen(Keeping):
    """Hooks around a reentrant checkpoint: in its forward they get what is saved for a gradient that is taken there, in backward they are
    no more in force. It was recorded as it runs then."""

    def __init__(self, name: str) -> None:
        self._name = name

    def pack(self, storages: list[Storage | None], numbers: list[bool]) -> Holder:
        """Numbers are kept; what hooks do with others is not known."""
        if all(numbers):
            return Holder(storages)
        raise UnsupportedError(
            f"a gradient taken in a reentrant checkpoint ({self._name}) under saved_tensors_hooks: end the hooks before, or give it"
            " use_reentrant=False"
        )


def _moves(how: Packing) -> bool:
    """Whether a tensor goes to the host and comes back, or stays, whatever it is."""
    return all(layer.op == "to_device" and not dict(layer.attributes).get("dtype") for layer in (*how.packed, *how.unpacked))


class _Plain:
    is_itself = False  # it is a number

    def __init__(self, ledger: Ledger, spec: Spec, storage: Storage) -> None:
        self._ledger, self._spec, self._storage = ledger, spec, storage
        storage.refs += 1

    def unpack(self) -> tuple[Spec, Storage]:
        """The tensor itself."""
        self._storage.refs += 1
        return self._spec, self._storage

    def release(self) -> None:
        """It goes."""
        self._ledger.let_go_storage(self._storage)


class _Packed:
    def __init__(self, run: Run, how: Packing, spec: Spec, storage: Storage) -> None:
        self._run, self._how = run, how
        env = _played(run, how.packed, {how.given: run.ledger.hold(Value(spec, storage))})
        self._kept = {name: run.ledger.hold(env[name]) for name in how.kept}
        self.is_itself = any(value is env[how.given] for value in self._kept.values())
        for value in env.values():
            run.ledger.let_go(value)

    def unpack(self) -> tuple[Spec, Storage]:
        """What the other hook makes of what is kept."""
        ledger = self._run.ledger
        env = _played(self._run, self._how.unpacked, {name: ledger.hold(value) for name, value in self._kept.items()})
        result = env[self._how.result]
        result.storage.refs += 1
        for value in env.values():
            ledger.let_go(value)
        return result.spec, result.storage

    def release(self) -> None:
        """What is kept goes."""
        for value in self._kept.values():
            self._run.ledger.let_go(value)


def _played(run: Run, layers: Sequence[Layer], env: dict[str, Value]) -> dict[str, Value]:
    """``env`` with what the layers give, which run without gradients and amid another call."""
    ledger, machine, caller = run.ledger, run.machine, run.caller
    at, keeping, grad = (ledger.layer, ledger.op), machine.keeping, caller.grad_mode
    selection, machine.selection = machine.selection, None
    machine.keeping, caller.grad_mode = Keeping(), False
    try:
        for layer in layers:
            run.play_layer(layer, env)
    finally:
        (ledger.layer, ledger.op), machine.keeping, caller.grad_mode = at, keeping, grad
        machine.selection = selection
    return env
