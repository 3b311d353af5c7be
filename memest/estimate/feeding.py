"""From an estimate to the data loader that feeds its step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memest.memory.loading import Fed, Loading, loading
from memest.network.tensor import nbytes
from memest.sizes.dims import resolve

if TYPE_CHECKING:
    from memest.estimate.estimate import Estimate


def fed_by(estimate: Estimate) -> Loading | None:
    """What the loader that was asked about adds; None where none was."""
    loader = estimate.question.feeding
    if loader is None:
        return None
    residents = estimate.timeline.residents
    batch = tuple(s.nbytes for s in residents if s.category == "input")
    gradients = gradient_bytes(estimate) if estimate.question.training else 0
    trained = sum(s.nbytes for s in residents if s.category in ("parameter", "buffer", "optimizer_state"))
    process = estimate.recipe.target.process
    return loading(
        loader,
        Fed(
            batch=batch,
            process=estimate.process,
            below_peak=max(0, estimate.requested_bytes - estimate.standing_bytes - gradients),
            replaced=trained + gradients if estimate.question.training else 0,
            moves=process is not None and process.malloc.moves,
        ),
    )


def gradient_bytes(estimate: Estimate) -> int:
    """Bytes of the gradients of all parameters that are trained."""
    trained = (p for p in estimate.played.parameters if p.trainable and not p.buffer and p.gradient_of is None)
    return sum(nbytes(resolve(p.shape, estimate.sizes), p.dtype) for p in trained)
