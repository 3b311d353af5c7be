"""Numbers that follow from how a tensor was made, whatever runs: a mask of ones is all true, at every size.

A branch on such a number is no branch; nor is one on what the module holds and nothing writes into (``values``). What healthy training
has is taken for granted, and said: every number is finite, and what torch checks (``torch._check_tensor_all``) holds.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence, Set
from operator import eq, ge, gt, le, lt, ne
from typing import Any, Protocol

import torch

from memest.errors import UnsupportedError
from memest.network.graph import Layer
from memest.sources.importers.torch.tensors.live import LiveTensors
from memest.sources.importers.torch.tensors.values import Array, of_tensor, value_of

FINITE = "assumed: every number is finite, where the network asks (torch.isfinite, torch.isnan, torch.isinf)"
CHECKED = "assumed: what the network checks of values holds"
HELD = "assumed: {} holds what it holds now, which decides what runs"
_VIEWS = frozenset(
    {
        *("view", "reshape", "flatten", "unflatten", "permute", "transpose", "t", "movedim", "swapaxes", "squeeze", "unsqueeze"),
        *("expand", "expand_as", "view_as", "reshape_as", "alias", "detach", "data", "select", "slice", "narrow", "getitem"),
        *("contiguous", "to"),
    }
)
_SAME = _VIEWS | {"clone", "repeat", "tile", "roll", "flip", "amax", "amin", "max", "min", "broadcast_to", "repeat_interleave", "to_device"}
_MADE: Mapping[str, float] = {
    **dict.fromkeys(("zeros", "zeros_like", "new_zeros"), 0),
    **dict.fromkeys(("ones", "ones_like", "new_ones"), 1),
}
_COMPARED: Mapping[str, Callable[[Any, Any], bool]] = {"eq": eq, "ne": ne, "lt": lt, "le": le, "gt": gt, "ge": ge}
_WRITE_STATISTICS = {"batch_norm": 1, "instance_norm": 1, "fused_moving_avg_obs_fake_quant": 3}
"""Rows that write into what they read, from which on (before that the fake quantizer has its switches)."""
_ASKED: Mapping[str, bool] = {"isfinite": True, "isnan": False, "isinf": False}


class Recording(Protocol):
    """What is asked of the recorder: the layers so far, and the live tensors."""

    layers: list[Layer]
    live: LiveTensors


class Constants:
    """What is known of the numbers in the tensors of one recording."""

    def __init__(self, recorder: Recording) -> None:
        self.held: dict[str, Array] = {}
        self._own: dict[str, torch.Tensor] = {}
        self._used: dict[str, str] = {}
        self._recorder = recorder
        self._checked: list[weakref.ref[torch.Tensor]] = []
        self._notes: dict[str, None] = {}
        self._seen = _Seen([])

    @property
    def notes(self) -> tuple[str, ...]:
        """What was taken for granted."""
        return (*self._notes, *[HELD.format(name) for name in self._used if name in self._own])

    def own(self, name: str, held: torch.Tensor | None) -> None:
        """The module's own tensor ``name`` holds before the call what can be read in ``held``, if anybody asks."""
        if held is not None:
            self._own[name] = held

    def holds(self, t: torch.Tensor) -> torch.Tensor:
        """``t`` says whether a check passes: it does."""
        self._checked.append(weakref.ref(t))
        return t

    def number(self, t: torch.Tensor, asking: str = "") -> Any:
        """The one number (or truth) that every element of ``t`` is; None where that does not follow. What the module itself holds counts
        where a branch is ``asking`` (the place): whoever reads a number may be about to count it up."""
        if any(t is c() for c in self._checked):
            self._notes[CHECKED] = None
            return True
        entry = self._recorder.live.found(t)
        if entry is None:
            return None
        layers, written = self._known()
        number = self._of(entry.names[-1], layers, written)
        if number is not None or t.numel() != 1:
            return number
        found = self._value(entry.names[-1], layers, written, asking)
        return None if found is None else found.item() if found.ndim else found[()]

    def numbers(self, t: torch.Tensor, asking: str = "") -> Any:
        """All that ``t`` holds, as lists in lists; None where that does not follow. ``asking`` as for one number."""
        entry = self._recorder.live.found(t)
        found = None if entry is None else self._value(entry.names[-1], *self._known(), asking)
        return None if found is None else found.tolist()

    def _value(self, name: str, layers: Mapping[str, Layer], written: Set[str], asking: str) -> Array | None:
        """What the tensor ``name`` holds; whose numbers it goes by is remembered."""
        asked: list[str] = []

        def held(name: str) -> Array | None:
            if asking and name in self._own and name not in self.held:
                self.held[name] = of_tensor(self._own[name])
            if name not in self.held or (name in self._own and not asking):
                return None
            asked.append(name)
            return self.held[name]

        found = value_of(name, layers, held, written)
        if found is not None:
            self._used.update(dict.fromkeys(asked, asking))
        return found

    def _known(self) -> tuple[Mapping[str, Layer], Set[str]]:
        """The layers so far by what they made, and the first names of those that something was written into, or into a view of."""
        recorded, seen = self._recorder.layers, self._seen
        if recorded is not seen.layers or len(recorded) < seen.count or (seen.count and recorded[seen.count - 1] is not seen.last):
            seen = self._seen = _Seen(recorded)
        seen.go_on()
        return seen.made, seen.written

    def is_unwritten(self, name: str) -> bool:
        """Whether nothing is written into the tensor ``name``, nor into what it is a view of."""
        layers, written = self._known()
        return _root(name, layers) not in written

    def finite(self) -> None:
        """Something goes by that a number is finite."""
        self._notes[FINITE] = None

    def check_unwritten(self) -> None:
        """At the end: UnsupportedError where something was written into a tensor whose numbers decided before."""
        if not self._used:
            return
        written = self._known()[1] & self._used.keys()
        if written:
            name = sorted(written)[0]
            raise UnsupportedError(
                f"{self._used[name]}: a branch goes by {name}, into which the forward writes, so the next step may go the other way; state"
                " which way the step that counts goes: assume={'FILE.py:LINE': True}"
            )

    def _of(self, name: str, layers: Mapping[str, Layer], written: Set[str]) -> Any:
        """The number of a tensor by name; ``written`` are the first names of those that something was written into, or into a view of."""
        layer = layers.get(name)
        if layer is None or _writes(layer) or _root(name, layers) in written:
            return None
        given = dict(layer.attributes)
        if layer.op in _MADE:
            return _MADE[layer.op]
        if layer.op in ("full", "full_like"):
            return given["fill_value"]
        if layer.op in _ASKED:
            self._notes[FINITE] = None
            return _ASKED[layer.op]
        if not layer.reads:
            return None
        number = self._of(layer.reads[0], layers, written)
        if number is None:
            return None
        if layer.op in _SAME and len(layer.outputs) == 1:
            return bool(number) if given.get("dtype") == "bool" else number
        if layer.op == "interpolate" and given.get("mode", "nearest").startswith("nearest"):
            return number
        if layer.op in ("any", "all"):
            return bool(number)
        if layer.op == "logical_not" or (layer.op == "bitwise_not" and isinstance(number, bool)):
            return not number
        if layer.op in ("stack", "cat") and all(self._of(other, layers, written) == number for other in layer.reads):
            return number
        if layer.op in _COMPARED:
            other = self._of(layer.reads[1], layers, written) if len(layer.reads) > 1 else given.get("value")
            return None if other is None else _COMPARED[layer.op](number, other)
        return None


class _Seen:
    """Recorded layers as far as they have been looked at: by what they ``made``, and the first names of what was ``written`` into."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = layers
        self.count = 0
        self.last: Layer | None = None
        self.made: dict[str, Layer] = {}
        self.written: set[str] = set()

    def go_on(self) -> None:
        """Look at those that have been recorded since."""
        for layer in self.layers[self.count :]:
            self.made.update(dict.fromkeys(layer.outputs, layer))
            into = layer.reads[:1] if _writes(layer) else layer.reads[_WRITE_STATISTICS.get(layer.op, len(layer.reads)) :]
            self.written.update([_root(name, self.made) for name in into])
            self.count, self.last = self.count + 1, layer


def _writes(layer: Layer) -> bool:
    """Whether it writes over its first tensor."""
    return layer.op == "setitem" or layer.op.endswith("_") or dict(layer.attributes).get("inplace") is True


def _root(name: str, layers: Mapping[str, Layer]) -> str:
    """The tensor that ``name`` may be a view of."""
    while (layer := layers.get(name)) is not None and layer.reads and (layer.op in _VIEWS or _writes(layer)):
        name = layer.reads[0]
    return name
