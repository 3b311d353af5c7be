"""Keras's ``padding="same"``: as many outputs as inputs, divided by the stride and rounded up; an odd pad is longer at the end.

Source: keras 3.15, src/ops/operation_utils.py (compute_conv_output_shape); src/backend/torch/nn.py (_compute_padding_length).
"""

from __future__ import annotations

from collections.abc import Sequence

from memest.sizes.dims import plain

Pads = tuple[tuple[int, int], ...]


def same(extents: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Pads:
    """What is put before and behind each spatial dim."""
    return tuple(_along(*given) for given in zip(extents, kernel, stride, dilation, strict=True))


def _along(extent: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    reach = (kernel - 1) * dilation + 1
    rest = _remainder(extent, stride)
    total = max(reach - (rest or stride), 0)
    return total // 2, total - total // 2


def _remainder(extent: int, stride: int) -> int:
    """``extent % stride`` as a plain number; where the extent is a size with a name, that it is so is a condition of the graph."""
    rest = extent % stride
    return next(n for n in range(stride) if rest == n)


def written(pads: Pads) -> tuple[int, ...]:
    """As ``torch.nn.functional.pad`` takes them: the last dim first."""
    return tuple(int(plain(n)) for before, behind in reversed(pads) for n in (before, behind))


def symmetric(pads: Pads) -> tuple[int, ...] | None:
    """One pad a dim; None where one is longer at the end."""
    return tuple(before for before, _ in pads) if all(before == behind for before, behind in pads) else None
