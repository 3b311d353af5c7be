"""Where a mask is true on the CPU: how many elements that are depends on values, so a row is told the count.

Sources: aten/src/ATen/native/TensorAdvancedIndexing.cpp (``nonzero_cpu``: places lie a dim after the other), IndexingUtils.h
(``expandTensors``: a mask in an index stands for its places, an index for each of its dims).
"""

from __future__ import annotations

from collections.abc import Sequence

from memest.errors import ShapeError, UnsupportedError
from memest.network.tensor import Shape
from memest.ops.aten.copies import contiguous
from memest.ops.aten.iterator import broadcast_shape, iterator_strides
from memest.ops.aten.views import expanded, wrapped
from memest.ops.tape import Tape, Tensor

NOT_ON_CUDA = "what depends on values (masks, nonzero, unique, box operations) is not modelled on torch-cuda yet; ask for torch-cpu"


def refuse_on_cuda(k: Tape) -> None:
    """UnsupportedError on CUDA, whose own kernels of these were not held against anything yet."""
    if k.target.on_cuda:
        raise UnsupportedError(NOT_ON_CUDA)


def checked_count(count: int, most: int) -> None:
    """ShapeError for more elements than there are."""
    if not 0 <= count <= most:
        raise ShapeError(f"{count} of {most} elements cannot be picked")


def places_of(k: Tape, mask: Tensor, count: int) -> Tensor:
    """``nonzero``: the places of so many elements, (count, dims), int64."""
    refuse_on_cuda(k)
    checked_count(count, mask.numel)
    return k.empty((count, mask.ndim), "int64", (1, count))


def opened_masks(
    k: Tape, input: Tensor, indices: Sequence[Tensor], dims: Sequence[int], counts: Shape
) -> tuple[list[int], list[Tensor], list[Tensor]]:
    """Indices of whole numbers and the dims they stand at: a mask stands for the places where it is true; those that were looked up."""
    at: list[int] = []
    found: list[Tensor] = []
    looked_up: list[Tensor] = []
    masks = [t for t in indices if t.dtype == "bool"]
    if len(masks) != len(counts):
        raise UnsupportedError("a mask in an index picks as many elements as it has ones: say how many (counts, one a mask)")
    left = iter(counts)
    for t, d in zip(indices, dims, strict=True):
        if t.dtype == "bool":
            if t.shape != input.shape[d : d + t.ndim]:
                raise ShapeError(f"a mask of shape {list(t.shape)} at dim {d} of shape {list(input.shape)}")
            places = places_of(k, t, next(left))
            looked_up.append(places)
            at += range(d, d + t.ndim)
            found += [k.alias(places, places.shape[:1], (1,)) for _ in range(t.ndim)]
        elif t.dtype in ("int64", "int32"):
            at.append(d)
            found.append(t)
        else:
            raise UnsupportedError(f"an index of {t.dtype} has no rule; use int64 or bool")
    return at, found, looked_up


def free_places(k: Tape, indices: Sequence[Tensor], counts: Shape) -> None:
    """A call that writes by masks looks up where they are true, and drops that with its locals."""
    masks = [t for t in indices if t.dtype == "bool"]
    k.free(*reversed([places_of(k, mask, count) for mask, count in zip(masks, counts, strict=True)]))


def picked(k: Tape, input: Tensor, indices: Sequence[Tensor], dims: Shape, counts: Shape, host: bool = False) -> Tensor:
    """``index``: a new tensor of what stands at ``indices``, which are at ``dims`` of the input."""
    moved = [k.empty(t.shape, t.dtype) for t in indices] if host and k.target.on_cuda else []
    at, indices, looked_up = opened_masks(k, input, moved or indices, [wrapped(d, input.ndim) for d in dims], counts)
    common = broadcast_shape(*indices)
    rest = [n for d, n in enumerate(input.shape) if d not in at]
    together = at == list(range(at[0], at[0] + len(at)))
    place = at[0] if together else 0
    shape = (*rest[:place], *common, *rest[place:])
    steps = [step for d, step in enumerate(input.strides) if d not in at]
    source = k.view(input, shape, (*steps[:place], *[0] * len(common), *steps[place:]))
    spread = [expanded(k, t, common) for t in indices]
    tail = len(rest) - place
    placed = [k.view(t, (*t.shape, *[1] * tail), (*t.strides, *[0] * tail)) for t in spread]
    if k.target.on_cuda and any(t.strides != placed[0].strides for t in placed):
        placed = [contiguous(k, t) for t in placed]  # one kernel steps through all of them alike
        k.free(*(t for t in moved if t.slot not in {p.slot for p in placed}))
    out = k.empty(shape, input.dtype, iterator_strides(shape, (source, *placed)))
    k.free(*reversed(looked_up))
    return out
