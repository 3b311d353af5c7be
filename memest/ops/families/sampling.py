"""Sampling where a grid says: ``grid_sample`` keeps input and grid; ``affine_grid`` keeps nothing and makes its coordinates anew in
backward.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from memest.errors import ShapeError, UnsupportedError
from memest.network.dtypes import HALVES
from memest.network.tensor import Shape
from memest.ops.aten.gemm import batched_product, transpose
from memest.ops.aten.iterator import with_number
from memest.ops.aten.views import reshaped
from memest.ops.composite import Composite
from memest.ops.facts import EVERYWHERE_FACTS, FLOAT32, REFUSED, Attributes, called
from memest.ops.operator import REQUIRED, Attribute, Example, Operator, choice, flag, integers, optional
from memest.ops.tape import Tape, Tensor

Saved = dict[str, Any]
Grads = list[Tensor | None]


def _grid_sample(k: Tape, input: Tensor, grid: Tensor, *, mode: str, padding_mode: str, align_corners: bool | None) -> Tensor:
    spatial = input.ndim - 2
    if spatial not in (2, 3) or grid.ndim != input.ndim or grid.shape[0] != input.shape[0] or grid.shape[-1] != spatial:
        raise ShapeError(f"grid_sample of shape {list(input.shape)} by a grid of shape {list(grid.shape)}")
    if input.dtype != grid.dtype:
        raise ShapeError(f"grid_sample of {input.dtype} needs a grid of the same dtype, got {grid.dtype}")
    if mode == "bicubic" and spatial == 3:
        raise ShapeError("grid_sample in mode 'bicubic' takes 4 dimensions")
    if any(n <= 0 for n in input.shape[2:]):
        raise ShapeError(f"grid_sample of nothing: shape {list(input.shape)}")
    k.save(grid=grid, input=input)
    return k.empty((*input.shape[:2], *grid.shape[1:-1]), input.dtype)


def _grid_sample_backward(k: Tape, saved: Saved, grads: Grads, **attributes: Any) -> Grads:
    """Both row-major; the grid's is computed whether anybody wants it or not. Images copy a gradient that does not lie row-major."""
    (grad,) = grads
    assert grad is not None
    input, grid = saved["input"], saved["grid"]
    for_input = k.empty(input.shape, input.dtype) if k.needs[0] else None
    for_grid = k.empty(grid.shape, grid.dtype)
    if input.ndim == 4 and not grad.is_contiguous:
        k.free(k.empty(grad.shape, grad.dtype))
    return [for_input, for_grid]


def _affine_grid(k: Tape, theta: Tensor, *, size: Shape, align_corners: bool | None) -> Tensor:
    spatial = len(size) - 2
    if spatial not in (2, 3) or theta.shape != (size[0], spatial, spatial + 1):
        raise ShapeError(f"affine_grid of size {list(size)} takes matrices of shape [N, {spatial}, {spatial + 1}], got {list(theta.shape)}")
    if any(n <= 0 for n in size):
        raise ShapeError(f"affine_grid of size {list(size)}: all must be greater than 0")
    if theta.dtype in HALVES and 1 in size[2:]:
        raise UnsupportedError(f"torch has no affine_grid of size {list(size)} in {theta.dtype}: convert theta to float32 first")
    base = _coordinates(k, theta.dtype, size, align_corners)
    points = batched_product(k, base, transpose(k, theta, 1, 2))
    k.free(base)
    return k.view(points, (size[0], *size[2:], spatial))


def _affine_grid_backward(k: Tape, saved: Saved, grads: Grads, *, size: Shape, align_corners: bool | None) -> Grads:
    (grad,) = grads
    assert grad is not None
    base = _coordinates(k, grad.dtype, size, align_corners)
    points = reshaped(k, grad, (size[0], prod(size[2:]), len(size) - 2))
    product = batched_product(k, transpose(k, base, 1, 2), points)
    k.free(None if points.slot == grad.slot else points, base)
    return [transpose(k, product, 1, 2)]


def _coordinates(k: Tape, dtype: str, size: Shape, align_corners: bool | None) -> Tensor:
    """``make_base_grid``: homogeneous coordinates of every point, filled from one range per dimension, the last dimension's first."""
    base = k.empty((size[0], prod(size[2:]), len(size) - 1), dtype)
    for n in reversed(size[2:]):
        line = k.empty((n,), dtype)
        if align_corners or n <= 1:
            k.free(line)
            continue
        narrowed = with_number(k, line, 1)
        result = with_number(k, narrowed, 1)
        k.free(result, narrowed, line)
    return base


def _affine_grid_flops(inputs: Sequence[Shape], made: Sequence[Shape], given: Attributes) -> int:
    """Every point's homogeneous coordinates times the matrix of its image."""
    points: Shape = given["size"][2:]
    return 2 * prod(points) * prod(inputs[0])


ROWS = (
    Operator(
        name="grid_sample",
        torch="torch.nn.functional.grid_sample",
        roles=("input", "grid"),
        attributes=(
            Attribute(name="mode", default="bilinear", check=choice("bilinear", "nearest", "bicubic")),
            Attribute(name="padding_mode", default="zeros", check=choice("zeros", "border", "reflection")),
            Attribute(name="align_corners", default=None, check=optional(flag)),
        ),
        forward=_grid_sample,
        saves=("input", "grid"),
        backward=_grid_sample_backward,
        examples=(
            Example(shapes=((2, 3, 4, 5), (2, 6, 7, 2)), attributes={"align_corners": False}, layout="channels_last"),
            Example(shapes=((2, 3, 4, 5), (2, 6, 7, 2)), attributes={"mode": "bicubic", "align_corners": True}, frozen=(1,)),
            Example(shapes=((2, 3, 3, 4, 5), (2, 2, 6, 7, 3)), attributes={"mode": "nearest", "align_corners": False}, frozen=(0,)),
        ),
        facts=EVERYWHERE_FACTS.but(autocast=called("grid_sampler", FLOAT32)),
        source="derivatives.yaml: grid_sampler_2d, grid_sampler_3d; aten/src/ATen/native/GridSampler.cpp",
    ),
    Operator(
        name="affine_grid",
        torch="torch.nn.functional.affine_grid",
        roles=("theta",),
        attributes=(
            Attribute(name="size", default=REQUIRED, check=integers),
            Attribute(name="align_corners", default=None, check=optional(flag)),
        ),
        forward=_affine_grid,
        saves=(),
        backward=_affine_grid_backward,
        examples=(
            Example(shapes=((2, 2, 3),), attributes={"size": (2, 3, 4, 5), "align_corners": False}),
            Example(shapes=((2, 3, 4),), attributes={"size": (2, 3, 2, 4, 5), "align_corners": True}),
            Example(shapes=((1, 2, 3),), attributes={"size": (1, 3, 1, 9), "align_corners": False}),
        ),
        facts=EVERYWHERE_FACTS.but(autocast=REFUSED, flops=_affine_grid_flops),
        source="derivatives.yaml: affine_grid_generator; aten/src/ATen/native/AffineGridGenerator.cpp",
    ),
)
COMPOSITE_ROWS: tuple[Composite, ...] = ()
