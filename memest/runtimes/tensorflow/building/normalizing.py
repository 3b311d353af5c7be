"""Batch norm, which Keras 3 never fuses, and dropout.

Source: keras/src/layers/normalization/batch_normalization.py; tensorflow/python/ops/nn_impl.py (moments, batch_normalization).
"""

from __future__ import annotations

from memest.errors import UnsupportedError
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
    noise_shape = value.shape if here.layer.op == "dropout" else (value.shape[0], *(1,) * (len(value.shape) - 1))
    noise = here.part("StatelessRandomUniformV2", f"{random}/StatelessRandomUniformV2", keys, noise_shape, dtypes=("float32",))
    kept = here.part("GreaterEqual", f"{scope}/GreaterEqual", [noise], noise_shape, dtypes=("bool",))
    scaled = here.part("Mul", f"{scope}/Mul", [value], value.shape)
    here.done(here.part("SelectV2", f"{scope}/SelectV2", [kept, scaled], value.shape, dtypes=(value.dtype,)))


def of_samples(here: Here) -> None:
    """Dropout of whole samples, as the importer writes it: each is one channel."""
    if here.value().shape[1:2] != (1,) or here.is_turned():
        raise UnsupportedError("no rule for dropout of channels on tensorflow-cpu; drop elements")
    dropout(here)


TABLE = {"batch_norm": batch_norm, "dropout": dropout, "dropout1d": of_samples}
