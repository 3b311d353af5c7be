"""nnU-Net's sliding-window prediction in plain torch, in the order of its own loop, where the volume is.

The thread that cuts windows out is a generator that is run until it is ahead whenever the network is called, so that a run can be repeated.
Sources: nnunetv2 2.8.1, inference/predict_from_raw_data.py, inference/sliding_window_prediction.py; acvl_utils 0.2, pad_nd_image.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

Place = tuple[Any, ...]


def steps(extent: int, window: int, share: float) -> list[int]:
    """``compute_steps_for_sliding_window`` for one axis."""
    count = math.ceil((extent - window) / (window * share)) + 1
    if count == 1:
        return [0]
    return [round((extent - window) / (count - 1) * i) for i in range(count)]


def padded(volume: torch.Tensor, window: Sequence[int]) -> torch.Tensor:
    """``pad_nd_image``: (C, …) no smaller than a window, the volume in its middle; itself where it is large enough."""
    missing = [max(w - e, 0) for e, w in zip(volume.shape[-len(window) :], window, strict=True)]
    if not any(missing):
        return volume
    return functional.pad(volume, [n for m in reversed(missing) for n in (m // 2, m - m // 2)])


@dataclass
class Predictor:
    """nnUNetPredictor's settings; ``importance`` is its map, which is cached from the first volume on."""

    network: Any
    window: tuple[int, ...]
    heads: int
    step: float = 0.5
    mirror: tuple[int, ...] = ()
    importance: torch.Tensor | None = None
    ahead: int = 3

    def places(self, volume: torch.Tensor) -> list[Place]:
        """Where the windows are, slice by slice for a network of two axes."""
        found = [steps(e, w, self.step) for e, w in zip(volume.shape[-len(self.window) :], self.window, strict=True)]
        cuts = [tuple(slice(s, s + w) for s, w in zip(at, self.window, strict=True)) for at in itertools.product(*found)]
        if len(self.window) == 2:
            return [(slice(None), d, *cut) for d in range(volume.shape[1]) for cut in cuts]
        return [(slice(None), *cut) for cut in cuts]

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        """``_internal_maybe_mirror_and_predict``."""
        prediction: torch.Tensor = self.network(x)
        axes = [m + 2 for m in self.mirror]
        combined = [c for i in range(len(axes)) for c in itertools.combinations(axes, i + 1)]
        for each in combined:
            prediction += torch.flip(self.network(torch.flip(x, each)), each)
        if combined:
            prediction /= len(combined) + 1
        return prediction

    def logits(self, volume: torch.Tensor) -> torch.Tensor:
        """``_internal_predict_sliding_window_return_logits`` of a volume (C, …)."""
        with torch.inference_mode():
            return self._logits(volume)

    def _logits(self, volume: torch.Tensor) -> torch.Tensor:
        data = padded(volume, self.window)
        places = self.places(data)
        sums = torch.zeros((self.heads, *data.shape[1:]), dtype=torch.half, device=data.device)
        counts = torch.zeros(data.shape[1:], dtype=torch.half, device=data.device)
        gaussian: Any = 1 if self.importance is None else self.importance
        queue: deque[tuple[torch.Tensor, Place]] = deque()
        thread = _windows(data, places)
        for _ in places:
            _run_ahead(queue, thread, self.ahead)
            item = queue.popleft() if queue else next(thread)
            workon, place = item
            del item
            _run_ahead(queue, thread, self.ahead)
            prediction = self.predict(workon)[0]
            if self.importance is not None:
                prediction *= gaussian
            sums[place] += prediction
            counts[place[1:]] += gaussian
        torch.div(sums, counts, out=sums)
        if torch.any(torch.isinf(sums)):
            raise RuntimeError("inf")
        return sums


def _windows(data: torch.Tensor, places: Sequence[Place]) -> Iterator[tuple[torch.Tensor, Place]]:
    for place in places:
        yield torch.clone(data[place][None], memory_format=torch.contiguous_format), place


def _run_ahead(queue: deque[Any], thread: Iterator[Any], ahead: int) -> None:
    while len(queue) < ahead:
        window = next(thread, None)
        if window is None:
            return
        queue.append(window)
