"""Stochastic gradient descent. Its momentum appears inside the loop, as a copy of the gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from memest.network.tensor import Spec
from memest.runtimes.torch.optimizers.row import COMMON, Row
from memest.runtimes.torch.optimizers.stepper import Stepper


def _states(p: Spec, o: Mapping[str, Any]) -> list[Spec]:
    return [p] if o["momentum"] else []


def _single(s: Stepper, p: Spec) -> None:
    s.negate(p)
    s.decay(p)
    if s.on("momentum"):
        if s.first:
            s.state(p, "sgd")
        else:
            s.number_op(p)
        s.let("grad", *([s.result(p)] if s.on("nesterov") else []))


def _foreach(s: Stepper, ps: Sequence[Spec]) -> None:
    s.negate_all(ps)
    s.decay_all(ps)
    if s.on("momentum"):
        if s.first:
            for p in ps:
                s.state(p, "sgd")
        else:
            s.number_ops(ps)
        if not s.on("nesterov"):
            s.let("grads")


def _fused(s: Stepper, ps: Sequence[Spec]) -> None:
    if s.on("momentum") and s.first:
        for p in ps:
            s.state(p, "sgd")


ROWS = {
    "sgd": Row(
        options={**COMMON, "momentum": 0.0, "nesterov": False, "dampening": 0.0},
        states=_states,
        created="lazy",
        single=_single,
        foreach=_foreach,
        fused=_fused,
        source="torch/optim/sgd.py",
    ),
}
