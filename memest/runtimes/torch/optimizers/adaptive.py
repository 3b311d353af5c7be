"""Steps scaled by a running size of the gradient: RMSprop, Adagrad, Adamax, Adadelta."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from memest.network.tensor import Spec
from memest.runtimes.torch.optimizers import captured
from memest.runtimes.torch.optimizers.row import CAPTURABLE, COMMON, Row, count_each
from memest.runtimes.torch.optimizers.stepper import STEP, Stepper


def _rmsprop_states(p: Spec, o: Mapping[str, Any]) -> list[Spec]:
    return [STEP, p, *([p] if o["momentum"] else []), *([p] if o["centered"] else [])]


def _rmsprop_single(s: Stepper, p: Spec) -> None:
    s.let("grad")
    s.negate(p)
    s.count_step()
    s.decay(p)
    s.number_op(p)
    s.let("avg", s.result(p))
    s.number_op(p)
    if s.on("momentum"):
        s.number_op(p)


def _rmsprop_foreach(s: Stepper, ps: Sequence[Spec]) -> None:
    _begin_all(s, ps)
    s.number_ops(ps)
    s.let("avg", *s.results(ps))
    s.number_ops(ps)
    if s.on("momentum"):
        s.number_ops(ps)


def _begin_all(s: Stepper, ps: Sequence[Spec]) -> None:
    s.negate_all(ps)
    s.count_steps()
    s.decay_all(ps)


def _adagrad_states(p: Spec, o: Mapping[str, Any]) -> list[Spec]:
    return [STEP, p]


def _adagrad_single(s: Stepper, p: Spec) -> None:
    s.let("grad")
    s.count_step()
    s.negate(p)
    s.decay(p)
    root = s.result(p)
    s.number_op(p)
    s.let("std", root)


def _adagrad_foreach(s: Stepper, ps: Sequence[Spec]) -> None:
    _begin_all(s, ps)
    s.let("std", *s.results(ps))
    s.number_ops(ps)
    if s.on("weight_decay") or s.on("maximize"):
        s.number_ops(ps)
    else:
        s.let("numerator", *s.number_results(ps))


def _moments(p: Spec, o: Mapping[str, Any]) -> list[Spec]:
    return [STEP, p, p]


def _adamax_single(s: Stepper, p: Spec) -> None:
    s.let("grad")
    s.negate(p)
    s.count_step()
    s.decay(p)
    s.number_op(p)
    absolute = s.result(p)
    s.number_op(p)
    s.free(absolute)
    if s.on("capturable"):
        captured.adamax_single(s, p)


def _adamax_foreach(s: Stepper, ps: Sequence[Spec]) -> None:
    _begin_all(s, ps)
    s.number_ops(ps)
    if not (s.on("maximize") or s.on("weight_decay")):
        s.let("grads", *s.results(ps))
    s.number_ops(ps)
    if s.on("capturable"):
        captured.adamax_foreach(s, ps)


def _adadelta_single(s: Stepper, p: Spec) -> None:
    s.let("grad")
    s.count_step()
    s.negate(p)
    s.decay(p)
    s.number_op(p)
    for name in ("std", "delta"):
        s.let(name, s.number_result(p))
    s.number_op(p)


def _adadelta_foreach(s: Stepper, ps: Sequence[Spec]) -> None:
    s.count_steps()
    s.negate_all(ps)
    s.decay_all(ps)
    s.number_ops(ps)
    for name in ("std", "delta"):
        s.let(name, *s.number_results(ps))
    s.number_ops(ps)


ROWS = {
    "rmsprop": Row(
        options={**CAPTURABLE, "momentum": 0.0, "centered": False},
        states=_rmsprop_states,
        created="step",
        single=_rmsprop_single,
        foreach=_rmsprop_foreach,
        fused=None,
        source="torch/optim/rmsprop.py",
    ),
    "adagrad": Row(
        options={**COMMON, "lr_decay": 0.0},
        states=_adagrad_states,
        created="constructor",
        single=_adagrad_single,
        foreach=_adagrad_foreach,
        fused=count_each,
        source="torch/optim/adagrad.py",
    ),
    "adamax": Row(
        options=CAPTURABLE,
        states=_moments,
        created="step",
        single=_adamax_single,
        foreach=_adamax_foreach,
        fused=None,
        source="torch/optim/adamax.py",
    ),
    "adadelta": Row(
        options=CAPTURABLE,
        states=_moments,
        created="step",
        single=_adadelta_single,
        foreach=_adadelta_foreach,
        fused=None,
        source="torch/optim/adadelta.py",
    ),
}
