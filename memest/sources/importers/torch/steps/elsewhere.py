"""The same step at other sizes: does it do the same there?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from memest.network.graph import Layer
from memest.runtimes.torch.ledger import Value
from memest.sources.importers.torch.recording.elsewhere import Elsewhere, no_storage
from memest.sources.importers.torch.recording.trace import Done, Handle
from memest.sources.importers.torch.steps.recorder import StepRecorder
from memest.sources.importers.torch.tensors.keeping import swap
from memest.sources.importers.torch.tensors.live import Tracked
from memest.sources.importers.torch.tensors.state import Owned


class StepElsewhere(Elsewhere, StepRecorder):
    """One call of a step at other sizes than the first: its actions are held against those there, too, and none is played."""

    def _owned(self, module: nn.Module) -> Owned:
        """Each call of a step has a root of its own."""
        return Owned(module)

    def _lend(self) -> None:
        swap(self.owned, self.live)
        for entry in self.live.tracked.values():
            if entry.names[0] in self.first.found_there:
                self._is_there(entry.names[0], entry)

    def _leaves(self) -> bool:
        """What a step leaves is looked at by recording it."""
        return True

    def _open_shadow(self) -> None:
        """Nothing is played here."""

    def _play(self, layer: Layer) -> Any:
        """Nothing is played here."""

    def noticed(self, layer: Layer) -> None:
        """A layer stands where it stood."""
        self.readings.noticed(layer)

    def _done(self, layer: Layer) -> list[tuple[str, Value]]:
        done = self.next_item()
        if not isinstance(done, Done) or done.layer != layer:
            raise self.stop("otherwise")
        found: Sequence[tuple[str, Value]] = done.found
        return list(found)

    def made(self, out: str, like: Tracked | None, value: Value) -> torch.Tensor:
        """A tensor for what an action gave, called ``out``."""
        handle = self.next_item()
        if not isinstance(handle, Handle):
            raise self.stop("otherwise")
        spec, t = self.there(handle.spec)
        self.live.follow(t, out, Value(spec, no_storage()), value.requires_grad)
        return t
