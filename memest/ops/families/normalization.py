"""Normalizations. All keep their input and two statistics a channel, group or row; scratch depends on memory format and threads."""

from __future__ import annotations

from math import prod
from typing import Any

from memest.errors import GraphError, ShapeError, UnsupportedError
from memest.network.dtypes import HALVES, opmath
from memest.network.tensor import channels_last_strides, is_channels_last, is_channels_last_strides, is_contiguous
from memest.ops.aten.copies import contiguous, suggests_channels_last
from memest.ops.aten.iterator import elementwise, empty_like, scalar, with_number
from memest.ops.aten.reductions import mean_into, sum_into
from memest.ops.composite import Caller, Composite
from memest.ops.facts import BATCH, EVERYWHERE_CALLS, EVERYWHERE_FACTS, POINTWISE_CALLS, POINTWISE_FACTS, SAMPLE
from memest.ops.operator import REQUIRED, Attribute, Example, Operator, flag, integer, integers, number, optional
from memest.ops.roles import in_order, note_given, wanted
from memest.ops.tape import Tape, Tensor

_GROUP_NORM_FORWARD_THRESHOLD = 1024
_GROUP_NORM_BACKWARD_THRESHOLD = 2048


def _statistics_dtype(input: Tensor, *parameters: Tensor | None) -> str:
    """Half inputs with float parameters keep float statistics (``is_mixed_type``)."""
    mixed = input.dtype in HALVES and any(p is not None and p.dtype == "float32" for p in parameters)
    return "float32" if mixed else input.dtype


def _check_length(op: str, role: str, t: Tensor | None, length: int) -> None:
    if t is not None and t.shape != (length,):
        raise ShapeError(f"{op} of {length} channels needs a {role} of {length} values, got shape {list(t.shape)}")


# batch norm ------------------------------------------------------------------------------------------------------------


def _dense(t: Tensor) -> bool:
    return is_contiguous(t.shape, t.strides) or is_channels_last(t.shape, t.strides)


def _all_but_channels(t: Tensor) -> list[int]:
    return [d for d in range(t.ndim) if d != 1]


def _by_columns(t: Tensor) -> bool:
    """True when channels are innermost: the channels-last kernels, which also take N×C."""
    return not t.is_contiguous or t.numel == t.shape[0] * t.shape[1]


def check_batch_norm(input: Tensor, training: bool, ranks: int = 1, **per_channel: Tensor | None) -> None:
    """Refuse what torch refuses."""
    if input.ndim < 2:
        raise ShapeError(f"batch_norm needs at least 2 dims (batch, channels), got shape {list(input.shape)}")
    for role, t in per_channel.items():
        _check_length("batch_norm", role, t, input.shape[1])
    if training and ranks < 2 and input.numel == input.shape[1]:
        raise ShapeError(f"batch_norm in training needs more than 1 value per channel, got shape {list(input.shape)}")
    if not training and (per_channel["running_mean"] is None or per_channel["running_var"] is None):
        raise GraphError("batch_norm outside training needs running_mean and running_var")


def _batch_norm(
    k: Tape,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    num_batches_tracked: Tensor | None,
    *,
    training: bool,
    momentum: float,
    eps: float,
    ranks: int | None,
) -> Tensor:
    if training and k.training and ranks is not None and ranks > 1:
        raise UnsupportedError("batch_norm of several ranks (nn.SyncBatchNorm) trains on a GPU alone, as torch says; name a card")
    if training and num_batches_tracked is not None:
        k.free(*(scalar(k, 1) for _ in range(1 + k.target.dispatched)))  # torch.nn.BatchNorm: num_batches_tracked.add_(1)
    check_batch_norm(input, training, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    note_given(
        k,
        input=input,
        running_mean=running_mean,
        running_var=running_var,
        weight=weight,
        bias=bias,
        num_batches_tracked=num_batches_tracked,
    )
    dtype = _statistics_dtype(input, weight, bias, running_mean, running_var)
    channels = input.shape[1]
    last = not input.is_contiguous if _dense(input) else suggests_channels_last(input)
    k.save(input=input, running_mean=running_mean, running_var=running_var, weight=weight)
    out = k.empty(input.shape, input.dtype, channels_last_strides(input.shape) if last else None)
    save_mean, save_invstd = _statistics(k, input, dtype) if training else (k.empty((0,), dtype), k.empty((0,), dtype))
    if _dense(input) and _dense(out):
        terms = opmath(dtype)
        k.free(k.empty((channels,), terms), k.empty((channels,), terms))
    else:
        _transform_strided(k, running_var, weight, bias, training, dtype)
    k.save(save_mean=save_mean, save_invstd=save_invstd)
    return out


def _statistics(k: Tape, input: Tensor, dtype: str) -> tuple[Tensor, Tensor]:
    """batch_norm_cpu_update_stats: mean and inverse deviation of each channel."""
    channels = input.shape[1]
    save_mean = k.empty((channels,), dtype)
    if not _dense(input):
        mean_into(k, input, save_mean, _all_but_channels(input))
        return save_mean, k.empty((channels,), dtype)
    save_invstd = k.empty((channels,), dtype)
    terms = "float32" if dtype == "float16" else dtype
    mean, var_sum = k.empty((channels,), terms), k.empty((channels,), terms)
    if _by_columns(input) and (input.dtype in HALVES or input.numel // channels > k.target.cpu.threads):
        k.free(k.empty((k.target.cpu.threads, channels), opmath(input.dtype)))
    k.free(var_sum, mean)
    return save_mean, save_invstd


def _transform_strided(k: Tape, running_var: Tensor | None, weight: Tensor | None, bias: Tensor | None, training: bool, dtype: str) -> None:
    """batch_norm_cpu_transform_input of an input that is not dense: one TensorIterator over broadcast statistics."""
    scratch: list[Tensor] = []
    if not training:
        assert running_var is not None
        shifted = with_number(k, running_var, 1.0)
        deviation = elementwise(k, shifted)
        scratch.append(elementwise(k, deviation))
        k.free(deviation, shifted)
    scratch.extend(k.empty((), dtype) for t in (weight, bias) if t is None)
    k.free(*reversed(scratch))


def _batch_norm_backward(
    k: Tape, saved: dict[str, Any], grads: list[Tensor | None], *, training: bool, momentum: float, eps: float, ranks: int | None
) -> list[Tensor | None]:
    (grad,) = grads
    assert grad is not None
    input, weight = saved["input"], saved.get("weight")
    dtype = saved["save_mean"].dtype
    wants = wanted(k, saved)
    channels = input.shape[1]
    grad_input = _empty_suggested(k, input) if "input" in wants else None
    grad_weight = k.empty((channels,), dtype) if "weight" in wants else None
    grad_bias = k.empty((channels,), dtype) if "bias" in wants else None
    if not (_dense(input) and _dense(grad) and suggests_channels_last(input) == suggests_channels_last(grad)):
        cast = empty_like(k, grad, "float32") if grad.dtype == "float16" else grad
        total = k.empty((channels,), cast.dtype)
        sum_into(k, cast, total, _all_but_channels(grad))
        k.free(None if cast is grad else cast, total)
    else:
        if grad_input is not None:
            dense = k.empty(input.shape, input.dtype, None if input.is_contiguous else channels_last_strides(input.shape))
            k.free(grad_input)
            grad_input = dense
        if _by_columns(input):
            _backward_by_columns(k, input, dtype, weight, training)
    return in_order(saved, input=grad_input, weight=grad_weight, bias=grad_bias)


def _empty_suggested(k: Tape, t: Tensor) -> Tensor:
    return k.empty(t.shape, t.dtype, channels_last_strides(t.shape) if suggests_channels_last(t) else None)


def _backward_by_columns(k: Tape, input: Tensor, dtype: str, weight: Tensor | None, training: bool) -> None:
    """Half inputs have weight, mean and inverse deviation as floats of their own."""
    channels = (input.shape[1],)
    if input.dtype in HALVES:
        terms = [k.empty(channels, "float32") for _ in range(3)]
    else:
        terms = [k.empty(channels, dtype) for missing in (weight is None, not training) if missing]
    sums = k.empty((2, k.target.cpu.threads, *channels), opmath(dtype))
    k.free(sums, *reversed(terms))


# group norm ------------------------------------------------------------------------------------------------------------


def check_group_norm(input: Tensor, weight: Tensor | None, bias: Tensor | None, num_groups: int) -> None:
    """Refuse what torch refuses."""
    if input.ndim < 2:
        raise ShapeError(f"group_norm needs at least 2 dims (batch, channels), got shape {list(input.shape)}")
    n, channels = input.shape[:2]
    if num_groups < 1 or channels % num_groups:
        raise ShapeError(f"group_norm cannot split {channels} channels into {num_groups} groups")
    if n * channels // num_groups * prod(input.shape[2:]) == 1:
        raise ShapeError(f"group_norm needs more than 1 value per group, got shape {list(input.shape)} and {num_groups} groups")
    for role, t in (("weight", weight), ("bias", bias)):
        _check_length("group_norm", role, t, channels)


def _group_norm(k: Tape, input: Tensor, weight: Tensor | None, bias: Tensor | None, *, num_groups: int, eps: float) -> Tensor:
    check_group_norm(input, weight, bias, num_groups)
    n, channels = input.shape[:2]
    note_given(k, input=input, weight=weight, bias=bias)
    dtype = _statistics_dtype(input, weight, bias)
    last = suggests_channels_last(input)
    keeps_input = k.target.version >= (2, 14)  # native_group_norm makes the contiguous copy itself, after its results, and drops it
    x = input if keeps_input else contiguous(k, input, channels_last=last)
    k.save(input=x, weight=weight)
    out = k.empty(x.shape, x.dtype, channels_last_strides(x.shape) if last else None)
    mean, rstd = k.empty((n, num_groups), dtype), k.empty((n, num_groups), dtype)
    read = contiguous(k, x, channels_last=last)
    if last:
        scratch = _group_norm_scratch(k, x, num_groups, _GROUP_NORM_FORWARD_THRESHOLD)
        k.free(*reversed(scratch or [k.empty((n, 2 * channels), opmath(x.dtype))]))
    if read is not x:
        k.free(read)
    k.save(mean=mean, rstd=rstd)
    return out


def _group_norm_scratch(k: Tape, x: Tensor, groups: int, threshold: int) -> list[Tensor]:
    """Sums per thread, and per group, of the channels-last kernels on planes of ``threshold`` elements or more."""
    n, channels = x.shape[:2]
    if prod(x.shape[2:]) < threshold:
        return []
    dtype = opmath(x.dtype)
    return [k.empty((k.target.cpu.threads, n, 2 * channels), dtype), k.empty((n, 2 * groups), dtype)]


def _group_norm_backward(k: Tape, saved: dict[str, Any], grads: list[Tensor | None], *, num_groups: int, eps: float) -> list[Tensor | None]:
    (grad,) = grads
    assert grad is not None
    x = saved["input"]
    wants = wanted(k, saved)
    n, channels = x.shape[:2]
    last = suggests_channels_last(x)
    dy = contiguous(k, grad, channels_last=last)
    copy = contiguous(k, x, channels_last=last)
    dx = k.empty(copy.shape, copy.dtype, copy.strides) if "input" in wants else None
    dgamma = k.empty((channels,), saved["mean"].dtype) if "weight" in wants else None
    dbeta = k.empty((channels,), saved["mean"].dtype) if "bias" in wants else None
    dtype = opmath(x.dtype)
    ds, db = k.empty((n, channels), dtype), k.empty((n, channels), dtype)
    if last:
        k.free(*reversed(_group_norm_scratch(k, x, num_groups, _GROUP_NORM_BACKWARD_THRESHOLD)))
    k.free(db, ds)
    if copy is not x:
        k.free(copy)
    if dy is not grad:
        k.free(dy)
    return in_order(saved, input=dx, weight=dgamma, bias=dbeta)


# layer norm ------------------------------------------------------------------------------------------------------------


def check_normalized(op: str, shape: tuple[int, ...], normalized: tuple[int, ...], **parameters: tuple[int, ...] | None) -> None:
    """Refuse what torch refuses."""
    if not normalized or shape[len(shape) - len(normalized) :] != normalized or len(shape) < len(normalized):
        raise ShapeError(f"{op} over {list(normalized)} needs an input that ends in these sizes, got shape {list(shape)}")
    for role, got in parameters.items():
        if got is not None and got != normalized:
            raise ShapeError(f"{op} over {list(normalized)} needs a {role} of that shape, got {list(got)}")


def _shape(t: Any) -> tuple[int, ...] | None:
    return None if t is None else tuple(t.shape)


def _layer_norm(
    k: Tape, input: Tensor, weight: Tensor | None, bias: Tensor | None, *, normalized_shape: tuple[int, ...], eps: float
) -> Tensor:
    check_normalized("layer_norm", input.shape, normalized_shape, weight=_shape(weight), bias=_shape(bias))
    note_given(k, input=input, weight=weight, bias=bias)
    outer = input.shape[: input.ndim - len(normalized_shape)] + (1,) * len(normalized_shape)
    dtype = _statistics_dtype(input, weight, bias)
    k.save(bias=bias, input=input, weight=weight)
    x = contiguous(k, input)
    out = k.empty(input.shape, input.dtype)
    mean, rstd = k.empty(outer, dtype), k.empty(outer, dtype)
    k.free(None if x is input else x)
    k.save(mean=mean, rstd=rstd)
    return out


def _layer_norm_backward(
    k: Tape, saved: dict[str, Any], grads: list[Tensor | None], *, normalized_shape: tuple[int, ...], eps: float
) -> list[Tensor | None]:
    (grad,) = grads
    assert grad is not None
    wants = wanted(k, saved)
    input = saved["input"]
    x = contiguous(k, input)
    dx = k.empty(x.shape, x.dtype) if "input" in wants else None
    dgamma = k.empty(normalized_shape, saved["weight"].dtype) if "weight" in wants else None
    dbeta = k.empty(normalized_shape, saved["bias"].dtype) if "bias" in wants else None
    dy = contiguous(k, grad)
    if dgamma is not None or dbeta is not None:
        k.free(k.empty((2, k.target.cpu.threads, *normalized_shape), x.dtype))
    k.free(None if dy is grad else dy, None if x is input else x)
    return in_order(saved, input=dx, weight=dgamma, bias=dbeta)


# composites ------------------------------------------------------------------------------------------------------------


def _rms_norm(c: Caller, input: Any, weight: Any, *, normalized_shape: tuple[int, ...], eps: float | None) -> Any:
    check_normalized("rms_norm", input.shape, normalized_shape, weight=_shape(weight))
    dims = tuple(range(len(input.shape) - len(normalized_shape), len(input.shape)))
    half = input.spec.dtype in HALVES
    wide = c.call("to", input, dtype="float32") if half else input
    squares = c.call("pow", wide, None, exponent=2)
    mean = c.call("mean", squares, dim=dims, keepdim=True)
    shifted = c.call("add", mean, None, value=1e-6 if eps is None else eps, inplace=True)
    scale = c.call("rsqrt", shifted)
    c.drop(shifted, mean, squares)
    out = c.call("mul", wide, scale)
    if weight is not None:
        scaled, out = out, c.call("mul", out, weight)
        c.drop(scaled)
    if half:
        computed, out = out, c.call("to", out, dtype=input.spec.dtype)
        c.drop(computed)
    return out if is_channels_last_strides(input.shape, input.spec.strides) else c.call("contiguous", out)


def _instance_norm(
    c: Caller,
    input: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any,
    bias: Any,
    *,
    use_input_stats: bool | None,
    momentum: float,
    eps: float,
) -> Any:
    shape = input.shape
    if len(shape) < 3:
        raise ShapeError(f"instance_norm needs at least 3 dims (batch, channels, space), got shape {list(shape)}")
    tracked = running_mean is not None and running_var is not None
    own = (c.training or not tracked) if use_input_stats is None else use_input_stats
    if own and prod(shape[2:]) == 1:
        raise ShapeError(f"instance_norm in training needs more than 1 spatial element, got shape {list(shape)}")
    if not own and not tracked:
        raise GraphError("instance_norm without the input's statistics needs running_mean and running_var")
    n, channels = shape[:2]
    repeated = [None if t is None else c.call("repeat", t, repeats=(n,)) for t in (weight, bias, running_mean, running_var)]
    flat = c.call("view", c.call("contiguous", input), shape=(1, n * channels, *shape[2:]))
    out = c.call("batch_norm", flat, repeated[2], repeated[3], repeated[0], repeated[1], None, training=own, momentum=momentum, eps=eps)
    averaged = own or c.target.version < (2, 11)  # the running statistics; up to 2.10 also where they are only read
    for stat in repeated[2:]:
        if averaged and stat is not None:
            rows = c.call("view", stat, shape=(n, channels))
            c.drop(c.call("mean", rows, dim=(0,)), rows)
    return c.call("view", out, shape=shape)


def _local_response_norm(c: Caller, input: Any, *, size: int, alpha: float, beta: float, k: float) -> Any:
    shape = input.shape
    if len(shape) < 3:
        raise ShapeError(f"local_response_norm needs at least 3 dims (batch, channels, space), got shape {list(shape)}")
    flat = len(shape) == 3
    around = (0, 0) * (1 if flat else 2) + (size // 2, (size - 1) // 2)
    squares = c.call("mul", input, input)
    if flat:
        volume = c.call("unsqueeze", squares, dim=1)
    else:
        volume = c.call("view", squares, shape=(shape[0], 1, shape[1], shape[2], prod(shape[3:])))
    c.drop(squares)
    padded = c.call("pad", volume, pad=around)
    c.drop(volume)
    window = (size, 1) if flat else (size, 1, 1)
    pooled = c.call("avg_pool2d" if flat else "avg_pool3d", padded, kernel_size=window, stride=1)
    div = c.call("squeeze", pooled, dim=1)
    c.drop(padded, pooled)
    if not flat:
        squeezed, div = div, c.call("view", div, shape=shape)
        c.drop(squeezed)
    scaled = c.call("mul", div, None, value=alpha)
    shifted = c.call("add", scaled, None, value=k)
    c.drop(scaled)
    power = c.call("pow", shifted, None, exponent=beta)
    c.drop(shifted, div)
    return c.call("div", input, power)


# rows ------------------------------------------------------------------------------------------------------------------

_EPS = Attribute(name="eps", default=1e-5, check=number)
_MOMENTUM = Attribute(name="momentum", default=0.1, check=number)
_RANKS = Attribute(name="ranks", default=1, check=optional(integer))
"""Whose statistics are taken: this process's, or those of so many; None: of all ranks of the run (nn.SyncBatchNorm)."""
_TRAIN = {"training": True}
_EVAL = {"training": False}


def _batch_norm_example(
    shape: tuple[int, ...], training: bool, layout: str = "contiguous", affine: bool = True, tracked: bool = True, counted: bool = False
) -> Example:
    c = (shape[1],)
    shapes = (shape, *((c, c) if tracked else (None, None)), *((c, c) if affine else (None, None)), () if counted else None)
    dtypes = ("float32",) * 5 + ("int64",)
    return Example(shapes=shapes, attributes=_TRAIN if training else _EVAL, dtypes=dtypes, layout=layout, frozen=(1, 2))


ROWS = (
    Operator(
        name="batch_norm",
        torch="torch.nn.functional.batch_norm",
        oracle="batch_norm",
        roles=("input", "running_mean?", "running_var?", "weight?", "bias?", "num_batches_tracked?"),
        attributes=(Attribute(name="training", default=None, check=optional(flag)), _MOMENTUM, _EPS, _RANKS),
        forward=_batch_norm,
        saves=("input", "running_mean", "running_var", "weight", "save_mean", "save_invstd"),
        backward=_batch_norm_backward,
        examples=(
            _batch_norm_example((2, 7, 4, 5), True),
            _batch_norm_example((2, 7, 4, 5), True, counted=True),
            _batch_norm_example((2, 7, 4, 5), False, counted=True),
            _batch_norm_example((2, 7, 4, 5), True, "channels_last"),
            _batch_norm_example((2, 7, 4, 5), False, "channels_last", affine=False),
            _batch_norm_example((6, 7), True, affine=False),
            _batch_norm_example((2, 7), True, affine=False),
            _batch_norm_example((2, 3, 4, 5, 3), True, tracked=False),
            _batch_norm_example((5, 7, 4, 2), True, "transposed"),
            _batch_norm_example((5, 7, 4, 2), False, "transposed", affine=False),
        ),
        facts=POINTWISE_FACTS.but(statistics=BATCH),
        source="derivatives.yaml: native_batch_norm; aten/src/ATen/native/Normalization.cpp, cpu/batch_norm_kernel.cpp",
    ),
    Operator(
        name="group_norm",
        torch="torch.nn.functional.group_norm",
        roles=("input", "weight?", "bias?"),
        attributes=(Attribute(name="num_groups", default=REQUIRED, check=integer), _EPS),
        forward=_group_norm,
        saves=("input", "weight", "mean", "rstd"),
        backward=_group_norm_backward,
        examples=(
            Example(shapes=((2, 8, 4, 5), (8,), (8,)), attributes={"num_groups": 4}),
            Example(shapes=((2, 8, 4, 5), None, None), attributes={"num_groups": 2}, layout="channels_last"),
            Example(shapes=((2, 8, 3, 5, 4), (8,), (8,)), attributes={"num_groups": 8}, layout="channels_last"),
            Example(shapes=((1, 4, 50, 50), (4,), (4,)), attributes={"num_groups": 2}, layout="channels_last"),
            Example(shapes=((5, 8, 4, 2), (8,), (8,)), attributes={"num_groups": 4}, layout="transposed"),
        ),
        facts=POINTWISE_FACTS.but(statistics=SAMPLE),
        source="derivatives.yaml: native_group_norm; aten/src/ATen/native/group_norm.cpp, cpu/group_norm_kernel.cpp",
    ),
    Operator(
        name="layer_norm",
        torch="torch.nn.functional.layer_norm",
        roles=("input", "weight?", "bias?"),
        attributes=(Attribute(name="normalized_shape", default=REQUIRED, check=integers), _EPS),
        forward=_layer_norm,
        saves=("bias", "input", "weight", "mean", "rstd"),
        backward=_layer_norm_backward,
        examples=(
            Example(shapes=((2, 5, 8), (8,), (8,)), attributes={"normalized_shape": (8,)}),
            Example(shapes=((2, 5, 8), (5, 8), None), attributes={"normalized_shape": (5, 8)}),
            Example(shapes=((2, 5, 8), None, None), attributes={"normalized_shape": (8,)}),
            Example(shapes=((6, 3, 4, 2), (2,), (2,)), attributes={"normalized_shape": (2,)}, layout="channels_last"),
        ),
        facts=EVERYWHERE_FACTS.but(statistics=SAMPLE),
        source="derivatives.yaml: native_layer_norm; aten/src/ATen/native/layer_norm.cpp, cpu/layer_norm_kernel.cpp",
    ),
)
COMPOSITE_ROWS = (
    Composite(
        name="rms_norm",
        torch="torch.nn.functional.rms_norm",
        roles=("input", "weight?"),
        attributes=(
            Attribute(name="normalized_shape", default=REQUIRED, check=integers),
            Attribute(name="eps", default=None, check=optional(number)),
        ),
        compose=_rms_norm,
        examples=(
            Example(shapes=((2, 5, 8), (8,)), attributes={"normalized_shape": (8,)}),
            Example(shapes=((2, 5, 8), None), attributes={"normalized_shape": (5, 8)}),
        ),
        facts=EVERYWHERE_CALLS.but(statistics=SAMPLE),
        source="aten/src/ATen/native/layer_norm.cpp (rms_norm, rms_norm_composite)",
    ),
    Composite(
        name="instance_norm",
        torch="torch.nn.functional.instance_norm",
        roles=("input", "running_mean?", "running_var?", "weight?", "bias?"),
        attributes=(Attribute(name="use_input_stats", default=None, check=optional(flag)), _MOMENTUM, _EPS),
        compose=_instance_norm,
        examples=(
            Example(shapes=((2, 3, 4, 5), None, None, None, None), attributes={"use_input_stats": True}),
            Example(shapes=((2, 3, 4, 5), None, None, (3,), (3,)), attributes={"use_input_stats": True}, layout="channels_last"),
            Example(shapes=((2, 3, 4, 5, 2), (3,), (3,), (3,), (3,)), attributes={"use_input_stats": True}, frozen=(1, 2)),
            Example(shapes=((2, 3, 4, 5), (3,), (3,), (3,), (3,)), attributes={"use_input_stats": False}, frozen=(1, 2)),
        ),
        facts=POINTWISE_CALLS.but(statistics=SAMPLE),
        source="aten/src/ATen/native/Normalization.cpp (instance_norm)",
    ),
    Composite(
        name="local_response_norm",
        torch="torch.nn.functional.local_response_norm",
        roles=("input",),
        attributes=(
            Attribute(name="size", default=REQUIRED, check=integer),
            Attribute(name="alpha", default=1e-4, check=number),
            Attribute(name="beta", default=0.75, check=number),
            Attribute(name="k", default=1.0, check=number),
        ),
        compose=_local_response_norm,
        examples=(
            Example(shapes=((2, 8, 4, 5),), attributes={"size": 3}),
            Example(shapes=((2, 8, 4),), attributes={"size": 4}),
            Example(shapes=((2, 8, 4, 5, 3),), attributes={"size": 5}),
        ),
        facts=POINTWISE_CALLS,
        source="torch/nn/functional.py (local_response_norm)",
    ),
)
