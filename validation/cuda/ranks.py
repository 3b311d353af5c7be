"""One of several ranks, of which only this process exists: a group whose collectives return at once and leave what they are given as it is.

What it stands in for is NCCL's: ProcessGroupNCCL works on the tensors it is given and asks torch's allocator for nothing, the buffers of
the library come from the driver. What ranks tell each other is taken for what this one says. A future of a collective holds its tensors, as
NCCL's does.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch.futures import Future
from torch.nn.modules._functions import SyncBatchNorm

from memest.levers.table import settings
from validation.distributed import PARALLEL

BACKEND = "lone"


class Lone(dist.ProcessGroup):
    """A rank among ``size`` ranks that never answer."""

    def __init__(self, rank: int, size: int) -> None:
        super().__init__(rank, size)
        self._of = size

    def size(self) -> int:
        """The number of ranks."""
        return self._of

    def getBackendName(self) -> str:  # noqa: N802
        """A name that is not gloo's."""
        return BACKEND

    @property
    def pg_name(self) -> str:
        """The name under which torch knows it."""
        return dist.distributed_c10d._world.pg_names[self]

    @property
    def group_name(self) -> str:
        """The same."""
        return self.pg_name

    def allreduce(self, tensors: list[torch.Tensor], opts: Any = None) -> dist.Work:
        """In place."""
        return _done(tensors)

    def broadcast(self, tensors: list[torch.Tensor], opts: Any = None) -> dist.Work:
        """In place."""
        return _done(tensors)

    def allgather(self, outputs: list[list[torch.Tensor]], inputs: list[torch.Tensor], opts: Any = None) -> dist.Work:
        """Every rank says what this one does. NCCL's gathers into one flat tensor first, which is copied from."""
        flat = torch.empty((len(outputs[0]), *inputs[0].shape), dtype=inputs[0].dtype, device=inputs[0].device)
        for output in outputs[0]:
            output.detach().copy_(inputs[0].detach())
        del flat
        return _done(outputs)

    def all_gather_single(self, output: torch.Tensor, input: torch.Tensor, opts: Any = None) -> dist.Work:
        """Into one tensor; every rank says what this one does."""
        for part in output.detach().view(self._of, -1):
            part.copy_(input.detach().view(-1))
        return _done([output])

    def reduce_scatter_single(self, output: torch.Tensor, input: torch.Tensor, opts: Any = None) -> dist.Work:
        """Into one tensor, which is left as it is."""
        return _done([output])

    _allgather_base, _reduce_scatter_base = all_gather_single, reduce_scatter_single  # their names up to 2.12


def _done(value: Any) -> dist.Work:
    future: Future[Any] = Future(devices=[torch.device("cuda", torch.cuda.current_device())])
    future.set_result(value)
    return torch._C._distributed_c10d._create_work_from_future(future)


def among(levers: Sequence[str]) -> AbstractContextManager[None]:
    """This process as the rank that the levers of a training step speak of; as itself where they speak of none."""
    options = next((dict(s.options) for s in settings(levers, "train") if s.name in PARALLEL), None)
    return nullcontext() if options is None else as_rank(options["rank"], options["world"])


@contextmanager
def as_rank(rank: int, world: int) -> Iterator[None]:
    """This process as that rank of ``world`` ranks."""
    if BACKEND.upper() not in dist.Backend._plugins:
        dist.Backend.register_backend(BACKEND, lambda store, rank, size, timeout: Lone(rank, size), devices=["cpu", "cuda"])
    dist.init_process_group(BACKEND, rank=rank, world_size=world, store=dist.HashStore())
    try:
        with _all_counted(world):
            yield
    finally:
        dist.destroy_process_group()


@contextmanager
def _all_counted(world: int) -> Iterator[None]:
    """nn.SyncBatchNorm leaves out ranks whose batch is empty, and reads from the device how many are not. On the stand-in, which counts
    nothing, none is."""
    says = getattr(ctypes.CDLL(None), "standin_says", None)
    given = SyncBatchNorm.forward

    def forward(*arguments: Any) -> Any:
        assert says is not None
        says(world)
        try:
            return given(*arguments)
        finally:
            says(0)

    if says is not None:
        SyncBatchNorm.forward = staticmethod(forward)
    try:
        yield
    finally:
        SyncBatchNorm.forward = staticmethod(given)
