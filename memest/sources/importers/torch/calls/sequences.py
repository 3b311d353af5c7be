"""The CTC loss: how long its longest target is, a list, an example or a statement says.

Source: aten/src/ATen/native/LossCTC.cpp (``ctc_loss``, ``ctc_loss_impl``).
"""

from __future__ import annotations

from typing import Any

import torch

from memest.sources.importers.torch.assuming.lengths import Even
from memest.sources.importers.torch.calls.composed_losses import Body, as_autocast_gives
from memest.sources.importers.torch.calls.plain import Call, Request


def _ctc_loss(
    log_probs: Any,
    targets: Any,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: int = 1,
    zero_infinity: bool = False,
) -> Any:
    """Lengths in tensors are read from copies of int64; one sequence alone is a batch of one."""
    (log_probs,) = as_autocast_gives("ctc_loss", log_probs)
    batched = log_probs.dim() == 3
    longs = [_long(lengths) for lengths in (input_lengths, target_lengths)]
    batch = log_probs if batched else log_probs.unsqueeze(1)
    numbers = targets.to(torch.int64)
    loss: Any = torch._ctc_loss(batch, numbers, *longs, blank, zero_infinity)
    del numbers
    if zero_infinity:
        zero = torch.zeros((), dtype=loss.dtype)
        loss = torch.where(loss == float("inf"), zero, loss)
        del zero
    if reduction == 1:
        lengths = torch.empty(loss.shape, dtype=loss.dtype)
        lengths = lengths.clamp_min(1)
        return (loss / lengths).mean()
    return loss.sum() if reduction == 2 else loss if batched else loss.squeeze(0)


def _long(lengths: Any) -> Any:
    return lengths.to(torch.int64).contiguous() if isinstance(lengths, torch.Tensor) else lengths


def _sequences(name: str, args: Any, kwargs: Any, recorder: Any) -> Request | None:
    log_probs, targets, _, lengths, _, zero_infinity = args
    if isinstance(lengths, torch.Tensor):
        known = recorder.live.known
        most = known(targets).value.spec.shape[-1]
        found = recorder.assumed.lengths(lengths, known(log_probs).value.spec.shape[1], most, "torch.nn.functional.ctc_loss()")
        longest = found.steps if isinstance(found, Even) else max(found)
    else:
        longest = max(lengths)
    return Request("_ctc_loss", [log_probs, targets], {"longest": longest, "zero_infinity": zero_infinity}, own_result=True)


BODIES: dict[str, Body] = {"ctc_loss": _ctc_loss}
CALLS: dict[str, Call] = {"_ctc_loss": _sequences}
