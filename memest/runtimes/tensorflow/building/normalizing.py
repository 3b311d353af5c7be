"""Batch norm, which Keras 3 never fuses, and dropout.

Source: keras/src/layers/normalization/batch_normalization.py; tensorflow/python/ops/nn_impl.py (moments, batch_normalization).
"""

from __future__ import annotations

from memest.errors import UnsupportedError
from memest.network.tensor import Shape
from memest.runtimes.tensorflow.building.place import Here
from memest.runtimes.tensorflow.nodes import Value


def batch_norm(here: Here) -> None:
    """Moments of the batch in training, moving ones outside; then a product and a sum."""
    value = here.value()
    channels = value.shape[-1]
    shape = (channels,)
    moving = [here.read(role, shape, name) for role, name in (("running_mean", "Cast"), ("running_var", "Cast_1"))]
    gamma, beta = here.read("weight", shape, "Cast_2"), here.read("bias", shape, "Cast_3")
    if moving[0] is None or moving[1] is None:
        raise UnsupportedError("no rule for a batch norm without moving statistics on tensorflow-cpu: Keras's has them")
    mean, variance = _moments(here, value, moving[0], moving[1]) if here.training else (moving[0], moving[1])
    spread = here.op("AddV2", "batchnorm/add", [variance], shape)
    factor = here.part("Rsqrt", "batchnorm/Rsqrt", [spread], shape)
    if gamma is not None:
        factor = here.op("Mul", "batchnorm/mul", [factor, gamma], shape)
    scaled = here.op("Mul", "batchnorm/mul_1", [value, factor], value.shape)
    offset = here.op("Mul", "batchnorm/mul_2", [mean, factor], shape)
    shift = here.op("Sub", "batchnorm/sub", [beta, offset], shape) if beta is not None else _negative(here, offset)
    here.done(here.op("AddV2", "batchnorm/add_1", [scaled, shift], value.shape))


def _negative(here: Here, offset: Value) -> Value:
    return here.part("Neg", "batchnorm/Neg", [offset], offset.shape)


def _moments(here: Here, value: Value, moving_mean: Value, moving_variance: Value) -> tuple[Value, Value]:
    kept = (*(1,) * (len(value.shape) - 1), value.shape[-1])
    shape = (value.shape[-1],)
    mean = here.part("Mean", "moments/mean", [value], kept, kept=kept)
    squared = here.part("SquaredDifference", "moments/SquaredDifference", [value, mean], value.shape, stops=(1,))
    variance = here.part("Mean", "moments/variance", [squared], kept, kept=kept)
    found = [here.part("Squeeze", "moments/Squeeze", [v], shape) for v in (mean, variance)]
    for role, old, new in (("running_mean", moving_mean, found[0]), ("running_var", moving_variance, found[1])):
        kept_part = here.op("Mul", "mul", [old], shape)
        new_part = here.op("Mul", "mul", [new], shape)
        here.assign(role, here.op("AddV2", "add", [kept_part, new_part], shape))
    return found[0], found[1]


def group_norm(here: Here) -> None:
    """Channels in groups; each group's moments over all places, as a factor and an offset of its channels."""
    value = here.value()
    groups = here.given["num_groups"]
    each = (groups, value.shape[-1] // groups)
    grouped = here.part("Reshape", "Reshape", [value], (*value.shape[:-1], *each))
    axes = {*range(1, len(value.shape) - 1), len(value.shape)}
    made = _by_moments(here, grouped, axes, (*(1,) * (len(value.shape) - 1), *each))
    here.done(here.part("Reshape", "Reshape", [made], value.shape))


def layer_norm(here: Here) -> None:
    """Moments over the last dim."""
    value = here.value()
    if here.is_turned() or len(here.given["normalized_shape"]) != 1:
        raise UnsupportedError("no rule for layer norm over other dims than the last on tensorflow-cpu")
    here.done(_by_moments(here, value, {len(value.shape) - 1}, None))


def _by_moments(here: Here, value: Value, axes: set[int], wide: Shape | None) -> Value:
    """``x * inv + res``: inv is gamma / sqrt(variance), res beta - mean * inv; both parameters in the shape ``wide`` (None: their own)."""
    kept = tuple([1 if n in axes else size for n, size in enumerate(value.shape)])
    mean = here.part("Mean", "moments/mean", [value], kept, kept=kept, keep=True)
    squared = here.part("SquaredDifference", "moments/SquaredDifference", [value, mean], value.shape, stops=(1,))
    variance = here.part("Mean", "moments/variance", [squared], kept, kept=kept, keep=True)
    inverse = here.part("Rsqrt", "Rsqrt", [here.op("AddV2", "add", [variance], kept)], kept)
    gamma = _affine(here, "weight", wide)
    if gamma is not None:
        inverse = here.op("Mul", "mul", [inverse, gamma], _broadcast(kept, gamma.shape))
    negative = here.part("Neg", "Neg", [mean], kept)
    rest = here.op("Mul", "mul", [negative, inverse], inverse.shape)
    beta = _affine(here, "bias", wide)
    if beta is not None:
        rest = here.op("AddV2", "add", [rest, beta], _broadcast(rest.shape, beta.shape))
    scaled = here.op("Mul", "mul", [value, inverse], value.shape)
    return here.op("AddV2", "add", [scaled, rest], value.shape)


def _affine(here: Here, role: str, wide: Shape | None) -> Value | None:
    """A parameter of the channels, in the shape ``wide``."""
    owner = here.roles.get(role)
    if not isinstance(owner, str):
        return None
    shape = here.shape(owner)
    read = here.read(role, shape, "Reshape" if wide else "Cast")
    assert read is not None
    return read if wide is None else here.part("Reshape", "Reshape", [read], wide)


def _broadcast(first: Shape, second: Shape) -> Shape:
    longer, shorter = (first, second) if len(first) >= len(second) else (second, first)
    padded = (*(1,) * (len(longer) - len(shorter)), *shorter)
    return tuple([max(a, b) for a, b in zip(longer, padded, strict=True)])


def dropout(here: Here) -> None:
    """Outside training nothing; in it random numbers, one for each element or sample, are compared and what is below zeroed."""
    value = here.value()
    if not here.training or not here.given.get("p", 0.5):
        here.done(value)
        return
    count = here.net.variable(f"{here.layer.name}/seed", (2,), "int64", "buffer")
    state = here.op("ReadVariableOp", "ReadVariableOp", [], count.shape, dtypes=("int64",), variable=count.name)
    again = here.op("ReadVariableOp", "Add/ReadVariableOp", [], count.shape, dtypes=("int64",), variable=count.name)
    more = here.op("AddV2", "Add", [again], count.shape)
    here.net.fetched.append(here.op("AssignVariableOp", "AssignVariableOp", [more], variable=count.name, after=[state.name]).name)
    seed = here.op("Cast", "Cast", [here.op("FloorMod", "FloorMod", [state], count.shape)], count.shape, dtypes=("int32",))
    scope = "stateless_dropout"
    random = f"{scope}/stateless_random_uniform"
    key = here.part("StatelessRandomGetKeyCounter", f"{random}/StatelessRandomGetKeyCounter", [seed], (1,), (2,), dtypes=("int64", "int64"))
    keys = [key, here.net.output(key, 1)]
    noise_shape = _kept_together(here, value)
    noise = here.part("StatelessRandomUniformV2", f"{random}/StatelessRandomUniformV2", keys, noise_shape, dtypes=("float32",))
    kept = here.part("GreaterEqual", f"{scope}/GreaterEqual", [noise], noise_shape, dtypes=("bool",))
    scaled = here.part("Mul", f"{scope}/Mul", [value], value.shape)
    here.done(here.part("SelectV2", f"{scope}/SelectV2", [kept, scaled], value.shape, dtypes=(value.dtype,)))


def _kept_together(here: Here, value: Value) -> Shape:
    """The shape of the noise: elements, or whole channels of samples."""
    if here.layer.op == "dropout":
        return value.shape
    if not here.is_turned() and value.shape[1:2] != (1,):
        raise UnsupportedError("no rule for dropout of another dim than the channels on tensorflow-cpu; drop elements")
    channels = value.shape[-1:] if here.is_turned() else (1,)  # whole samples, as the importer writes them, are one channel
    return (value.shape[0], *(1,) * (len(value.shape) - 2), *channels)


TABLE = {
    "batch_norm": batch_norm,
    "group_norm": group_norm,
    "layer_norm": layer_norm,
    **dict.fromkeys(("dropout", "dropout1d", "dropout2d", "dropout3d"), dropout),
}
