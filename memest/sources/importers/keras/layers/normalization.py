"""Norms, dropouts, and layers that scale."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from typing import Any

from memest.errors import UnsupportedError
from memest.sources.builder import Node
from memest.sources.importers.keras.layer import Call
from memest.sources.importers.keras.values import Value


def _affine(call: Call, width: int) -> tuple[Node | None, Node | None]:
    """What a norm scales by and adds."""
    weight = call.parameter("weight", (width,)) if call.setting("scale", True) else None
    bias = call.parameter("bias", (width,)) if call.setting("center", True) else None
    return weight, bias


def _over_channels(call: Call) -> Value:
    """Its tensor with the channels second; UnsupportedError where it is not the channels that it is about."""
    axis = call.setting("axis", -1)
    axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
    value = call.value
    if axis not in (-1, value.rank - 1):
        raise UnsupportedError(f"no rule for axis={axis!r:.40}; give the last one (channels last)")
    return call.orders.moved(value, call.name)


def _batch_norm(call: Call) -> Value:
    value = _over_channels(call)
    width = call.width(value)
    weight, bias = _affine(call, width)
    mean, variance = (call.parameter(role, (width,), buffer=True) for role in ("running_mean", "running_var"))
    own: dict[str, Any] = {} if call.trainable else {"training": False}  # a frozen one runs as in inference
    made = call.made("batch_norm", value.node, mean, variance, weight, bias, eps=float(call.setting("epsilon", 1e-3)), **own)
    return Value(made, value.moved)


def _layer_norm(call: Call) -> Value:
    value = call.orders.plain(call.value, call.name)
    axis = call.setting("axis", -1)
    axes = [axis] if isinstance(axis, int) else list(axis)
    if axes not in ([-1], [value.rank - 1]):
        raise UnsupportedError(f"no rule for axis={axis!r:.40}; give the last one")
    call.refuse(rms_scaling=(None, False))
    width = call.width(value)
    weight, bias = _affine(call, width)
    return Value(call.made("layer_norm", value.node, weight, bias, normalized_shape=(width,), eps=float(call.setting("epsilon", 1e-3))))


def _group_norm(call: Call) -> Value:
    value = _over_channels(call)
    width = call.width(value)
    groups = int(call.setting("groups", 32))
    weight, bias = _affine(call, width)
    own: dict[str, Any] = {"num_groups": width if groups == -1 else groups, "eps": float(call.setting("epsilon", 1e-3))}
    return Value(call.made("group_norm", value.node, weight, bias, **own), value.moved)


def _dropout(call: Call) -> Value:
    noise = call.setting("noise_shape", None)
    if noise is None:
        return _dropped("dropout", call, call.value)
    if len(noise) != call.value.rank or any(n != 1 for n in noise[1:]) or noise[0] == 1:
        raise UnsupportedError(f"no rule for noise_shape={noise!r:.60}; drop elements, or whole samples ([None, 1, 1, 1])")
    return _of_samples(call)


def _of_samples(call: Call) -> Value:
    """Whole samples are dropped: each is one channel."""
    value = call.orders.plain(call.value, call.name)
    shape = value.node.shape
    if float(call.setting("rate", 0.5)) == 0:
        return value
    flat = call.made("reshape", value.node, name="samples", shape=(shape[0], 1, prod(shape[1:])))
    kept = call.made("dropout1d", flat, p=float(call.setting("rate", 0.5)))
    return call.orders.moved(Value(call.made("reshape", kept, name="shaped", shape=tuple(shape))), call.name)


def _spatial_dropout(dims: int, call: Call) -> Value:
    return _dropped(f"dropout{dims}d", call, call.images())


def _dropped(op: str, call: Call, value: Value) -> Value:
    rate = float(call.setting("rate", 0.5))
    if rate == 0:
        return value
    return Value(call.made(op, value.node, p=rate), value.moved)  # what it was built with gives way to the model's mode


def _rescaling(call: Call) -> Value:
    value, scale, offset = call.value, call.setting("scale"), call.setting("offset", 0.0)
    if not all(isinstance(n, int | float) for n in (scale, offset)):
        raise UnsupportedError("no rule for a scale or an offset for each channel")
    scaled = call.made("mul", value.node, name="scale", value=float(scale))
    return Value(call.made("add", scaled, value=float(offset)), value.moved)


def _normalization(call: Call) -> Value:
    value = _over_channels(call)
    call.refuse(invert=(None, False))
    width = call.width(value)
    shape = (1, width, *(1,) * (value.rank - 2)) if value.moved else (*(1,) * (value.rank - 1), width)
    mean, variance = (call.parameter(role, shape, buffer=True) for role in ("mean", "variance"))
    centred = call.made("sub", value.node, mean, name="centred")
    spread = call.made("clamp_min", call.made("sqrt", variance, name="root"), name="spread", min=1e-7)
    return Value(call.made("div", centred, spread), value.moved)


def _layer_scale(call: Call) -> Value:
    value = call.orders.plain(call.value, call.name)
    gamma = call.parameter("gamma", (int(call.setting("projection_dim")),))
    return Value(call.made("mul", value.node, gamma))


def _as_it_is(call: Call) -> Value:
    return call.value


HANDLERS: Mapping[str, Callable[[Call], Value]] = {
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "GroupNormalization": _group_norm,
    "Dropout": _dropout,
    **{f"SpatialDropout{n}D": partial(_spatial_dropout, n) for n in (1, 2, 3)},
    "Rescaling": _rescaling,
    "Normalization": _normalization,
    "LayerScale": _layer_scale,
    "Identity": _as_it_is,
    "ActivityRegularization": _as_it_is,
}
