"""torchvision's own kernels on CPU: non-maximum suppression, regions of interest, deformable convolutions.

Regions are (K, 5): the image's number and a box; they are kept for backward, their gradient nobody knows. How many boxes suppression keeps
depends on values (``count``), but its result lies in memory for all of them. From torchvision 0.29 on (torch 2.14) the kernels are written
against torch's stable interface, which adds into new tensors where those before added in place.

Sources: torchvision/csrc/ops/cpu/nms_kernel.cpp, roi_align_kernel.cpp, roi_pool_kernel.cpp, ps_roi_align_kernel.cpp,
ps_roi_pool_kernel.cpp, deform_conv2d_kernel.cpp, and ops/autograd.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from memest.errors import ShapeError
from memest.ops.aten.copies import clone, contiguous
from memest.ops.aten.iterator import empty_like, incoming
from memest.ops.aten.places import checked_count, refuse_on_cuda
from memest.ops.aten.reductions import sum_into
from memest.ops.facts import EVERYWHERE_FACTS, REFUSED
from memest.ops.operator import Example, flag, number
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import attribute, row

Saved = dict[str, Any]
Grads = Sequence[Tensor | None]
STABLE = (2, 14)
MOST_IMAGES = 32  # kMaxParallelImgs


def _nms(k: Tape, dets: Tensor, scores: Tensor, *, iou_threshold: float, count: int) -> Tensor:
    """The corners by coordinate, the areas, the order of the scores; then what is suppressed and what is kept."""
    refuse_on_cuda(k)
    if dets.ndim != 2 or dets.shape[1] != 4 or scores.ndim != 1:
        raise ShapeError(f"nms needs boxes (N, 4) and N scores, got {list(dets.shape)} and {list(scores.shape)}")
    n = dets.shape[0]
    checked_count(count, n)
    if n == 0:
        return k.empty((0,), "int64")
    corners = [contiguous(k, k.alias(dets, (n,), (dets.strides[0],))) for _ in range(4)]
    areas = None
    if k.target.version < STABLE:
        width, height = k.empty((n,), dets.dtype), k.empty((n,), dets.dtype)
        areas = k.empty((n,), dets.dtype)
        k.free(height, width)
    values, order = empty_like(k, scores), empty_like(k, scores, "int64")
    k.free(k.empty((n,), "int64"), values)
    suppressed, kept = k.empty((n,), "uint8"), k.empty((n,), "int64")
    if areas is None:
        areas = k.empty((n,), dets.dtype)
        k.free(areas)
    k.free(suppressed, order, areas, *reversed(corners))
    return k.alias(kept, (count,))


def _pooled(k: Tape, input: Tensor, rois: Tensor, channels: int, height: int, width: int) -> Tensor:
    """Zeros for the result of each region; input and regions are read as they lie row by row."""
    refuse_on_cuda(k)
    if input.ndim != 4 or rois.ndim != 2 or rois.shape[1] != 5:
        raise ShapeError(f"regions (K, 5) of images (N, C, H, W) are pooled, got {list(rois.shape)} and {list(input.shape)}")
    k.note(sizes=input.shape)
    return k.empty((rois.shape[0], channels, height, width), input.dtype)


def _read(k: Tape, out: Tensor, *tensors: Tensor) -> None:
    """Copies of what does not lie row by row, while the kernel runs."""
    if out.numel:
        copies = [contiguous(k, t) for t in tensors]
        k.free(*reversed([c for c, t in zip(copies, tensors, strict=True) if c is not t]))


def _roi_align(k: Tape, input: Tensor, rois: Tensor, *, pooled_height: int, pooled_width: int, **attributes: Any) -> Tensor:
    out = _pooled(k, input, rois, input.shape[1], pooled_height, pooled_width)
    k.save(rois=rois)
    _read(k, out, input, rois)
    return out


def _roi_align_backward(k: Tape, saved: Saved, grads: Grads, **attributes: Any) -> list[Tensor | None]:
    grad = incoming(grads)
    out = k.empty(saved["sizes"], grad.dtype)
    _read(k, grad, saved["rois"])
    return [out, None]


def _with_places(k: Tape, input: Tensor, rois: Tensor, channels: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Beside the result an int32 for each element of it: which element it came from, or which channel."""
    out = _pooled(k, input, rois, channels, height, width)
    places = k.empty(out.shape, "int32")
    _read(k, out, input, rois)
    k.save(rois=rois, places=places)
    return out, places


def _roi_pool(k: Tape, input: Tensor, rois: Tensor, *, pooled_height: int, pooled_width: int, **attributes: Any) -> tuple[Tensor, Tensor]:
    return _with_places(k, input, rois, input.shape[1], pooled_height, pooled_width)


def _by_position(
    k: Tape, input: Tensor, rois: Tensor, *, pooled_height: int, pooled_width: int, **attributes: Any
) -> tuple[Tensor, Tensor]:
    """Every place of a region has channels of its own."""
    if input.shape[1] % (pooled_height * pooled_width):
        raise ShapeError(f"{input.shape[1]} channels are not shared out among {pooled_height}x{pooled_width} places")
    return _with_places(k, input, rois, input.shape[1] // (pooled_height * pooled_width), pooled_height, pooled_width)


def _places_backward(k: Tape, saved: Saved, grads: Grads, **attributes: Any) -> list[Tensor | None]:
    """Nobody sends a gradient for the places: zeros stand for it."""
    grad = grads[0]
    assert grad is not None
    zeros = k.empty(saved["places"].shape, "int32")
    out = k.empty(saved["sizes"], grad.dtype)
    _read(k, grad, grad, saved["rois"])
    k.free(zeros)
    return [out, None]


def _images_at_once(batch: int) -> int:
    """The greatest divisor of the batch up to 32."""
    if batch <= MOST_IMAGES:
        return batch
    return next(n for n in range(MOST_IMAGES, 0, -1) if batch % n == 0)


def _deformed(k: Tape, input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor, bias: Tensor, **attributes: Any) -> Tensor:
    """Samples for a block of images in columns, multiplied with the weights of each group into a buffer, which is copied into the result;
    the bias is added to that."""
    refuse_on_cuda(k)
    if input.ndim != 4 or offset.ndim != 4 or weight.ndim != 4:
        raise ShapeError("deform_conv2d takes images, offsets and weights of four dims")
    k.save(input=input, weight=weight, offset=offset, mask=mask, bias=bias)
    tensors = (input, offset, weight, mask, bias)
    copies = [contiguous(k, t) for t in tensors]
    shape = (input.shape[0], weight.shape[0], *_out(input, weight, attributes))
    if offset.shape[0] != shape[0] or offset.shape[2:] != shape[2:]:
        raise ShapeError(f"offsets of shape {list(offset.shape)} for a result of {list(shape)}")
    result = k.empty(shape, input.dtype)
    buffer = k.empty(shape, input.dtype)
    columns = _columns(k, input, weight, shape)
    out = k.empty(shape, input.dtype)
    k.free(columns, buffer, result, *reversed([c for c, t in zip(copies, tensors, strict=True) if c is not t]))
    return out


def _out(input: Tensor, weight: Tensor, attributes: dict[str, Any]) -> tuple[int, int]:
    def size(n: int, kernel: int, side: str) -> int:
        reach: int = attributes[f"dilation_{side}"] * (kernel - 1) + 1
        sized: int = (n + 2 * attributes[f"pad_{side}"] - reach) // attributes[f"stride_{side}"] + 1
        return sized

    return size(input.shape[2], weight.shape[2], "h"), size(input.shape[3], weight.shape[3], "w")


def _columns(k: Tape, input: Tensor, weight: Tensor, shape: Sequence[int]) -> Tensor:
    return k.empty((input.shape[1] * weight.shape[2] * weight.shape[3], _images_at_once(shape[0]) * shape[2] * shape[3]), input.dtype)


def _deformed_backward(k: Tape, saved: Saved, grads: Grads, **attributes: Any) -> list[Tensor | None]:
    """First the gradients of what is sampled, then those of the weights, each over blocks of images and groups; of the bias last."""
    given = incoming(grads)
    grad = contiguous(k, given)
    input, weight, offset, mask, bias = (contiguous(k, saved[n]) for n in ("input", "weight", "offset", "mask", "bias"))
    groups: int = attributes["groups"]
    images = _images_at_once(grad.shape[0])
    part = (grad.shape[1] // groups, images * grad.shape[2] * grad.shape[3])
    times = (grad.shape[0] // images) * groups
    sampled = [clone(k, t) for t in (input, offset, mask)]
    columns = _columns(k, input, weight, grad.shape)
    if images > 1:  # the channels of a group do not lie together
        since = k.mark()
        k.free(k.empty(part, grad.dtype))
        k.again(since, times - 1)
    k.free(columns)
    weights = clone(k, weight)
    gathered = k.empty(grad.shape, grad.dtype) if images > 1 and grad.shape[1] > 1 else None
    columns = _columns(k, input, weight, grad.shape)
    if k.target.version >= STABLE:
        since = k.mark()
        k.free(*[k.empty((part[0], weight.numel // weight.shape[0]), grad.dtype) for _ in range(2)])
        k.again(since, times - 1)
    k.free(columns, gathered)
    total = k.empty((grad.shape[1],), grad.dtype)
    sum_into(k, grad, total, (0, 2, 3))
    ones = clone(k, bias)
    biases = clone(k, bias)
    k.free(ones, total)
    found = (sampled[0], weights, sampled[1], sampled[2], biases)
    return [g if need else None for g, need in zip(found, k.needs, strict=True)]


SCALE = attribute("spatial_scale", check=number)
POOLED = (SCALE, attribute("pooled_height"), attribute("pooled_width"))
SAMPLING = attribute("sampling_ratio")
IMAGES, REGIONS = (2, 8, 6, 6), (3, 5)
FACTS = EVERYWHERE_FACTS.but(autocast=REFUSED)
_row = partial(row, facts=FACTS, torch="torch.ops.torchvision.{}", source="torchvision/csrc/ops/cpu/{}_kernel.cpp")
_pooling = partial(_row, roles=("input", "rois"))
SIDE = {"pooled_height": 2, "pooled_width": 2}


def _regions(attributes: dict[str, Any]) -> tuple[Example, ...]:
    return tuple(
        Example(shapes=(IMAGES, REGIONS), attributes={"spatial_scale": 0.5, **SIDE, **attributes}, layout=layout, frozen=(1,))
        for layout in ("contiguous", "transposed")
    )


def _places_row(name: str, forward: Callable[..., Any], attributes: tuple[Any, ...], given: dict[str, Any]) -> Any:
    return _pooling(name, forward, _places_backward, (*POOLED, *attributes), _regions(given), saves=("rois", "places"))


STEPS = tuple(attribute(f"{name}_{side}") for name in ("stride", "pad", "dilation") for side in "hw")


def _deforming(batch: int, groups: int) -> Example:
    shapes = ((batch, 4, 6, 6), (8, 4 // groups, 3, 3), (batch, 18, 6, 6), (batch, 9, 6, 6), (8,))
    return Example(shapes=shapes, attributes={**{a.name: 1 for a in STEPS}, "groups": groups, "offset_groups": 1, "use_mask": True})


ROWS = (
    _row(
        "nms",
        _nms,
        None,
        (attribute("iou_threshold", check=number), attribute("count")),
        tuple(
            Example(shapes=((7, 4), (7,)), attributes={"iou_threshold": 0.5, "count": 3}, layout=layout, frozen=(0, 1))
            for layout in ("contiguous", "transposed")
            for layout in ("contiguous", "transposed")
        ),
        roles=("dets", "scores"),
        oracle="nms",
    ),
    _pooling(
        "roi_align",
        _roi_align,
        _roi_align_backward,
        (*POOLED, SAMPLING, attribute("aligned", check=flag)),
        _regions({"sampling_ratio": 2, "aligned": True}),
        saves=("rois",),
    ),
    _places_row("roi_pool", _roi_pool, (), {}),
    _places_row("ps_roi_align", _by_position, (SAMPLING,), {"sampling_ratio": 2}),
    _places_row("ps_roi_pool", _by_position, (), {}),
    _row(
        "deform_conv2d",
        _deformed,
        _deformed_backward,
        (*STEPS, attribute("groups"), attribute("offset_groups"), attribute("use_mask", check=flag)),
        (_deforming(2, 2), _deforming(1, 1)),
        roles=("input", "weight", "offset", "mask", "bias"),
        saves=("input", "weight", "offset", "mask", "bias"),
    ),
)
COMPOSITE_ROWS = ()
