"""Elements moved: shuffles, rolls, turns, triangles and diagonals; their gradients are moved back. Source: derivatives.yaml."""

from __future__ import annotations

from typing import Any

from memest.network.tensor import Shape
from memest.ops.derivatives.formula import GRAD, ByRole, Derived, Formula, Grads, Kernel, Saved, only


def _shuffled(f: Formula, saved: Saved, grads: Grads, *, upscale_factor: int) -> Derived:
    return [f.call("pixel_unshuffle", only(grads), downscale_factor=upscale_factor)]


def _unshuffled(f: Formula, saved: Saved, grads: Grads, *, downscale_factor: int) -> Derived:
    return [f.call("pixel_shuffle", only(grads), upscale_factor=downscale_factor)]


def _channels(f: Formula, saved: Saved, grads: Grads, *, groups: int) -> Derived:
    grad = only(grads)
    return [f.call("channel_shuffle", grad, groups=grad.shape[1] // groups)]


def _unfold(f: Formula, saved: Saved, grads: Grads, **given: Any) -> Derived:
    return [f.call("fold", only(grads), output_size=saved["size"], **given)]


def _fold(f: Formula, saved: Saved, grads: Grads, *, output_size: Any, **given: Any) -> Derived:
    return [f.call("unfold", only(grads), **given)]


def _roll(f: Formula, saved: Saved, grads: Grads, *, shifts: Any, dims: Any) -> Derived:
    back = tuple(-s for s in reversed(shifts)) if isinstance(shifts, tuple) else -shifts
    return [f.call("roll", only(grads), shifts=back, dims=tuple(reversed(dims)) if isinstance(dims, tuple) else dims)]


def _rot90(f: Formula, saved: Saved, grads: Grads, *, k: int, dims: Shape) -> Derived:
    return [f.call("rot90", only(grads), k=-k, dims=dims)]


def _triangle(name: str) -> Any:
    return lambda f, saved, grads, *, diagonal, inplace: [f.call(name, only(grads), diagonal=diagonal)]


def _diagonal(f: Formula, saved: Saved, grads: Grads, **given: Any) -> ByRole:
    return {GRAD: f.call("diagonal", only(grads), **given)}


def _diag_embed(f: Formula, saved: Saved, grads: Grads, **given: Any) -> Derived:
    return [f.call("diagonal", only(grads), **given)]


def _tensor_unfold(f: Formula, saved: Saved, grads: Grads, **given: Any) -> ByRole:
    """unfold_backward: seen in windows again."""
    return {GRAD: f.call("tensor_unfold", only(grads), **given)}


FORMULAS: dict[str, Any] = {
    "pixel_shuffle": _shuffled,
    "pixel_unshuffle": _unshuffled,
    "channel_shuffle": _channels,
    "unfold": _unfold,
    "fold": _fold,
    "roll": _roll,
    "rot90": _rot90,
    "tril": _triangle("tril"),
    "triu": _triangle("triu"),
    "diagonal": Kernel((), _diagonal),
    "diag_embed": _diag_embed,
    "tensor_unfold": Kernel((), _tensor_unfold),
}
