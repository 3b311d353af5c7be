"""Numbers that follow from how a tensor was made, whatever runs: a mask of ones is all true, at every size.

A branch on such a number is no branch. What healthy training has is taken for granted, and said: every number is finite, and what torch
checks (``torch._check_tensor_all``) holds.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from operator import eq, ge, gt, le, lt, ne
from typing import Any, Protocol

import torch

from memest.network.graph import Layer
from memest.sources.importers.torch.tensors.live import LiveTensors

FINITE = "assumed: every number is finite, where the network asks (torch.isfinite, torch.isnan, torch.isinf)"
CHECKED = "assumed: what the network checks of values holds"
_VIEWS = frozenset(
    {
        *("view", "reshape", "flatten", "unflatten", "permute", "transpose", "t", "movedim", "swapaxes", "squeeze", "unsqueeze"),
        *(
            "expand",
            "expand_as",
            "view_as",
            "reshape_as",
            "alias",
            "detach",
            "data",
            "select",
            "slice",
            "narrow",
            "getitem",
            "contiguous",
            "to",
        ),
    }
)
_SAME = _VIEWS | {"clone", "repeat", "tile", "roll", "flip", "amax", "amin", "broadcast_to", "repeat_interleave", "to_device"}
_MADE: Mapping[str, float] = {
    **dict.fromkeys(("zeros", "zeros_like", "new_zeros"), 0),
    **dict.fromkeys(("ones", "ones_like", "new_ones"), 1),
}
_COMPARED: Mapping[str, Callable[[Any, Any], bool]] = {"eq": eq, "ne": ne, "lt": lt, "le": le, "gt": gt, "ge": ge}
_ASKED: Mapping[str, bool] = {"isfinite": True, "isnan": False, "isinf": False}


class Recording(Protocol):
    """What is asked of the recorder: the layers so far, and the live tensors."""

    layers: list[Layer]
    live: LiveTensors


class Constants:
    """What is known of the numbers in the tensors of one recording."""

    def __init__(self, recorder: Recording) -> None:
        self._recorder = recorder
        self._checked: list[weakref.ref[torch.Tensor]] = []
        self._notes: dict[str, None] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        """What was taken for granted."""
        return tuple(self._notes)

    def holds(self, t: torch.Tensor) -> torch.Tensor:
        """``t`` says whether a check passes: it does."""
        self._checked.append(weakref.ref(t))
        return t

    def number(self, t: torch.Tensor) -> Any:
        """The one number (or truth) that every element of ``t`` is; None where that does not follow."""
        if any(t is c() for c in self._checked):
            self._notes[CHECKED] = None
            return True
        entry = self._recorder.live.found(t)
        if entry is None:
            return None
        recorded = self._recorder.layers
        layers = {out: layer for layer in recorded for out in layer.outputs}
        written = (_root(layer.reads[0], layers) for layer in recorded if _writes(layer) and layer.reads)
        return self._of(entry.names[-1], layers, frozenset(written))

    def _of(self, name: str, layers: Mapping[str, Layer], written: frozenset[str]) -> Any:
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
        if layer.op in _SAME:
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


def _writes(layer: Layer) -> bool:
    """Whether it writes over its first tensor."""
    return layer.op == "setitem" or layer.op.endswith("_") or dict(layer.attributes).get("inplace") is True


def _root(name: str, layers: Mapping[str, Layer]) -> str:
    """The tensor that ``name`` may be a view of."""
    while (layer := layers.get(name)) is not None and layer.reads and (layer.op in _VIEWS or _writes(layer)):
        name = layer.reads[0]
    return name
