"""``torch.nn.utils.clip_grad_norm_`` between backward and the optimizer's step (torch/nn/utils/clip_grad.py).

One 0-dim norm a gradient, stacked, their norm, and a factor; the gradients themselves are scaled in place. The foreach variant takes the
same road on CPU (``foreach_tensor_norm_slow`` calls ``linalg_vector_norm`` tensor by tensor).
"""

from __future__ import annotations

from collections.abc import Sequence

from memest.memory.stream import Storage
from memest.network.dtypes import ITEMSIZE
from memest.runtimes.torch.ledger import Ledger, Value

NAME = "clip_grad_norm_"


def play_clipping(ledger: Ledger, gradients: Sequence[Value]) -> None:
    """The events of one call whose result nobody keeps; gradients share one dtype."""
    ledger.phase, ledger.layer, ledger.op = "optimizer_step", NAME, NAME
    size = ITEMSIZE[gradients[0].spec.dtype]
    norms = [ledger.allocate(size) for _ in gradients]
    stacked = ledger.allocate(size * len(norms))
    total = ledger.allocate(size)
    for s in (stacked, *norms):
        ledger.release(s)
    raised = _with_number(ledger, size)  # total_norm + 1e-6
    inverse = ledger.allocate(size)
    coefficient = _with_number(ledger, size)  # inverse * max_norm
    for s in (inverse, raised):
        ledger.release(s)
    clamped = ledger.allocate(size)
    for s in (clamped, coefficient, total):
        ledger.release(s)


def _with_number(ledger: Ledger, size: int) -> Storage:
    """A 0-dim result of a tensor and a Python number, which is wrapped as float64 and cast."""
    wrapped = ledger.allocate(8)
    cast = ledger.allocate(size)
    result = ledger.allocate(size)
    ledger.release(cast)
    ledger.release(wrapped)
    return result
