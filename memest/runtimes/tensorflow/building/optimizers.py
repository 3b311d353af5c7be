"""Keras's optimizers: the operations of a step, variable by variable, which run as soon as the gradient is there.

Source: keras/src/optimizers; slots stand from the first step on (they are made when the optimizer is built, before it runs).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from memest.errors import UnsupportedError
from memest.network.tensor import Shape
from memest.runtimes.tensorflow.nodes import Net, Value
from memest.runtimes.torch.optimizers import Optimizer


class Update:
    """The step of one variable: operations named under the optimizer, slots of the variable's size."""

    def __init__(self, net: Net, scope: str, variable: str, gradient: Value) -> None:
        self.net, self.scope, self.variable, self.gradient = net, scope, variable, gradient
        self.shape = gradient.shape

    def slot(self, name: str) -> str:
        """A slot of the variable's shape."""
        full = f"{self.variable}/{name}"
        if full not in self.net.variables:
            self.net.variable(full, self.shape, category="optimizer_state")
        return full

    def op(self, op: str, name: str, *inputs: Value | Read) -> Value:
        """An operation that gives as much as the variable holds."""
        return self._made(op, name, inputs, self.shape, "float32", "")

    def scalar(self, op: str, name: str, *inputs: Value | Read, dtype: str = "float32", constant: str = "") -> Value:
        """An operation that gives a number; the ``constant`` that it reads besides tells it from another of the same inputs."""
        return self._made(op, name, inputs, (), dtype, constant)

    def cast(self, read: Read | None = None) -> Value | None:
        """What Keras calls a cast: a name, and a variable read under it."""
        name = self.net.unique(f"{self.scope}/Cast")
        return None if read is None else self._read(read, name)

    def _made(self, op: str, name: str, inputs: Sequence[Value | Read], shape: Shape, dtype: str, constant: str) -> Value:
        full = self.net.unique(f"{self.scope}/{name}")
        values = [self._read(i, full) if isinstance(i, Read) else i for i in inputs]
        return self.net.op(op, full, values, shape, dtypes=(dtype,), named=True, constant=constant)

    def _read(self, read: Read, name: str) -> Value:
        known = self.net.variables[read.variable]
        after = () if read.after is None else (read.after.name,)
        return self.net.op(
            "ReadVariableOp", f"{name}/ReadVariableOp", [], known.shape, dtypes=(known.dtype,), variable=known.name, after=after
        )

    def assign(self, op: str, variable: str, value: Value) -> Value:
        """A variable takes, or adds or subtracts, a value."""
        done = self.net.op(op, f"{self.scope}/{op}", [value], variable=variable)
        self.net.fetched.append(done.name)
        return done


class Read(NamedTuple):
    """A variable to be read, once another node has run."""

    variable: str
    after: Value | None = None


RATE, STEP = Read("learning_rate"), Read("iteration")


def _rate(u: Update) -> Value:
    rate = u.cast(RATE)
    assert rate is not None
    return rate


def adam(u: Update) -> None:
    """m and v move towards g and g squared; then the variable by m / sqrt(v)."""
    rate = _rate(u)
    u.cast()  # the gradient, which has the dtype already
    step = u.scalar("Cast", "Cast", u.scalar("AddV2", "Add", STEP, dtype="int64"))
    u.cast(), u.cast()  # both powers' bases are constants
    first, second = (u.scalar("Pow", "Pow", step, constant=name) for name in ("beta_1", "beta_2"))
    root = u.scalar("Sqrt", "Sqrt", u.scalar("Sub", "sub", second))
    alpha = u.scalar("Mul", "mul", rate, root)
    alpha = u.scalar("RealDiv", "truediv", alpha, u.scalar("Sub", "sub", first))
    m, v = u.slot("momentum"), u.slot("velocity")
    done = u.assign("AssignAddVariableOp", m, u.op("Mul", "Mul", u.op("Sub", "Sub", u.gradient, Read(m))))
    squared = u.op("Square", "Square", u.gradient)
    also = u.assign("AssignAddVariableOp", v, u.op("Mul", "Mul", u.op("Sub", "Sub", squared, Read(v))))
    moved = u.op("Mul", "Mul", Read(m, done), alpha)
    variance = u.cast(Read(v, also))
    assert variance is not None
    spread = u.op("AddV2", "Add", u.op("Sqrt", "Sqrt", variance))
    u.assign("AssignSubVariableOp", u.variable, u.op("RealDiv", "truediv", moved, spread))


def sgd(u: Update) -> None:
    """The variable moves against the gradient."""
    u.assign("AssignSubVariableOp", u.variable, u.op("Mul", "Mul", u.gradient, _rate(u)))


def momentum(u: Update) -> None:
    """A slot remembers where the variable went."""
    rate, slot = _rate(u), u.slot("momentum")
    u.cast()  # the gradient
    kept = u.op("Mul", "Mul", Read(slot))
    done = u.assign("AssignVariableOp", slot, u.op("Sub", "Sub", kept, u.op("Mul", "Mul", u.gradient, rate)))
    moved = u.cast(Read(slot, done))
    assert moved is not None
    u.assign("AssignAddVariableOp", u.variable, moved)


def rmsprop(u: Update) -> None:
    """A slot remembers the gradient's square."""
    rate, v = _rate(u), u.slot("velocity")
    kept = u.op("Mul", "Mul", Read(v))
    squared = u.op("Mul", "Mul", u.op("Square", "Square", u.gradient))
    done = u.assign("AssignVariableOp", v, u.op("AddV2", "Add", kept, squared))
    scaled = u.op("Mul", "Mul", rate, u.gradient)
    inverse = u.op("Rsqrt", "Sqrt", u.op("AddV2", "Add", Read(v, done)))  # a quotient by a root is a product with its inverse
    u.assign("AssignSubVariableOp", u.variable, u.op("Mul", "truediv", scaled, inverse))


def decay(u: Update) -> None:
    """The variable loses a share of itself, before anything else is done, while others still read it."""
    share = u.scalar("Mul", "mul", _rate(u))
    u.cast()
    name = u.net.unique(f"{u.scope}/ReadVariableOp")
    value = u.net.op("ReadVariableOp", name, [], u.shape, variable=u.variable, named=True)
    readers = [n.name for n in u.net.nodes.values() if n.op == "ReadVariableOp" and n.variable == u.variable and n.phase == "forward"]
    done = u.net.op(
        "AssignSubVariableOp", f"{u.scope}/AssignSubVariableOp", [u.op("Mul", "mul", value, share)], variable=u.variable, after=readers
    )
    u.net.fetched.append(done.name)


def chosen(optimizer: Optimizer) -> tuple[str, Callable[[Update], None]]:
    """Keras's name and its step. UnsupportedError for an optimizer, or an option of it, without a rule."""
    options: Mapping[str, Any] = dict(optimizer.options)
    decayed = [k for k in ("weight_decay", "nesterov", "amsgrad", "centered", "momentum") if options.get(k)]
    if optimizer.name == "sgd" and decayed in ([], ["momentum"]):
        return "sgd", momentum if decayed else sgd
    if optimizer.name == "adam" and not decayed:
        return "adam", adam
    if optimizer.name == "adamw" and decayed in ([], ["weight_decay"]):
        return "adam_w", adam
    if optimizer.name == "rmsprop" and not decayed:
        return "rm_sprop", rmsprop
    raise UnsupportedError(f"no rule for optimizer {optimizer.text!r} on tensorflow-cpu; there are sgd, sgd:momentum, adam, adamw, rmsprop")


def updated(net: Net, optimizer: Optimizer, gradients: Mapping[str, Value], trainable: list[str]) -> None:
    """All variables' steps, in Keras's order."""
    scope, step = chosen(optimizer)
    net.variable("iteration", (), "int64", "optimizer_state")
    net.variable("learning_rate", (), "float32", "optimizer_state")
    net.layer, net.phase = "optimizer", "optimizer"
    trained = [name for name in trainable if name in gradients]
    if optimizer.name == "adamw":
        for name in trained:
            decay(Update(net, scope, name, gradients[name]))
    for name in trained:
        step(Update(net, scope, name, gradients[name]))
    reads = [n.name for n in net.nodes.values() if n.op == "ReadVariableOp" and n.variable == "iteration"]
    name = net.unique("Add")
    count = net.op("ReadVariableOp", f"{name}/ReadVariableOp", [], (), dtypes=("int64",), variable="iteration")
    more = net.op("AddV2", name, [count], (), dtypes=("int64",), named=True)
    net.fetched.append(net.op("AssignVariableOp", "AssignVariableOp", [more], variable="iteration", after=reads).name)
