"""``torch.nn.utils.clip_grad_norm_`` between backward and the optimizer's step (torch/nn/utils/clip_grad.py).

One 0-dim norm a gradient, stacked, their norm, and a factor; the gradients themselves are scaled in place. On a CPU the foreach variant
takes the for-loop's road (``foreach_tensor_norm_slow`` calls ``linalg_vector_norm`` tensor by tensor). On CUDA it first sums chunks of
65,536 elements into a buffer with as many places for every tensor as the largest needs (cuda/ForeachReduceOp.cu).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from memest.machines.target import Target
from memest.memory.stream import Storage
from memest.network.dtypes import HALVES, ITEMSIZE
from memest.network.tensor import Spec, numel
from memest.runtimes.torch.ledger import Ledger, Value
from memest.runtimes.torch.step.recipe import Clip
from memest.sizes.choices import greatest

NAME = "clip_grad_norm_"
CHUNK = 65_536


def play_clipping(
    ledger: Ledger, gradients: Sequence[Value], clip: Clip, target: Target, norm: Callable[[Value], Storage] | None = None
) -> None:
    """The events of one call whose result nobody keeps; gradients share one dtype. ``norm`` calls ``torch.linalg.vector_norm`` (None: it
    allocates the number alone)."""
    ledger.phase, ledger.layer, ledger.op = "optimizer_step", NAME, NAME
    total = ledger.hold(play_norm(ledger, gradients, clip.foreach, target, norm))
    play_scaling(ledger, total, target)
    ledger.let_go(total)


def play_norm(
    ledger: Ledger, gradients: Sequence[Value], foreach: bool | None, target: Target, norm: Callable[[Value], Storage] | None
) -> Value:
    """The norm of all gradients, unheld."""
    on_cuda = target.on_cuda
    dtype = gradients[0].spec.dtype
    size = ITEMSIZE[dtype]
    if on_cuda and foreach is False and norm is not None:
        norms = [norm(value) for value in gradients]
    else:
        sums = _sums_of_chunks(ledger, gradients, 4 if dtype in HALVES else size) if on_cuda else None
        norms = [ledger.allocate(size) for _ in gradients]
        if sums is not None:
            ledger.release(sums)
    stacked = ledger.allocate(size * len(norms))
    total = Value(Spec((), (), dtype), ledger.allocate(size))
    for s in (stacked, *norms):
        ledger.release(s)
    return total


def play_scaling(ledger: Ledger, total: Value, target: Target) -> None:
    """The factor by which the gradients are scaled in place."""
    on_cuda, size = target.on_cuda, ITEMSIZE[total.spec.dtype]
    raised = _with_number(ledger, size, on_cuda)  # total_norm + 1e-6
    inverse = ledger.allocate(size)
    coefficient = _with_number(ledger, size, on_cuda)  # inverse * max_norm
    for s in (inverse, raised):
        ledger.release(s)
    clamped = ledger.allocate(size)
    for s in (clamped, coefficient):
        ledger.release(s)


def _sums_of_chunks(ledger: Ledger, gradients: Sequence[Value], itemsize: int) -> Storage:
    """The buffer that norms of chunks are written to."""
    most = 0
    for value in gradients:
        most = greatest(most, -(-numel(value.shape) // CHUNK))  # a bucket's view has a storage of no bytes
    return ledger.allocate(len(gradients) * most * itemsize)


def _with_number(ledger: Ledger, size: int, on_cuda: bool) -> Storage:
    """A 0-dim result of a tensor and a Python number, which is wrapped as float64 and cast (on CUDA neither is device memory)."""
    if on_cuda:
        return ledger.allocate(size)
    wrapped = ledger.allocate(8)
    cast = ledger.allocate(size)
    result = ledger.allocate(size)
    ledger.release(cast)
    ledger.release(wrapped)
    return result
