"""Selective checkpoints: results that a checkpoint keeps from its forward, taken when it runs again instead of being computed.

What is kept are all results of the operators that a policy selects, in the order of their calls. A result that is taken is kept no longer;
what early stopping does not come to goes with the call. A result that was written into since is refused by torch.

Source: torch/utils/checkpoint.py (_CachingTorchDispatchMode, _CachedTorchDispatchMode, _VersionWrapper).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from memest.errors import GraphError
from memest.memory.stream import Storage
from memest.network.graph import Layer
from memest.ops.tape import Trace
from memest.runtimes.torch.autograd.saving import Stamp
from memest.runtimes.torch.ledger import Ledger, Version


class _Kept(NamedTuple):
    storages: dict[int, Storage]
    stamps: list[Stamp]


class Selection:
    """Of one checkpointed call. ``again`` says that it runs once more; ``mutable`` that results may be written into meanwhile."""

    def __init__(self, ledger: Ledger, mutable: bool) -> None:
        self.ledger, self.mutable = ledger, mutable
        self.kept: dict[Chosen, _Kept] = {}
        self._layer: Layer | None = None
        self._calls: Counter[str] = Counter()
        self.again = False

    def begin(self, layer: Layer) -> None:
        """``layer`` is about to run."""
        self._layer = layer
        self._calls.clear()

    def chosen(self, row: str) -> Chosen | None:
        """The next call of an operator, if its results are selected."""
        nth = self._calls[row]
        self._calls[row] += 1
        layer = self._layer
        return Chosen(self, layer.name, row, nth) if layer is not None and (row, nth) in layer.selected else None

    def release(self) -> None:
        """The checkpoint is forgotten, with what nobody took."""
        kept, self.kept = self.kept, {}
        for found in kept.values():
            for s in found.storages.values():
                self.ledger.let_go_storage(s)


@dataclass(frozen=True)
class Chosen:
    """A call of an operator whose results are selected: the ``nth`` of its row in a layer."""

    selection: Selection = field(compare=False, repr=False)
    layer: str
    row: str
    nth: int

    @property
    def again(self) -> bool:
        """Whether it runs once more."""
        return self.selection.again

    def keep(self, trace: Trace, storages: list[Storage]) -> None:
        """The call has run in forward."""
        found = {slot: storages[slot] for slot in _results(trace)}
        for s in found.values():
            s.refs += 1
            s.category = "activation" if s.category == "temporary" else s.category
            s.reason = s.reason or f"result of {self.row} ({self.layer}) kept by a selective checkpoint"
        self.selection.kept[self] = _Kept(found, [])

    def stamp(self, versions: Sequence[Version | None]) -> None:
        """What the tensors of the call's slots count with, as far as they are results."""
        kept = self.selection.kept[self]
        for slot in kept.storages:
            version = versions[slot]
            if version is not None:
                kept.stamps.append(Stamp(version, version.count))

    def taken(self, trace: Trace, inputs: list[Storage]) -> list[Storage]:
        """The storages of the call's slots, as if it had run. GraphError for one that was written into."""
        kept = self.selection.kept.get(self)
        if kept is None:
            raise GraphError(
                f"torch refuses to go back twice through the selective checkpoint around {self.layer!r}, which has what it kept only once:"
                " leave context_fn out, or add the losses up before one backward"
            )
        if not self.selection.mutable and any(s.version.count != s.at for s in kept.stamps):
            raise GraphError(
                f"torch refuses the selective checkpoint around {self.layer!r}: the result of {self.row} that it keeps is changed in place"
                " after it; let what follows not work in place"
            )
        made = sum(e.nbytes >= 0 for e in trace.events)
        nothing = Storage(0, 0, "", "", "", "")
        return [kept.storages.get(slot, nothing) if slot >= len(inputs) else inputs[slot] for slot in range(len(inputs) + made)]

    def let_go(self, trace: Trace) -> None:
        """The results are where they are wanted; nothing keeps them besides."""
        given = {o.slot for o in trace.outputs if o is not None}
        for slot, s in self.selection.kept.pop(self).storages.items():
            s.refs -= 1
            if s.refs == 0 and slot not in given:
                self.selection.ledger.release(s)


def _results(trace: Trace) -> list[int]:
    """The slots of all that a kernel gives: its outputs, and what autograd keeps of its making."""
    given = [o.slot for o in trace.outputs if o is not None]
    return list(dict.fromkeys([*given, *(s.slot for s in trace.saved if s.slot >= trace.n_inputs)]))
