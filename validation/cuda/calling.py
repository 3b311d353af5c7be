"""A case of :mod:`calls <validation.cuda.calls>` run on CUDA: the module, its input and its result, gradients dropped when all is done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from validation.cuda.calls import Call, built
from validation.cuda.ranks import as_rank
from validation.cuda.recording import Recorded, clean, record_cuda, start


def measure_calls(calls: Iterable[Call], wanted: Callable[[str], bool]) -> Iterator[dict[str, Any]]:
    """What the third call of each case did, from a clean allocator before the first; or the ``error`` with which torch refuses it."""
    start()
    for call in calls:
        if wanted(call.name):
            yield {"case": call.name, "settings": call.settings, **_measured(call)}


def _measured(call: Call) -> dict[str, Any]:
    try:
        return summary(recorded(call))
    except Exception as error:  # whatever torch refuses a case with
        return {"error": f"{type(error).__name__}: {error}".partition("\n")[0][:200]}


def summary(found: Recorded) -> dict[str, Any]:
    """What is stored of a recorded call or step."""
    return {
        "standing": found.standing, "reserved_before": found.reserved_before, "peak": found.peak, "reserved": found.peak_reserved,
        "requested": found.peak_requested, "deltas": [e.delta for e in found.events], "segments": found.segments,
    }  # fmt: skip


def recorded(call: Call) -> Recorded:
    """The third call."""
    torch.manual_seed(0)
    clean()
    module, inputs = built(call, "cuda"), call.inputs("cuda")
    clean()
    flags = torch.backends.cudnn.flags(enabled=call.cudnn, benchmark=call.benchmark, allow_tf32=True)
    with flags, as_rank(0, call.ranks) if call.ranks else nullcontext():
        once(call, module, inputs)
        once(call, module, inputs)
        return record_cuda(lambda: once(call, module, inputs))


def once(call: Call, module: nn.Module, inputs: list[torch.Tensor]) -> None:
    """One call, and its backward pass; the gradients go when it is done, the result last."""
    if not call.train:
        with torch.no_grad():
            module(*inputs)
        return
    with _context(call):
        out = module(*inputs)
    if call.target:
        out.backward()
    else:
        roots = [t for t in (out if isinstance(out, tuple | list) else [out]) if t.requires_grad]
        torch.autograd.backward(roots, [torch.ones_like(t) for t in roots])
    for t in (*module.parameters(), *inputs):
        t.grad = None


def _context(call: Call) -> AbstractContextManager[Any]:
    return torch.autocast("cuda", dtype=getattr(torch, call.autocast)) if call.autocast else nullcontext()
