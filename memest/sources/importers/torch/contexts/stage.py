"""What those who watch a step being recorded ask of its recorder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from memest.errors import UnsupportedError
from memest.network.graph import Casting, Layer
from memest.network.tensor import Spec, channels_last_strides, contiguous_strides, nbytes
from memest.runtimes.torch.ledger import Value
from memest.sizes.dims import plain
from memest.sources.importers.torch.contexts.checkpoints import Checkpoints
from memest.sources.importers.torch.tensors.live import LiveTensors, Tracked
from memest.sources.importers.torch.tensors.places import MIXED

Answer = Any
"""What a call of torch gives; NotImplemented where it is recorded like any other."""


class Stage(Protocol):
    """A step under way; inside ``with stage:`` calls of torch are recorded."""

    @property
    def live(self) -> LiveTensors:
        """Its tensors."""

    @property
    def layers(self) -> list[Layer]:
        """What it did so far."""

    @property
    def castings(self) -> tuple[Casting, ...]:
        """What contexts of autocast say here."""

    @property
    def checkpoints(self) -> Checkpoints:
        """The calls of ``torch.utils.checkpoint``."""

    def __enter__(self) -> Any: ...

    def __exit__(self, *_: object) -> None: ...

    def act(self, op: str, tensors: Any, **attributes: Any) -> tuple[Layer, list[tuple[str, Value]]]:
        """An action written down and done: its layer, and what it gave."""

    def act_on_one(self, op: str, name: str, **attributes: Any) -> None:
        """An action on one more tensor: together with those before, where they come in a row."""

    def called(self, t: torch.Tensor) -> str:
        """The name that a tensor goes by now."""

    def made(self, out: str, like: Tracked | None, value: Value) -> torch.Tensor:
        """A tensor for what an action gave, called ``out``: of the sizes of ``like`` (None: those it has)."""

    def refuse_card(self, what: str, why: str = MIXED) -> None:
        """On a card the step stops here."""

    def refusal(self, what: str) -> UnsupportedError:
        """The error that says that ``what`` has no rule, with the place."""

    def place(self) -> str:
        """Module path and line of user code."""


def _lying(like: Spec, strides: tuple[int, ...], dtype: str) -> Spec:
    """The sizes of ``like`` with these strides, in its symbols where they are strides that symbols say."""
    shape = like.shape
    known = [like.strides, contiguous_strides(shape), *([channels_last_strides(shape)] if len(shape) in (4, 5) else [])]
    return Spec(shape, next((s for s in known if plain(s) == strides), strides), dtype)


def handle_of(value: Value, like: Tracked | None) -> tuple[torch.Tensor, Spec]:
    """A meta tensor for what an action gave, and how it lies: of the sizes of ``like`` (None: those it has)."""
    shape, strides = tuple(map(int, value.spec.shape)), tuple(map(int, value.spec.strides))
    with torch._C.DisableTorchFunction():
        handle = torch.empty_strided(shape, strides, dtype=getattr(torch, value.spec.dtype), device="meta")
    return handle, value.spec if like is None else _lying(like.value.spec, strides, value.spec.dtype)


def listed(value: Any) -> list[Any]:
    """One tensor or several, as a list."""
    return [value] if isinstance(value, torch.Tensor) or value is None else list(value)


def several(values: Sequence[Any]) -> Sequence[Any]:
    """The tensors of a call that takes them one by one or in a list."""
    found: Sequence[Any] = values[0] if len(values) == 1 and isinstance(values[0], list | tuple) else values
    return found


def exchange(stage: Stage, t: torch.Tensor, given: torch.Tensor, *, again: bool) -> None:
    """``t.data = given``: another memory under the same tensor (``t.data *= value`` ends with the one it has). ``again`` says that what
    stands here runs at another time, or twice."""
    old, new = stage.live.known(t).value, stage.live.known(given).value
    if old.storage is new.storage and t.shape == given.shape and t.stride() == given.stride():
        return
    if t.shape != given.shape or t.dtype != given.dtype or t.stride() != given.stride():
        raise stage.refusal("tensor.data = … of another shape, dtype or layout: write into it (copy_ under torch.no_grad())")
    if again:
        raise stage.refusal("tensor.data = … inside a checkpoint, a hook or a custom function: write into it (copy_ under torch.no_grad())")
    own = {p.name for p in stage.live.parameters}
    shared = any(e.value.storage is new.storage and e.names[0] in own for e in stage.live.tracked.values())
    if shared or new.storage.nbytes != nbytes(new.spec.shape, new.spec.dtype):
        raise stage.refusal("tensor.data = … that is part of another tensor, or the network's own: give it a copy (clone())")
    stage.act("set_data", (stage.called(t), stage.called(given)))
    old.storage = new.storage
