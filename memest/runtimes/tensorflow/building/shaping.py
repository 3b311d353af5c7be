"""Pooling, joining, padding, other shapes, and what gives back what it reads."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod

from memest.errors import UnsupportedError
from memest.network.graph import Layer
from memest.ops.operator import expand
from memest.runtimes.tensorflow.building.place import Here, channels_last

RESIZED = {"bilinear": "ResizeBilinear", "bicubic": "ResizeBicubic"}


def _pooled(op: str, dims: int, here: Here) -> None:
    value = here.value()
    output = channels_last(here.shape(here.layer.outputs[0]))
    kernel = expand(here.given["kernel_size"], dims)
    pads = expand(here.given.get("padding", 0), dims)
    source = here.roles["input"]
    assert isinstance(source, str)
    if source in here.place.padded:
        value = here.of(here.place.padded[source])
    elif any(pads) and not _is_same(here, value.shape[1:-1], kernel, dims, pads):
        larger = tuple([n + 2 * p for n, p in zip(value.shape[1:-1], pads, strict=True)])
        value = here.part("Pad", "zero_padding/Pad", [value], (value.shape[0], *larger, value.shape[-1]))
    if dims == 1:
        value = here.op("Reshape", f"{op}1d/ExpandDims", [value], (value.shape[0], 1, *value.shape[1:]))
        made = here.op(op, f"{op}1d", [value], (output[0], 1, *output[1:]))
        here.done(here.op("Squeeze", f"{op}1d/Squeeze", [made], output), True)
        return
    full = f"{op}{dims}D" if dims == 3 else op
    if full == "MaxPool":
        here.done(here.op(full, "MaxPool2d", [value], output), True)
    else:
        here.done(here.part(full, full, [value], output), True)


def _is_same(here: Here, extents: tuple[int, ...], kernel: tuple[int, ...], dims: int, pads: tuple[int, ...]) -> bool:
    given = here.given.get("stride")
    stride = kernel if given in (None, ()) else expand(given, dims)
    along = zip(extents, kernel, stride, pads, strict=True)
    return all(max((-(-n // s) - 1) * s + k - n, 0) == 2 * p for n, k, s, p in along)


def _reduced(op: str, name: str, here: Here) -> None:
    """Over some dims, as global pooling does."""
    value = here.value()
    dims = here.given["dim"]
    axes = {here.axis(d) for d in (dims if isinstance(dims, list | tuple) else (dims,))}
    kept = tuple([1 if n in axes else size for n, size in enumerate(value.shape)])
    keep = bool(here.given.get("keepdim", False))
    shape = kept if keep else tuple([size for n, size in enumerate(value.shape) if n not in axes])
    here.done(here.part(op, name, [value], shape, kept=kept, keep=keep), keep and here.is_turned())


def global_pool(here: Here) -> None:
    """Adaptive pooling to one place, which is Keras's global pooling with its dims kept, or to as many places as there are."""
    value = here.value()
    if channels_last(here.shape(here.layer.outputs[0])) == value.shape:
        here.done(value)
        return
    kept = (value.shape[0], *(1,) * (len(value.shape) - 2), value.shape[-1])
    if channels_last(here.shape(here.layer.outputs[0])) != kept:
        raise UnsupportedError("no rule for adaptive pooling to more than one place on tensorflow-cpu")
    here.done(here.part("Mean", "Mean", [value], kept, kept=kept, keep=True))


def enlarged(here: Here) -> None:
    """Upsampling: to the nearest, for which each dim in turn is tiled, or by lines or cubes in two dims."""
    value, output = here.value(), channels_last(here.shape(here.layer.outputs[0]))
    resized = RESIZED.get(here.given.get("mode", "nearest")) if not here.given.get("align_corners") else None
    if resized is not None:
        here.done(here.part(resized, f"resize/{resized}", [value], output), True)
        return
    if here.given.get("mode", "nearest") != "nearest" or any(o % n for o, n in zip(output[1:-1], value.shape[1:-1], strict=True)):
        raise UnsupportedError("no rule for interpolation on tensorflow-cpu but to the nearest by whole numbers, bilinear and bicubic")
    for dim in range(1, len(output) - 1):
        times = output[dim] // value.shape[dim]
        scope = here.net.unique(f"{here.scope}/Repeat").removeprefix(f"{here.scope}/")
        before, behind = value.shape[: dim + 1], value.shape[dim + 1 :]
        value = here.part("Reshape", f"{scope}/ExpandDims", [value], (*before, 1, *behind))
        value = here.part("Tile", f"{scope}/Tile", [value], (*before, times, *behind))
        value = here.part("Reshape", f"{scope}/Reshape", [value], (*before[:-1], output[dim], *behind))
    here.done(value, True)


def joined(here: Here) -> None:
    """Concatenation along the channels."""
    names = here.roles.get("tensors", here.layer.reads)
    assert names is not None and not isinstance(names, str)
    values = [here.of(n) for n in names]
    turned = names[0] in here.place.turned
    rank = len(values[0].shape)
    dim = here.given["dim"] % rank
    axis = dim if not turned or dim == 0 else rank - 1 if dim == 1 else dim - 1
    shape = tuple([sum(v.shape[n] for v in values) if n == axis else size for n, size in enumerate(values[0].shape)])
    here.done(here.part("ConcatV2", "concat", values, shape, axis=axis), turned)


def padded(here: Here) -> None:
    """Zero padding; what the importer writes before a layer that pads at one end alone is that layer's own ``same``."""
    owner, _, last = here.layer.name.rpartition(".")
    readers = [layer for layer in here.place.graph.layers if here.layer.outputs[0] in layer.reads]
    if last == "pad" and len(readers) == 1 and f"{readers[0].name}.".startswith(f"{owner}.") and _behind(here):
        source = here.roles["input"]
        assert isinstance(source, str)
        here.place.padded[here.layer.outputs[0]] = source
        here.done(here.value())
        return
    shape = channels_last(here.shape(here.layer.outputs[0])) if here.is_turned() else here.shape(here.layer.outputs[0])
    here.done(here.part("Pad", "Pad", [here.value()], shape))


def sliced(here: Here) -> None:
    """A part of a tensor; what the importer writes as slices of one layer, a dim after another, is cut at once."""
    owner, _, last = here.layer.name.rpartition(".")
    inner = last.startswith("dim_") and here.place.is_layer(owner)
    if inner:
        here.done(here.value())
        return
    shape = here.shape(here.layer.outputs[0])
    here.done(here.part("StridedSlice", "strided_slice", [here.value()], channels_last(shape) if here.is_turned() else shape))


def _behind(here: Here) -> bool:
    """Whether as much is put on behind as before, or more, which ``same`` does; ``causal`` does not."""
    pads = here.given["pad"]
    return all(before <= behind for before, behind in zip(pads[::2], pads[1::2], strict=True))


def _reshaped(here: Here) -> None:
    """Another shape; a tensor whose channels were moved is as Keras has it, so it is the same bytes."""
    value = here.value()
    shape = here.shape(here.layer.outputs[0])
    if shape == value.shape:
        here.done(value, False)
        return
    here.done(here.part("Reshape", "Reshape", [value], shape), False)


def permuted(here: Here) -> None:
    """Between torch's order of dims and Keras's nothing is done."""
    value = here.value()
    dims = tuple([d % len(value.shape) for d in here.given["dims"]])
    rank = len(dims)
    if here.is_turned() and dims == (0, *range(2, rank), 1):
        here.done(value, False)
    elif not here.is_turned() and dims == (0, rank - 1, *range(1, rank - 1)):
        here.done(value, True)
    elif here.is_turned():
        raise UnsupportedError("no rule for a permutation of channels that were moved on tensorflow-cpu")
    else:
        here.done(here.part("Transpose", "transpose", [value], tuple([value.shape[d] for d in dims])), False)


def _same(here: Here) -> None:
    here.done(here.value())


def is_view(layer: Layer) -> bool:
    """Whether a layer gives the bytes that it reads."""
    return layer.op in ("flatten", "reshape", "view", "permute", "unsqueeze", "squeeze")


def squeezed(here: Here) -> None:
    """A dim of one more or less."""
    value, shape = here.value(), here.shape(here.layer.outputs[0])
    if prod(shape) != prod(value.shape) or len(shape) > 2:
        raise UnsupportedError("no rule for such a view on tensorflow-cpu")
    here.done(here.part("Reshape", "Squeeze", [value], shape), False)


TABLE: dict[str, Callable[[Here], None]] = {
    **{f"max_pool{n}d": partial(_pooled, "MaxPool", n) for n in (1, 2, 3)},
    **{f"avg_pool{n}d": partial(_pooled, "AvgPool", n) for n in (1, 2, 3)},
    **{f"adaptive_avg_pool{n}d": global_pool for n in (2, 3)},
    "mean": partial(_reduced, "Mean", "Mean"),
    "sum": partial(_reduced, "Sum", "Sum"),
    "amax": partial(_reduced, "Max", "Max"),
    "cat": joined,
    "interpolate": enlarged,
    "pad": padded,
    "slice": sliced,
    **dict.fromkeys(("flatten", "reshape", "view"), _reshaped),
    "permute": permuted,
    **dict.fromkeys(("squeeze", "unsqueeze"), squeezed),
    **dict.fromkeys(("contiguous", "detach", "alias", "clone", "requires_grad"), _same),
}
