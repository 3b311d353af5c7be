"""Steps that look at signs or average parameters: Rprop and ASGD."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from memest.network.tensor import Spec
from memest.runtimes.torch.optimizers import captured
from memest.runtimes.torch.optimizers.row import CAPTURABLE, Row
from memest.runtimes.torch.optimizers.stepper import STEP, Stepper


def _asgd_states(p: Spec, o: Mapping[str, Any]) -> list[Spec]:
    return [STEP, STEP, STEP, p]


def _asgd_create(s: Stepper, p: Spec, name: str) -> None:
    """``eta`` is a clone of the number made a tensor."""
    s.state(STEP, name)
    number = s.result(STEP)
    s.state(STEP, name)
    s.free(number)
    s.state(STEP, name)
    s.state(p, name)


def _asgd_single(s: Stepper, p: Spec) -> None:
    """The running mean begins late (``t0``): until then it is a copy."""
    s.let("grad")
    s.negate(p)
    s.count_step()
    s.decay(p)
    if s.on("capturable"):
        captured.asgd_single(s, p)
        return
    s.number_op(p)
    if not s.on_cuda:
        s.let("new_eta", s.result(STEP))
        s.let("new_mu", s.result(STEP))


def _asgd_foreach(s: Stepper, ps: Sequence[Spec]) -> None:
    s.negate_all(ps)
    if s.on_cuda:
        s.number_ops([STEP] * len(ps))
    else:
        s.count_steps()
    if not (s.on("weight_decay") and s.on("maximize")):
        s.let("intermediate", *s.results(ps))
    s.let("intermediate")
    s.let("intermediate", *s.results(ps))
    s.let("intermediate")
    if s.on("capturable"):
        captured.asgd_foreach(s, ps)
        return
    etas = []
    for _ in ps:
        base = s.follow(s.number_result(STEP))
        power = s.result(STEP)
        s.free(base)
        etas.append(s.quotient())
        s.free(power)
    s.let("new_etas", *etas)
    s.let("new_mus", *s.numbers(ps))


def _rprop_states(p: Spec, o: Mapping[str, Any]) -> list[Spec]:
    return [STEP, p, p]


def _rprop_single(s: Stepper, p: Spec) -> None:
    s.let("grad")
    s.negate(p)
    s.count_step()
    times = s.result(p)
    sign = s.result(p)
    s.free(times)
    s.let("sign", sign)
    _replace_signs(s, p)
    s.let("grad", s.result(p))
    if s.on("capturable"):
        captured.chosen(s, p)
    else:
        s.replace_where(s.mask(p), p)
    s.free(s.result(p))


def _replace_signs(s: Stepper, p: Spec) -> None:
    if s.on("capturable"):
        captured.signs_replaced(s, p)
        return
    for _ in range(3):
        s.replace_where(s.mask(p), p)


def _rprop_foreach(s: Stepper, ps: Sequence[Spec]) -> None:
    s.count_steps()
    signs = s.results(ps)
    for p in ps:
        _replace_signs(s, p)
    for p in ps:
        captured.chosen(s, p)
    *others, last = signs
    s.let("sign", last)  # the loop's own variable
    s.free(*others)
    s.let("grad_signs", *s.results(ps))


ROWS = {
    "asgd": Row(
        options=CAPTURABLE,
        states=_asgd_states,
        created="step",
        single=_asgd_single,
        foreach=_asgd_foreach,
        fused=None,
        source="torch/optim/asgd.py",
        count_on_device=True,
        create=_asgd_create,
    ),
    "rprop": Row(
        options={k: v for k, v in CAPTURABLE.items() if k != "weight_decay"},
        states=_rprop_states,
        created="step",
        single=_rprop_single,
        foreach=_rprop_foreach,
        fused=None,
        source="torch/optim/rprop.py",
    ),
}
