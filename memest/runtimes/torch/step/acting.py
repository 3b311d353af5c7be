"""What a whole step does beside calling operators: backward, the optimizers' steps, gradients read, written and let go of.

Each action is a layer whose operator is one of ``ACTIONS``. A gradient that stands has a name like any tensor, bound by the backward that
made it: ``forget_gradients`` is ``p.grad = None``, after which it lives as long as its name does.

Sources: torch/csrc/autograd/engine.cpp, torch/csrc/autograd/functions/accumulate_grad.cpp (a leaf whose gradients were turned off since
takes none), torch/optim/optimizer.py (group by group), torch/nn/utils/clip_grad.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from memest.errors import GraphError, UnsupportedError
from memest.memory.stream import Storage
from memest.network.graph import Layer
from memest.network.tensor import nbytes
from memest.runtimes.torch import optimizers
from memest.runtimes.torch.autograd import AccumulateGrad
from memest.runtimes.torch.ledger import Value
from memest.runtimes.torch.step.clipping import play_norm, play_scaling
from memest.runtimes.torch.step.exchanging import follow
from memest.runtimes.torch.step.run import Run

Env = dict[str, Value]
Found = list[tuple[str, Value]]


class Acting:
    """The actions of one run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._stated: dict[tuple[str, str], int] = {}
        self._exchanged: list[Storage] = []

    def __contains__(self, op: object) -> bool:
        return op in ACTIONS

    def act(self, layer: Layer, env: Env) -> None:
        """Do what ``layer`` says, and bind its outputs in ``env``. GraphError where the step cannot be as it is described."""
        ledger = self._run.ledger
        found = self.done(layer, env)
        expected = dict(layer.attributes).get("leaves")
        if expected is not None and sorted(name for name, _ in found) != sorted(expected):
            raise GraphError(f"gives gradients to {len(found)} tensors, described for {len(expected)}; please report it")
        values = dict(found)
        order = [name for name, _ in found] if expected is None else expected
        for name, out in zip(order, layer.outputs, strict=False):  # leaves without a name of their own come last
            env[out] = ledger.hold(values[name])
            self._run.specs[out] = values[name].spec
        for _, value in found if expected is None else ():
            ledger.let_go(value)

    def done(self, layer: Layer, env: Env) -> Found:
        """The action itself: what it gives, by the name of the tensor that it is given for (not of a leaf: held)."""
        ledger = self._run.ledger
        before = ledger.phase, ledger.layer, ledger.op
        try:
            with self._run.caller.amid(layer.autocast):
                found: Found = ACTIONS[layer.op](self, layer, env)
            return found
        finally:
            ledger.phase, ledger.layer, ledger.op = before

    def backward(self, layer: Layer, env: Env) -> Found:
        """``torch.autograd.backward``: the leaves whose gradient is there since, or another tensor. Of one that a forward runs
        itself, those of the leaves that it names: who else trains what it reaches is not said."""
        machine = self._run.machine
        self._run.ledger.phase = "backward"
        before = dict(machine.gradients)
        create = _said(layer, "create_graph")
        if create:  # a gradient that stands is replaced: what nobody else has dies then
            replaced = [n for n in layer.drops if n in env and any(env[n] is v for v in before.values())]
            for name in replaced:
                self._run.ledger.let_go(env.pop(name))
        machine.backward_of(_roots(layer, env), keep=_said(layer, "retain_graph"), create=create)
        if len(layer.tensors) > 2:
            return [(name, self._run.ledger.hold(machine.gradients[_leaf(env[name]).name])) for name in _names(layer, 2)]
        return [(name, value) for name, value in machine.gradients.items() if before.get(name) is not value]

    def gradients(self, layer: Layer, env: Env) -> Found:
        """``torch.autograd.grad``: the gradients asked for, as far as there are any."""
        self._run.ledger.phase = "backward"
        inputs = _names(layer, 2)
        keep, create = _said(layer, "retain_graph"), _said(layer, "create_graph")
        found = self._run.machine.backward_of(_roots(layer, env), keep=keep, create=create, wanted=[env[n] for n in inputs])
        given = [(str(i), value) for i, value in enumerate(found) if value is not None]
        for _, value in given:
            value.storage.category = "gradient"
        return given

    def forget(self, layer: Layer, env: Env) -> Found:
        """``p.grad = None``, for each of the tensors."""
        for name in _names(layer, 0):
            self._forget(_leaf(env[name]).name)
        return []

    def _forget(self, leaf: str) -> None:
        value = self._run.machine.gradients.pop(leaf, None)
        if value is not None:
            self._run.ledger.let_go(value)

    def put(self, layer: Layer, env: Env) -> Found:
        """``p.grad = tensor``."""
        name, given = layer.reads
        leaf = _leaf(env[name]).name
        self._run.ledger.hold(env[given])
        self._forget(leaf)
        self._run.machine.gradients[leaf] = env[given]
        return []

    def exchange(self, layer: Layer, env: Env) -> Found:
        """``tensor.data = value``: what held the tensor holds the other's memory from now on, and the network owns what was its own."""
        name, given = layer.reads
        value, ledger = env[name], self._run.ledger
        old, new = value.storage, env[given].storage
        own = old in ledger.residents or old in self._exchanged
        holders = value.refs + own
        value.spec, value.storage = env[given].spec, new
        new.refs += holders
        if own:
            new.category, new.reason = old.category, f"in the place of {name}"
            self._exchanged.append(new)
        follow(ledger, value, old, env.values())
        for _ in range(holders):
            ledger.let_go_storage(old)
        return []

    def require(self, layer: Layer, env: Env) -> Found:
        """``requires_grad_(value)``, for each of the tensors."""
        wanted = bool(dict(layer.attributes)["value"])
        for name in _names(layer, 0):
            value = env[name]
            if value.node is None and wanted:
                mortal = name not in self._run.owned and all(i.name != name for i in self._run.graph.inputs)
                value.node = AccumulateGrad(value, name, mortal=mortal, died=lambda leaf=name: self._forget(leaf))  # type: ignore[misc]
            value.requires_grad = wanted
        return []

    def optimize(self, layer: Layer, env: Env) -> Found:
        """One parameter group's part of ``optimizer.step()``: those with a gradient, and others that have state all the same."""
        run, attributes = self._run, dict(layer.attributes)
        optimizer = optimizers.optimizer_named(attributes["optimizer"])
        key, first = attributes["of"], run.recipe.step == 1
        names, others = _names(layer, 0), _names(layer, 1)
        for name in names:
            if _leaf(env[name]).name not in run.machine.gradients:
                raise GraphError(f"{name!r} has no gradient here; please report it")
        fresh = [n for n in names if (key, n) not in self._stated]
        if first and fresh and len(fresh) < len(names):
            raise UnsupportedError(
                "parameters that get their first gradient after the optimizer's first step: not modelled in a first step"
            )
        number = None if not first else 1 if fresh else 1 + max((self._stated[key, n] for n in names), default=0)
        built = optimizer.row.created == "constructor"
        for name in [*fresh, *(n for n in others if built and (key, n) not in self._stated)]:
            for state in optimizers.resident_states(optimizer, env[name].spec, 1 if first else None, run.recipe.target):
                run.ledger.resident(nbytes(state.shape, state.dtype), "optimizer_state", name)
            self._stated.setdefault((key, name), 0)
        for name in names:
            self._stated[key, name] += 1
        if names:
            run.ledger.phase = "optimizer_step"
            optimizers.play_step(optimizer, run.ledger, [env[n] for n in names], list(names), number, run.recipe.target)
            if not dict(optimizer.options).get("fused"):  # whose kernels autograd does not see writing
                self._wrote(layer, [env[n] for n in names])
        return []

    def norm(self, layer: Layer, env: Env) -> Found:
        """``torch.nn.utils.get_total_norm``."""
        run, attributes = self._run, dict(layer.attributes)
        if "norm_type" in attributes and run.recipe.target.on_cuda:
            raise UnsupportedError(f"a norm of order {attributes['norm_type']} over all gradients on CUDA; the order 2 is modelled")
        given = [env[n] for n in _names(layer, 0)]
        total = play_norm(run.ledger, given, attributes.get("foreach"), run.recipe.target, run.vector_norm)
        return [("total", run.ledger.hold(total))]

    def scale(self, layer: Layer, env: Env) -> Found:
        """``torch.nn.utils.clip_grads_with_norm_``: the gradients are scaled in place."""
        (total,) = _names(layer, 0)
        play_scaling(self._run.ledger, env[total], self._run.recipe.target)
        self._wrote(layer, [env[n] for n in _names(layer, 1)])
        return []

    def _wrote(self, layer: Layer, values: Iterable[Value]) -> None:
        """The action has written into these, in place."""
        for value in values:
            self._run.ledger.wrote(value, layer.name, layer.op)

    def average(self, layer: Layer, env: Env) -> Found:
        """``torch.optim.swa_utils.AveragedModel.update_parameters`` begins, whose calls follow one by one: so it is on a CPU alone."""
        if self._run.recipe.target.on_cuda:
            raise UnsupportedError("AveragedModel.update_parameters on CUDA, in a whole step; an average by hand (mul_, add_) is modelled")
        return []


def _names(layer: Layer, role: int) -> tuple[str, ...]:
    found = layer.tensors[role]
    assert isinstance(found, tuple)
    return found


def _said(layer: Layer, flag: str) -> bool:
    return bool(dict(layer.attributes).get(flag))


def _roots(layer: Layer, env: Env) -> list[tuple[Value, Value]]:
    return [(env[root], env[gradient]) for root, gradient in zip(_names(layer, 0), _names(layer, 1), strict=True)]


def _leaf(value: Value) -> AccumulateGrad:
    if not isinstance(value.node, AccumulateGrad):
        raise GraphError("a gradient is read or written of a tensor that has none of its own (it was computed, or requires no gradient)")
    return value.node


Action = Callable[[Acting, Layer, Env], Any]
ACTIONS: dict[str, Action] = {
    "backward": Acting.backward,
    "autograd_grad": Acting.gradients,
    "forget_gradients": Acting.forget,
    "set_gradient": Acting.put,
    "requires_grad": Acting.require,
    "set_data": Acting.exchange,
    "optimizer_step": Acting.optimize,
    "total_norm": Acting.norm,
    "scale_gradients": Acting.scale,
    "averaged_model": Acting.average,
}
