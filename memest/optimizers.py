"""Optimizers: state per parameter, when it appears, and what one step allocates for a moment.

Each row's ``single`` reads like torch.optim's for-loop (torch/optim/*.py, ``_single_tensor_*``), ``foreach`` like ``_multi_tensor_*``.
Python locals matter: a loop's ``denom`` lives until the next parameter's replaces it, so the peak holds two of them. On CPU torch
takes the for-loop unless ``foreach`` or ``fused`` is asked for. States are torch's; scalars (``step``) are real 4-byte tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memest.dtypes import ITEMSIZE
from memest.errors import UnknownNameError, UsageError, did_you_mean
from memest.ledger import Ledger, Storage, Value
from memest.tensor import Spec, nbytes


class Stepper:
    """Writes one optimizer step on the ledger, with Python's locals."""

    def __init__(self, ledger: Ledger, options: Mapping[str, Any], number: int | None) -> None:
        self.options = options
        self.number = number
        self._ledger = ledger
        self._locals: dict[str, list[Storage]] = {}

    def on(self, key: str) -> bool:
        """An option that changes what runs: true, or a number other than 0."""
        return bool(self.options.get(key))

    @property
    def first(self) -> bool:
        """True in the step in which states appear."""
        return self.number == 1

    def temporary(self, nbytes: int) -> Storage:
        """A new tensor nobody has named yet."""
        return self._ledger.allocate(nbytes)

    def free(self, *storages: Storage) -> None:
        """Drop unnamed tensors."""
        for s in storages:
            self._ledger.release(s)

    def let(self, name: str, *storages: Storage) -> None:
        """Bind a Python local; what it held before is dropped after."""
        old = self._locals.get(name, [])
        self._locals[name] = list(storages)
        self.free(*reversed(old))

    def end(self) -> None:
        """The function returns: locals die."""
        for held in self._locals.values():
            self.free(*reversed(held))
        self._locals.clear()

    def number_op(self, p: Spec, result: bool = False) -> Storage | None:
        """An operator with a Python number: the wrapped float64, its copy in the tensor's dtype, and maybe a result."""
        wrapped = self.temporary(8)
        cast = self.temporary(ITEMSIZE[p.dtype]) if p.dtype != "float64" else None
        out = self.temporary(nbytes(p.shape, p.dtype)) if result else None
        if cast is not None:
            self.free(cast)
        self.free(wrapped)
        return out

    def count_step(self) -> None:
        """``step_t += 1`` on the float32 step counter."""
        self.number_op(STEP)

    def result(self, p: Spec) -> Storage:
        """A tensor operator's result, as large as the parameter."""
        return self.temporary(nbytes(p.shape, p.dtype))

    def state(self, spec: Spec, owner: str) -> None:
        """A state tensor that appears in this step and stays."""
        s = self._ledger.allocate(nbytes(spec.shape, spec.dtype), "optimizer_state", f"state of {owner}")
        s.refs = 1


STEP = Spec((), (), "float32")
States = Callable[[Spec, Mapping[str, Any]], list[Spec]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One optimizer. ``states`` lists a parameter's state tensors in the order of creation; ``created`` says whether the step creates
    them (Adagrad's constructor does, SGD's momentum appears inside the loop: ``lazy``). ``single`` plays one parameter of the for-loop,
    ``foreach`` the whole list, ``fused`` what the fused step does besides its kernel (None: torch has no fused variant)."""

    options: Mapping[str, Any]
    states: States
    created: str
    single: Callable[[Stepper, Spec], None]
    foreach: Callable[[Stepper, Sequence[Spec]], None]
    fused: Callable[[Stepper, Sequence[Spec]], None] | None
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimizer:
    """A row with its options resolved; ``text`` is how it was asked for."""

    name: str
    text: str
    options: tuple[tuple[str, Any], ...]

    @property
    def row(self) -> Row:
        """Its table entry."""
        return OPTIMIZERS[self.name]


def _each(s: Stepper, ps: Sequence[Spec]) -> None:
    for p in ps:
        s.number_op(p)


def _results(s: Stepper, ps: Sequence[Spec]) -> list[Storage]:
    return [s.result(p) for p in ps]


def _weight_decay(s: Stepper, p: Spec) -> None:
    """``grad = grad.add(param, alpha=weight_decay)`` of the for-loop; without decay ``grad`` is rebound to the parameter's own."""
    s.let("grad", *([s.result(p)] if s.on("weight_decay") else []))


def _maximize(s: Stepper, p: Spec) -> None:
    """``-grads[i]`` when maximizing."""
    s.let("grad", *([s.result(p)] if s.on("maximize") else []))


def _loop_gradient(s: Stepper, p: Spec) -> None:
    _maximize(s, p)
    if s.on("weight_decay"):
        _weight_decay(s, p)


def _foreach_gradient(s: Stepper, ps: Sequence[Spec]) -> None:
    """``device_grads`` of the foreach variants: negated or decayed copies."""
    if s.on("maximize") or s.on("weight_decay"):
        s.let("grads", *_results(s, ps))


def _foreach_count(s: Stepper) -> None:
    """``_foreach_add_(steps, torch.tensor(1.0), alpha=1)``: one 4-byte tensor."""
    s.free(s.temporary(4))


def _sgd_states(p: Spec, o: Mapping[str, Any]) -> list[Spec]:
    return [p] if o["momentum"] else []


def _sgd(s: Stepper, p: Spec) -> None:
    _loop_gradient(s, p)
    if s.on("momentum"):
        if s.first:
            s.state(p, "sgd")
        else:
            s.number_op(p)
        s.let("grad", *([s.result(p)] if s.on("nesterov") else []))


def _sgd_foreach(s: Stepper, ps: Sequence[Spec]) -> None:
    _foreach_gradient(s, ps)
    if s.on("momentum"):
        if s.first:
            for p in ps:
                s.state(p, "sgd")
        else:
            _each(s, ps)
        if not s.on("nesterov"):
            s.let("grads")


def _sgd_fused(s: Stepper, ps: Sequence[Spec]) -> None:
    if s.on("momentum") and s.first:
        for p in ps:
            s.state(p, "sgd")


def _adam_states(p: Spec, o: Mapping[str, Any]) -> list[Spec]:
    return [STEP, p, p, p] if o["amsgrad"] else [STEP, p, p]


def _adam(s: Stepper, p: Spec) -> None:
    _maximize(s, p)
    s.count_step()
    if s.on("weight_decay"):
        if s.on("decoupled_weight_decay"):
            s.number_op(p)
        else:
            _weight_decay(s, p)
    s.number_op(p)  # exp_avg_sq.mul_(beta2)
    root = s.result(p)
    denom = s.number_op(p, result=True)
    s.free(root)
    s.number_op(p)  # .add_(eps)
    assert denom is not None
    s.let("denom", denom)


def _adam_foreach(s: Stepper, ps: Sequence[Spec]) -> None:
    if s.on("maximize"):
        s.let("grads", *_results(s, ps))
    _foreach_count(s)
    if s.on("weight_decay"):
        if s.on("decoupled_weight_decay"):
            _each(s, ps)
        elif not s.on("maximize"):
            s.let("grads", *_results(s, ps))
    _each(s, ps)
    s.let("grads")
    s.let("root", *_results(s, ps))
    _each(s, ps)
    _each(s, ps)


def _count_each(s: Stepper, ps: Sequence[Spec]) -> None:
    for _ in ps:
        s.count_step()


def _rmsprop_states(p: Spec, o: Mapping[str, Any]) -> list[Spec]:
    return [STEP, p, *([p] if o["momentum"] else []), *([p] if o["centered"] else [])]


def _rmsprop(s: Stepper, p: Spec) -> None:
    s.let("grad")
    if s.on("maximize"):
        _maximize(s, p)
    s.count_step()
    if s.on("weight_decay"):
        _weight_decay(s, p)
    s.number_op(p)
    s.let("avg", s.result(p))
    s.number_op(p)
    if s.on("momentum"):
        s.number_op(p)


def _rmsprop_foreach(s: Stepper, ps: Sequence[Spec]) -> None:
    _foreach_count_and_gradient(s, ps)
    _each(s, ps)
    s.let("avg", *_results(s, ps))
    _each(s, ps)
    if s.on("momentum"):
        _each(s, ps)


def _foreach_count_and_gradient(s: Stepper, ps: Sequence[Spec]) -> None:
    if s.on("maximize"):
        s.let("grads", *_results(s, ps))
    _foreach_count(s)
    if s.on("weight_decay") and not s.on("maximize"):
        s.let("grads", *_results(s, ps))


def _adagrad_states(p: Spec, o: Mapping[str, Any]) -> list[Spec]:
    return [STEP, p]


def _adagrad(s: Stepper, p: Spec) -> None:
    s.let("grad")
    s.count_step()
    if s.on("maximize"):
        _maximize(s, p)
    if s.on("weight_decay"):
        _weight_decay(s, p)
    root = s.result(p)
    s.number_op(p)
    s.let("std", root)


def _adagrad_foreach(s: Stepper, ps: Sequence[Spec]) -> None:
    _foreach_count_and_gradient(s, ps)
    s.let("std", *_results(s, ps))
    _each(s, ps)
    if s.on("weight_decay") or s.on("maximize"):
        _each(s, ps)
    else:
        s.let("numerator", *[r for p in ps if (r := s.number_op(p, result=True)) is not None])


def _adamax_states(p: Spec, o: Mapping[str, Any]) -> list[Spec]:
    return [STEP, p, p]


def _adamax(s: Stepper, p: Spec) -> None:
    s.let("grad")
    if s.on("maximize"):
        _maximize(s, p)
    s.count_step()
    if s.on("weight_decay"):
        _weight_decay(s, p)
    s.number_op(p)
    absolute = s.result(p)
    s.number_op(p)
    s.free(absolute)


def _adamax_foreach(s: Stepper, ps: Sequence[Spec]) -> None:
    _foreach_count_and_gradient(s, ps)
    _each(s, ps)
    if not (s.on("maximize") or s.on("weight_decay")):
        s.let("grads", *_results(s, ps))
    _each(s, ps)


def _nadam_states(p: Spec, o: Mapping[str, Any]) -> list[Spec]:
    return [STEP, STEP, p, p]


def _nadam(s: Stepper, p: Spec) -> None:
    _maximize(s, p)
    s.count_step()
    if s.on("weight_decay"):
        if s.on("decoupled_weight_decay"):
            s.number_op(p)
        else:
            _weight_decay(s, p)
    s.number_op(STEP)  # mu_product *= mu
    s.number_op(p)
    corrected = s.number_op(p, result=True)
    root = s.result(p)
    assert corrected is not None
    s.free(corrected)
    s.let("denom", root)
    s.number_op(p)


def _nadam_foreach(s: Stepper, ps: Sequence[Spec]) -> None:
    if s.on("maximize"):
        s.let("grads", *_results(s, ps))
    _foreach_count(s)
    if s.on("weight_decay"):
        if s.on("decoupled_weight_decay"):
            _each(s, ps)
        elif not s.on("maximize"):
            s.let("grads", *_results(s, ps))
    _each(s, ps)
    s.let("root", *_results(s, ps))
    for _ in ps:
        s.number_op(STEP)
    _each(s, ps)
    _each(s, ps)


def _radam_states(p: Spec, o: Mapping[str, Any]) -> list[Spec]:
    return [STEP, p, p]


def _radam_adapts(s: Stepper) -> bool:
    """rho_t > 5, with beta2 = 0.999: from the sixth step on."""
    return s.number is None or s.number >= 6


def _radam(s: Stepper, p: Spec) -> None:
    _maximize(s, p)
    s.count_step()
    if s.on("weight_decay"):
        if s.on("decoupled_weight_decay"):
            s.number_op(p)
        else:
            _weight_decay(s, p)
    s.number_op(p)
    corrected = s.number_op(p, result=True)
    assert corrected is not None
    s.let("corrected", corrected)
    scaled = s.number_op(p, result=True)
    assert scaled is not None
    if not _radam_adapts(s):
        s.free(scaled)
        return
    root = s.result(p)
    s.number_op(p)  # add_(eps)
    reciprocal = s.result(p)
    rate = s.number_op(p, result=True)
    assert rate is not None
    s.free(reciprocal, root)
    product = s.result(p)
    s.free(rate, scaled)
    update = s.number_op(p, result=True)
    assert update is not None
    s.free(product, update)


def _radam_foreach(s: Stepper, ps: Sequence[Spec]) -> None:
    _foreach_count(s)
    if s.on("maximize"):
        s.let("grads", *_results(s, ps))
    if s.on("weight_decay"):
        if s.on("decoupled_weight_decay"):
            _each(s, ps)
        elif not s.on("maximize"):
            s.let("grads", *_results(s, ps))
    _each(s, ps)
    s.let("grads")
    s.let("buffer", *_results(s, ps))
    _each(s, ps)
    _each(s, ps)
    _each(s, ps)


def _adadelta_states(p: Spec, o: Mapping[str, Any]) -> list[Spec]:
    return [STEP, p, p]


def _adadelta(s: Stepper, p: Spec) -> None:
    s.let("grad")
    s.count_step()
    if s.on("maximize"):
        _maximize(s, p)
    if s.on("weight_decay"):
        _weight_decay(s, p)
    s.number_op(p)
    for name in ("std", "delta"):
        out = s.number_op(p, result=True)
        assert out is not None
        s.let(name, out)
    s.number_op(p)


def _adadelta_foreach(s: Stepper, ps: Sequence[Spec]) -> None:
    _foreach_count(s)
    _foreach_gradient(s, ps)
    _each(s, ps)
    for name in ("std", "delta"):
        s.let(name, *[r for p in ps if (r := s.number_op(p, result=True)) is not None])
    _each(s, ps)


_COMMON: dict[str, Any] = {"foreach": False, "fused": False, "maximize": False}
_ADAM: dict[str, Any] = {**_COMMON, "amsgrad": False, "decoupled_weight_decay": False}

OPTIMIZERS: dict[str, Row] = {
    "sgd": Row(
        options={**_COMMON, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0, "dampening": 0.0},
        states=_sgd_states,
        created="lazy",
        single=_sgd,
        foreach=_sgd_foreach,
        fused=_sgd_fused,
        source="torch/optim/sgd.py",
    ),
    "adam": Row(
        options={**_ADAM, "weight_decay": 0.0},
        states=_adam_states,
        created="step",
        single=_adam,
        foreach=_adam_foreach,
        fused=_count_each,
        source="torch/optim/adam.py",
    ),
    "adamw": Row(
        options={**_ADAM, "weight_decay": 0.01, "decoupled_weight_decay": True},
        states=_adam_states,
        created="step",
        single=_adam,
        foreach=_adam_foreach,
        fused=_count_each,
        source="torch/optim/adamw.py (Adam with decoupled_weight_decay)",
    ),
    "rmsprop": Row(
        options={**_COMMON, "weight_decay": 0.0, "momentum": 0.0, "centered": False},
        states=_rmsprop_states,
        created="step",
        single=_rmsprop,
        foreach=_rmsprop_foreach,
        fused=None,
        source="torch/optim/rmsprop.py",
    ),
    "adagrad": Row(
        options={**_COMMON, "weight_decay": 0.0, "lr_decay": 0.0},
        states=_adagrad_states,
        created="constructor",
        single=_adagrad,
        foreach=_adagrad_foreach,
        fused=_count_each,
        source="torch/optim/adagrad.py",
    ),
    "adamax": Row(
        options={**_COMMON, "weight_decay": 0.0},
        states=_adamax_states,
        created="step",
        single=_adamax,
        foreach=_adamax_foreach,
        fused=None,
        source="torch/optim/adamax.py",
    ),
    "nadam": Row(
        options={**_COMMON, "weight_decay": 0.0, "decoupled_weight_decay": False},
        states=_nadam_states,
        created="step",
        single=_nadam,
        foreach=_nadam_foreach,
        fused=None,
        source="torch/optim/nadam.py",
    ),
    "radam": Row(
        options={**_COMMON, "weight_decay": 0.0, "decoupled_weight_decay": False},
        states=_radam_states,
        created="step",
        single=_radam,
        foreach=_radam_foreach,
        fused=None,
        source="torch/optim/radam.py",
    ),
    "adadelta": Row(
        options={**_COMMON, "weight_decay": 0.0},
        states=_adadelta_states,
        created="step",
        single=_adadelta,
        foreach=_adadelta_foreach,
        fused=None,
        source="torch/optim/adadelta.py",
    ),
}
IGNORED_OPTIONS = frozenset({"lr", "eps", "rho", "alpha", "beta1", "beta2", "momentum_decay"})


def optimizer_named(text: str) -> Optimizer:
    """The optimizer written as ``name`` or ``name:option=value,option=value``; options that move no memory (``lr``) are accepted."""
    name, _, tail = text.partition(":")
    row = OPTIMIZERS.get(name.strip().lower())
    if row is None:
        raise UnknownNameError(f"unknown optimizer {name!r}{did_you_mean(name.lower(), OPTIMIZERS)}")
    options = dict(row.options)
    for item in filter(None, (part.strip() for part in tail.split(","))):
        key, eq, raw = item.partition("=")
        if not eq:
            raise UsageError(f"optimizer option {item!r}: write option=value")
        if key not in options:
            if key in IGNORED_OPTIONS:
                continue
            raise UnknownNameError(f"optimizer {name!r} has no option {key!r}{did_you_mean(key, options)}")
        options[key] = _option(name, key, raw, row.options[key])
    if options["foreach"] and options["fused"]:
        raise UsageError(f"optimizer {text!r}: foreach and fused exclude each other")
    if options["fused"] and row.fused is None:
        raise UsageError(f"optimizer {name!r} has no fused variant in torch; leave fused out")
    if options.get("nesterov") and not options["momentum"]:
        raise UsageError(f"optimizer {text!r}: nesterov needs momentum")
    return Optimizer(name=name.strip().lower(), text=text, options=tuple(options.items()))


def _option(name: str, key: str, raw: str, default: Any) -> Any:
    lowered = raw.strip().lower()
    if isinstance(default, bool):
        if lowered in ("true", "1", "yes"):
            return True
        if lowered in ("false", "0", "no"):
            return False
        raise UsageError(f"optimizer {name!r}, option {key!r}: expected true or false, got {raw!r}")
    try:
        return float(lowered)
    except ValueError:
        raise UsageError(f"optimizer {name!r}, option {key!r}: expected a number, got {raw!r}") from None


def resident_states(optimizer: Optimizer, parameter: Spec, number: int | None) -> list[Spec]:
    """The state tensors of one parameter that exist before step ``number`` (None: long after the first)."""
    if number == 1 and optimizer.row.created != "constructor":
        return []
    return optimizer.row.states(parameter, dict(optimizer.options))


def play_step(optimizer: Optimizer, ledger: Ledger, parameters: Sequence[Value], names: Sequence[str], number: int | None) -> None:
    """Play one ``optimizer.step()`` over the parameters that have a gradient."""
    options = dict(optimizer.options)
    stepper = Stepper(ledger, options, number)
    specs = [v.spec for v in parameters]
    row = optimizer.row
    ledger.op = optimizer.name
    if number == 1 and row.created == "step":
        for name, p in zip(names, specs, strict=True):
            ledger.layer = name
            for state in row.states(p, options):
                stepper.state(state, name)
    ledger.layer = "optimizer"
    if options["foreach"]:
        row.foreach(stepper, specs)
    elif options["fused"] and row.fused is not None:
        row.fused(stepper, specs)
    else:
        for name, p in zip(names, specs, strict=True):
            ledger.layer = name
            row.single(stepper, p)
    stepper.end()
