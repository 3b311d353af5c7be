"""The connectionist temporal classification loss: what it sums over alignments, a table of log-probabilities for each sequence and step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memest.errors import ShapeError
from memest.network.dtypes import HALVES
from memest.ops.aten.iterator import refuse_dtypes
from memest.ops.aten.places import refuse_on_cuda
from memest.ops.facts import EVERYWHERE_FACTS
from memest.ops.operator import Example, flag
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import DERIVED, attribute, row


def _ctc_loss(k: Tape, log_probs: Tensor, targets: Tensor, *, longest: int, zero_infinity: bool) -> Tensor:
    """Of (steps, batch, classes); ``longest`` is the length of the longest target, each of whose labels stands between two blanks."""
    refuse_on_cuda(k)
    refuse_dtypes("ctc_loss", log_probs, HALVES)
    if log_probs.ndim != 3 or targets.ndim not in (1, 2) or targets.dtype not in ("int64", "int32"):
        raise ShapeError(f"ctc_loss of shapes {list(log_probs.shape)} and {list(targets.shape)} ({targets.dtype})")
    steps, batch, _ = log_probs.shape
    k.save(log_probs=log_probs, targets=targets)
    table = k.empty((batch, steps, 2 * longest + 1), log_probs.dtype)
    loss = k.empty((batch,), log_probs.dtype)
    k.save(result=loss, table=table)
    return loss


def _ctc_loss_backward(k: Tape, saved: dict[str, Any], grads: Sequence[Tensor | None], **attributes: Any) -> list[Tensor | None]:
    """The table from the other end, beside the gradient."""
    table: Tensor = saved["table"]
    out = k.empty(saved["log_probs"].shape, table.dtype)
    k.free(k.empty(table.shape, table.dtype))
    return [out, None]


NUMBERS = ("float32", "int64")
ROWS = (
    row(
        "_ctc_loss",
        _ctc_loss,
        _ctc_loss_backward,
        (attribute("longest"), attribute("zero_infinity", False, flag)),
        (
            Example(shapes=((16, 4, 6), (4, 5)), attributes={"longest": 5}, dtypes=NUMBERS),
            Example(shapes=((16, 4, 6), (4, 7)), attributes={"longest": 5, "zero_infinity": True}, dtypes=NUMBERS),
            Example(shapes=((16, 4, 6), (12,)), attributes={"longest": 3}, dtypes=("float32", "int32")),
            Example(shapes=((16, 4, 6), (4, 5)), attributes={"longest": 5}, dtypes=NUMBERS, layout="transposed"),
        ),
        f"{DERIVED}/LossCTC.cpp (ctc_loss_cpu_template, ctc_loss_backward_cpu_template)",
        facts=EVERYWHERE_FACTS,
        roles=("log_probs", "targets"),
        saves=("log_probs", "targets", "result", "table"),
        oracle="ctc_loss",
    ),
)
COMPOSITE_ROWS = ()
