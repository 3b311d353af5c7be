"""Inference over a volume in windows, in torch: the loop that ``memest.runtimes.torch.step.windows.tiles`` describes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from memest.runtimes.torch.step.windows.tiles import windows


def predict_in_windows(
    predict: Callable[[torch.Tensor], torch.Tensor], volume: torch.Tensor, size: Sequence[int], halo: Sequence[int]
) -> torch.Tensor:
    """``predict(volume)``, window by window: each is cut out, and its inner part is written into the result."""
    window = tuple(min(s, n) for s, n in zip(size, volume.shape[2:], strict=True))
    result: Any = None
    for spans in windows(tuple(volume.shape[2:]), window, tuple(halo)):
        cut = tuple(slice(place[0] - inner[0], place[0] - inner[0] + w) for (place, inner), w in zip(spans, window, strict=True))
        part = predict(volume[(..., *cut)].clone())
        if result is None:
            result = part.new_empty((*part.shape[:2], *volume.shape[2:]))
        places = (..., *(slice(*place) for place, _ in spans))
        result[places] = part[(..., *(slice(*inner) for _, inner in spans))]
        del part
    return result
