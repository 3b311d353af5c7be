"""Adam and its kin with bias-corrected moments: AdamW, NAdam, RAdam."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from memest.network.tensor import Spec
from memest.runtimes.torch.optimizers import captured
from memest.runtimes.torch.optimizers.row import CAPTURABLE, Row, count_each
from memest.runtimes.torch.optimizers.stepper import STEP, Stepper


def _states(p: Spec, o: Mapping[str, Any]) -> list[Spec]:
    return [STEP, p, p, p] if o.get("amsgrad") else [STEP, p, p]


def _single(s: Stepper, p: Spec) -> None:
    s.negate(p)
    s.count_step()
    s.decay(p)
    s.number_op(p)  # exp_avg_sq.mul_(beta2)
    if s.on("capturable"):
        captured.adam_denominator(s, p)
        return
    root = s.result(p)
    denom = s.number_result(p)
    s.free(root)
    s.number_op(p)  # .add_(eps)
    s.let("denom", denom)


def _foreach(s: Stepper, ps: Sequence[Spec]) -> None:
    s.negate_all(ps)
    s.count_steps()
    s.decay_all(ps)
    s.number_ops(ps)
    s.let("grads")
    if s.on("capturable"):
        for name in ("bias_correction1", "bias_correction2"):
            s.let(name, *s.numbers(ps))
    s.let("root", *s.results(ps))
    s.number_ops(ps)
    s.number_ops(ps)


def _nadam_states(p: Spec, o: Mapping[str, Any]) -> list[Spec]:
    return [STEP, STEP, p, p]


def _nadam_single(s: Stepper, p: Spec) -> None:
    s.negate(p)
    s.let("exp_avg")
    s.count_step()
    if s.on("capturable"):
        captured.nadam_single(s, p)
        return
    s.decay(p)
    s.number_op(STEP)  # mu_product *= mu
    s.number_op(p)
    corrected = s.number_result(p)
    root = s.result(p)
    s.free(corrected)
    s.let("denom", root)
    s.number_op(p)


def _nadam_foreach(s: Stepper, ps: Sequence[Spec]) -> None:
    s.negate_all(ps)
    s.count_steps()
    s.decay_all(ps)
    s.number_ops(ps)
    s.let("root", *s.results(ps))
    if s.on("capturable"):
        captured.nadam_moments(s, ps)
        captured.nadam_update(s, ps)
        return
    s.number_ops([STEP] * len(ps))
    s.number_ops(ps)
    s.number_ops(ps)


def _radam_single(s: Stepper, p: Spec) -> None:
    s.negate(p)
    s.count_step()
    s.decay(p)
    s.number_op(p)
    if s.on("capturable"):
        captured.radam_single(s, p)
        return
    s.let("corrected", s.number_result(p))
    scaled = s.number_result(p)
    if not _adapts(s):
        s.free(scaled)
        return
    root = s.result(p)
    s.number_op(p)  # add_(eps)
    reciprocal = s.result(p)
    rate = s.number_result(p)
    s.free(reciprocal, root)
    product = s.result(p)
    s.free(rate, scaled)
    update = s.number_result(p)
    s.free(product, update)


def _adapts(s: Stepper) -> bool:
    """rho_t > 5, with beta2 = 0.999: from the sixth step on."""
    return s.number is None or s.number >= 6


def _radam_foreach(s: Stepper, ps: Sequence[Spec]) -> None:
    s.count_steps()
    s.negate_all(ps)
    if s.on("capturable"):
        captured.radam_rho(s, ps)
    s.decay_all(ps)
    s.number_ops(ps)
    s.let("grads")
    if s.on("capturable"):
        captured.radam_step_sizes(s, ps)
    s.let("buffer", *s.results(ps))
    s.number_ops(ps)
    s.number_ops(ps)
    s.number_ops(ps)


ROWS = {
    "adam": Row(
        options={**CAPTURABLE, "amsgrad": False, "decoupled_weight_decay": False},
        states=_states,
        created="step",
        single=_single,
        foreach=_foreach,
        fused=count_each,
        source="torch/optim/adam.py",
    ),
    "adamw": Row(
        options={**CAPTURABLE, "amsgrad": False, "decoupled_weight_decay": True, "weight_decay": 0.01},
        states=_states,
        created="step",
        single=_single,
        foreach=_foreach,
        fused=count_each,
        source="torch/optim/adamw.py (Adam with decoupled_weight_decay)",
    ),
    "nadam": Row(
        options={**CAPTURABLE, "decoupled_weight_decay": False},
        states=_nadam_states,
        created="step",
        single=_nadam_single,
        foreach=_nadam_foreach,
        fused=None,
        source="torch/optim/nadam.py",
    ),
    "radam": Row(
        options={**CAPTURABLE, "decoupled_weight_decay": False},
        states=_states,
        created="step",
        single=_radam_single,
        foreach=_radam_foreach,
        fused=None,
        source="torch/optim/radam.py",
    ),
}
