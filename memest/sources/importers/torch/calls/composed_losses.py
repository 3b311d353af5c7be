"""Distances and losses that ATen makes of other calls, written with torch's own functions, in ATen's order (see
:mod:`~memest.sources.importers.torch.calls.composed`).

Sources: aten/src/ATen/native/Loss.cpp, Distance.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.overrides import handle_torch_function, has_torch_function

from memest.errors import UnsupportedError
from memest.sources.importers.torch.calls.plain import Call, Request

Body = Callable[..., Any]


def autocast_operands(tensors: Sequence[Any], *, of: str) -> tuple[Any, ...]:
    """Stands for what autocast does before the call ``of``; the recorder sees it as it sees torch's functions."""
    return handle_torch_function(autocast_operands, tensors, tensors, of=of) if has_torch_function(tensors) else tuple(tensors)


def as_autocast_gives(of: str, *tensors: Any) -> Any:
    """The tensors as autocast gives them to the call."""
    return autocast_operands(tensors, of=of)


def _reduced(loss: Any, reduction: Any) -> Any:
    """``apply_loss_reduction``; torch.nn.functional gives it as a number."""
    kind = ("none", "mean", "sum")[reduction] if isinstance(reduction, int) else reduction
    return loss.mean() if kind == "mean" else loss.sum() if kind == "sum" else loss


def _from(number: float, t: Any) -> Any:
    """``number - t`` in C++: a tensor filled with the number, from which ``t`` is taken in place."""
    return torch.empty_like(t).fill_(number).sub_(t)


def _pairwise_distance(x1: Any, x2: Any, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Any:
    apart = x1 - x2
    shifted = apart + eps
    return torch.linalg.vector_norm(shifted, p, max(x1.dim(), x2.dim()) - 1, keepdim)


def _cosine_similarity(x1: Any, x2: Any, dim: int = 1, eps: float = 1e-8) -> Any:
    x1, x2 = as_autocast_gives("cosine_similarity", x1, x2)
    if x1.shape != x2.shape:
        x1, x2 = torch.broadcast_tensors(x1, x2)
    first = torch.linalg.vector_norm(x1, 2, dim, True).clone()
    second = torch.linalg.vector_norm(x2, 2, dim, True).clone()
    least = torch.empty((), dtype=torch.float32)
    with torch.no_grad():  # clamp_min_ by a tensor of no dims: one kernel in place, as a sum is
        first.add_(least)
        second.add_(least)
    one, two = x1 / first, x2 / second
    product = one * two
    total = product.sum(dim)
    del least
    return total


def _cosine_embedding_loss(input1: Any, input2: Any, target: Any, margin: float = 0.0, reduction: Any = 1) -> Any:
    input1, input2, target = as_autocast_gives("cosine_embedding_loss", input1, input2, target)
    dim = target.dim()
    together = (input1 * input2).sum(dim)
    first = _raised_sum(input1, dim)
    second = _raised_sum(input2, dim)
    both = first * second
    root = both.sqrt_()
    del both
    cosine = together / root
    zeros = torch.zeros_like(cosine)
    positive = _from(1, cosine)
    negative = (cosine - margin).clamp_min_(0)
    of_positive = torch.where(target == 1, positive, zeros)
    of_negative = torch.where(target == -1, negative, zeros)
    output = of_positive + of_negative
    return _reduced(output, reduction)


def _raised_sum(t: Any, dim: int) -> Any:
    square = t * t
    total = square.sum(dim)
    return total + 1e-12


def _margin_ranking_loss(input1: Any, input2: Any, target: Any, margin: float = 0.0, reduction: Any = 1) -> Any:
    input1, input2, target = as_autocast_gives("margin_ranking_loss", input1, input2, target)
    apart = input1 - input2
    turned = -target
    product = turned * apart
    output = product + margin
    del turned, apart, product
    output.clamp_min_(0)
    return _reduced(output, reduction)


def _hinge_embedding_loss(input: Any, target: Any, margin: float = 1.0, reduction: Any = 1) -> Any:
    input, target = as_autocast_gives("hinge_embedding_loss", input, target)
    zeros = torch.zeros_like(input)
    apart = _from(margin, input).clamp_min_(0)
    output_margin = torch.where(target != 1, apart, zeros)
    output_self = torch.where(target != -1, input, zeros)
    output = output_margin + output_self
    return _reduced(output, reduction)


def _triplet_margin_loss(
    anchor: Any,
    positive: Any,
    negative: Any,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: Any = 1,
) -> Any:
    anchor, positive, negative = as_autocast_gives("triplet_margin_loss", anchor, positive, negative)
    to_positive = _pairwise_distance(anchor, positive, p, eps)
    to_negative = _pairwise_distance(anchor, negative, p, eps)
    if swap:
        between = _pairwise_distance(positive, negative, p, eps)
        to_negative = torch.min(to_negative, between)
        del between
    wide = to_positive + margin
    apart = wide - to_negative
    output = torch.clamp_min(apart, 0)
    del wide, apart
    return _reduced(output, reduction)


def _poisson_nll_loss(input: Any, target: Any, log_input: bool, full: bool, eps: float, reduction: Any) -> Any:
    if full:
        raise UnsupportedError("poisson_nll_loss with full=True has no rule: write the term out")
    input, target = as_autocast_gives("poisson_nll_loss", input, target)
    if log_input:
        product = target * input  # operands in C++ from the right
        rate = torch.exp(input)
        loss = rate - product
        del rate, product
    else:
        raised = input + eps
        logarithm = torch.log(raised)
        product = target * logarithm
        loss = input - product
        del raised, logarithm, product
    return _reduced(loss, reduction)


def _operands(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    return Request(name, [list(args[0])], {"of": kwargs["of"]})


CALLS: dict[str, Call] = {"autocast_operands": _operands}
LOSSES: dict[str, Body] = {
    "pairwise_distance": _pairwise_distance,
    "cosine_similarity": _cosine_similarity,
    "cosine_embedding_loss": _cosine_embedding_loss,
    "margin_ranking_loss": _margin_ranking_loss,
    "hinge_embedding_loss": _hinge_embedding_loss,
    "triplet_margin_loss": _triplet_margin_loss,
    "poisson_nll_loss": _poisson_nll_loss,
}
