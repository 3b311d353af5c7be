"""Steps that a CUDA graph can capture (``capturable=True``): what the others compute in Python from step counters is computed on the
accelerator, one tensor of one number after the other.

Source: the branches ``if capturable`` of torch/optim/{adam,nadam,radam,adamax,asgd,rprop}.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from memest.memory.stream import Storage
from memest.network.tensor import Spec
from memest.runtimes.torch.optimizers.stepper import STEP, Stepper


def product(s: Stepper, *factors: Storage) -> Storage:
    """A tensor of one number made of others, which die."""
    found = s.result(STEP)
    s.free(*factors)
    return found


def adam_denominator(s: Stepper, p: Spec) -> None:
    """``denom`` with the step size folded in; the bias corrections are locals."""
    for name in ("bias_correction1", "bias_correction2"):
        s.let(name, s.follow(s.power()))
    s.let("step_size", s.quotient())
    s.let("step_size_neg", s.result(STEP))
    s.let("bias_correction2_sqrt", s.result(STEP))
    if s.on("amsgrad"):
        s.free(s.result(p))  # torch.maximum, copied into the running maximum
    root = s.result(p)
    scaled = s.result(STEP)
    denom = s.result(p)
    s.free(root, scaled)
    s.free(s.quotient())
    s.let("denom", denom)


def nadam_single(s: Stepper, p: Spec) -> None:
    """One parameter of NAdam, from the count of its steps on."""
    s.let("bias_correction2", s.follow(s.power()))
    s.decay(p)
    s.let("mu", _momentum(s, s.number_result(STEP)))
    s.let("mu_next", _momentum(s, s.follow(s.number_result(STEP))))
    corrected = s.result(p)
    root = s.result(p)
    s.free(corrected)
    s.let("denom", root)
    s.let("denom", s.result(p))
    s.let("mu_product_next", s.result(STEP))
    above = s.follow(s.number_result(STEP))  # -lr * (1 - mu)
    factor = product(s, above, s.number_result(STEP))  # / (1 - mu_product)
    s.let("grad", s.result(p))
    s.free(factor)
    above = s.number_result(STEP)
    factor = product(s, above, s.number_result(STEP))
    s.let("exp_avg", s.result(p))
    s.free(factor)


def _momentum(s: Stepper, exponent: Storage) -> Storage:
    """``beta1 * (1 - 0.5 * 0.96 ** exponent)``."""
    power = s.power()
    s.free(exponent)
    return s.follow(s.follow(s.follow(power)))


def nadam_moments(s: Stepper, ps: Sequence[Spec]) -> None:
    """The momenta of all parameters' steps, and the root of the bias correction."""
    exponents = s.numbers(ps)
    s.let("mus", *s.numbers(ps))
    s.let("mu_nexts", *s.numbers(ps))
    s.free(*exponents)
    s.let("bias_correction_sqrt", *s.numbers(ps))


def nadam_update(s: Stepper, ps: Sequence[Spec]) -> None:
    """What the parameters are moved by."""
    s.let("bias_correction_sqrt")
    s.free(*s.numbers(ps))
    s.free(*s.numbers(ps))
    s.let("numerator", *s.results(ps))


def radam_single(s: Stepper, p: Spec) -> None:
    """One parameter of RAdam, from the bias corrections on."""
    for name in ("bias_correction1", "bias_correction2"):
        s.let(name, s.follow(s.power()))
    s.let("corrected", s.result(p))
    doubled = s.number_result(STEP)
    times = product(s, doubled, s.power())
    s.let("rho_t", s.follow(product(s, times)))
    large = s.mask(STEP)
    numerator = product(s, s.number_result(STEP), s.number_result(STEP))
    numerator = s.follow(numerator)
    ratio = product(s, numerator, s.number_result(STEP))
    rect = s.follow(ratio)
    root = s.result(p)
    correction = s.number_result(STEP)
    rate = s.result(p)
    s.free(root, correction)
    scaled = s.result(p)
    s.free(rect, rate)
    one = s.result(STEP)
    update = s.result(p)
    s.free(one, scaled, large)
    s.let("update", update)
    moved = s.result(p)
    by = s.result(p)
    s.free(moved, by)


def radam_rho(s: Stepper, ps: Sequence[Spec]) -> None:
    """``rho_t`` of all parameters' steps."""
    s.let("bias_correction1", *s.numbers(ps))
    s.let("bias_correction2", *s.numbers(ps))


def radam_step_sizes(s: Stepper, ps: Sequence[Spec]) -> None:
    """The rectified step sizes, and those of steps that are not rectified."""
    numerators = s.numbers(ps)
    s.free(*s.numbers(ps))
    s.free(*s.numbers(ps))
    rects = [_where(s) for _ in ps]
    s.free(*numerators)
    s.let("unrect_step_size", *(_where(s, numbers=2) for _ in ps))
    s.let("bias_correction1", *s.numbers(ps))
    s.let("bias_correction2", *s.numbers(ps))
    s.free(*rects)
    s.let("bias_correction1")


def _where(s: Stepper, numbers: int = 1) -> Storage:
    """``torch.where`` of a comparison and Python numbers, which become tensors."""
    mask = s.mask(STEP)
    made = [s.result(STEP) for _ in range(numbers)]
    found = s.result(STEP)
    s.free(*made, mask)
    return found


def adamax_single(s: Stepper, p: Spec) -> None:
    """``denom``, with the bias correction folded in."""
    s.let("neg_bias_correction", s.follow(s.power()))
    s.let("denom", s.result(p))


def adamax_foreach(s: Stepper, ps: Sequence[Spec]) -> None:
    """The same for all parameters."""
    s.let("bias_corrections", *s.numbers(ps))
    s.let("denom", *s.results(ps))


def asgd_single(s: Stepper, p: Spec) -> None:
    """The update, the running mean, and the next ``eta`` and ``mu``."""
    s.free(s.follow(s.number_result(STEP)))
    s.free(s.result(p))
    inner = s.follow(s.follow(s.number_result(STEP)))
    s.free(s.quotient(), inner)
    difference = s.number_result(STEP)
    ones = s.result(STEP)
    larger = product(s, difference, ones)
    s.free(s.quotient(), larger)


def asgd_foreach(s: Stepper, ps: Sequence[Spec]) -> None:
    """The next ``mus`` and ``etas`` of all parameters."""
    s.free(*s.numbers(ps))
    s.let("new_etas", *s.numbers(ps))


def signs_replaced(s: Stepper, p: Spec) -> None:
    """``sign.copy_(torch.where(…))`` for signs above, below and at 0."""
    for _ in range(3):
        chosen(s, p)


def chosen(s: Stepper, p: Spec) -> None:
    """One ``torch.where(mask, number, tensor)``, whose result is copied and dies; the number becomes a tensor."""
    mask = s.mask(p)
    number = s.result(STEP)
    s.free(s.result(p), number, mask)
