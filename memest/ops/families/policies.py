"""What ``torch.autocast`` does to the tensors of a call that is recorded as the calls it is made of: it casts them before, and they live as
long as the call."""

from __future__ import annotations

from typing import Any

from memest.errors import UnsupportedError
from memest.ops.composite import Caller, refuse_on_cuda
from memest.ops.facts import EVERYWHERE_CALLS, FALLS_THROUGH, FLOAT32, Dispatched
from memest.ops.operator import Example, choice
from memest.ops.writing import attribute, composite

LOSSES = ("cosine_embedding_loss", "hinge_embedding_loss", "margin_ranking_loss", "poisson_nll_loss", "triplet_margin_loss")
CALLS = {**dict.fromkeys((*LOSSES, "ctc_loss", "quantile"), FLOAT32), "cosine_similarity": FALLS_THROUGH}


SELECTED_SINCE = (2, 14)
"""From this version on quantiles are selected by a kernel of their own: what was recorded with another torch says nothing of it."""


def _operands(c: Caller, tensors: list[Any], *, of: str) -> Any:
    refuse_on_cuda(c, of)
    if of == "quantile" and c.target.version >= SELECTED_SINCE:
        raise UnsupportedError("torch.quantile of torch 2.14 and later has no rule: x.sort(dim)[0] and a place in it is modelled")
    return tuple(tensors)


ROWS = ()
COMPOSITE_ROWS = (
    composite(
        "autocast_operands",
        _operands,
        (attribute("of", check=choice(*CALLS)),),
        (Example(shapes=([(3, 4), (3, 4)],), attributes={"of": "margin_ranking_loss"}),),
        "aten/src/ATen/autocast_mode.cpp",
        facts=EVERYWHERE_CALLS.but(autocast=Dispatched(CALLS, lambda given: str(given["of"]))),
        roles=("tensors*",),
        torch="",
        oracle="autocast_operands",
    ),
)
