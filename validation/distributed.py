"""Parallel runs measured for real: as many gloo processes on 127.0.0.1 as the run has ranks, each with its own count of torch's allocator.

The profiler is not enough here: it sees the threads it runs in, and gloo's threads release tensors now and then. So each process counts
all that goes through torch's CPU allocator (``allocator.cpp``, built on first use). Which of two threads drops the last reference to a
finished collective's tensor is a matter of microseconds; a release by gloo's thread may come some allocations late and lift the peak of
that step. Each rank therefore takes several steps; the peak is the lowest of them, all of them are stored.
"""

from __future__ import annotations

import gc
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from validation.cases import Case

if TYPE_CHECKING:
    from validation.profiling import Measured

WARM_UP = 3  # DistributedDataParallel rebuilds its buckets when the second step begins, with a static graph when the third does
STEPS = 4
SECONDS = 600.0
PARALLEL = ("ddp", "fsdp", "zero")


@dataclass(frozen=True)
class Rank:
    """What one process took: bytes resident between steps, the peak of each measured step, and the events of the lowest."""

    standing_bytes: int
    peaks: tuple[int, ...]
    events: tuple[Measured, ...]

    @property
    def peak_bytes(self) -> int:
        """The lowest: the step in which gloo let go at once."""
        return min(self.peaks)


def world_of(case: Case) -> int:
    """The number of ranks of a case; 0 when it is not parallel."""
    from memest.levers.table import settings

    for s in settings(case.levers, case.mode):
        if s.name in PARALLEL:
            return int(dict(s.options)["world"])
    return 0


def as_rank(case: Case, rank: int) -> tuple[str, ...]:
    """The levers of a parallel case with the rank in them."""
    found = []
    for text in case.levers:
        name, colon, _ = text.partition(":")
        found.append(f"{text}{',' if colon else ':'}rank={rank}" if name in PARALLEL else text)
    return tuple(found)


@cache
def allocator() -> Any:
    """The counting allocator's module, built when it is not there yet."""
    from torch.utils.cpp_extension import load

    return load(name="memest_allocator", sources=[str(Path(__file__).with_name("allocator.cpp"))])


def measure_ranks(cases: Sequence[Case]) -> Iterator[tuple[Case, list[Rank]]]:
    """The ranks of each case. Cases of one world share their processes, which run them one after the other; RuntimeError when one
    of the processes fails."""
    from validation.profiling import Measured

    allocator()
    worlds: dict[tuple[int, int], list[Case]] = {}
    for case in cases:
        worlds.setdefault((world_of(case), case.threads), []).append(case)
    for (world, threads), members in worlds.items():
        with tempfile.TemporaryDirectory() as folder:
            _run_world(members, world, threads, Path(folder))
            for number, case in enumerate(members):
                texts = [(Path(folder) / f"{number}.{rank}.json").read_text(encoding="utf-8") for rank in range(world)]
                found = [json.loads(text) for text in texts]
                yield case, [Rank(f["resident_bytes"], tuple(f["peaks"]), tuple(Measured(d, "") for d in f["events"])) for f in found]


def _run_world(cases: Sequence[Case], world: int, threads: int, folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "cases.json").write_text(json.dumps([asdict(case) for case in cases]), encoding="utf-8")
    common = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world), "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "validation.distributed", str(folder)]
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, env={**common, "RANK": str(rank)}, **pipes) for rank in range(world)]
    try:
        said = [p.communicate(timeout=SECONDS * len(cases))[1] for p in processes]
    finally:
        for p in processes:
            p.kill()
    for rank, p in enumerate(processes):
        if p.returncode:
            raise RuntimeError(f"rank {rank}: {said[rank].strip()[-600:]}")


def run_rank(case: Case) -> Rank:
    """One rank's steps, in this process; what is there before is not counted."""
    import torch
    import torch.distributed as dist

    from validation.modules import build_module
    from validation.profiling import Measured
    from validation.protocol import inputs_for, prepare_training

    counter = allocator()
    gc.collect()
    before = counter.live()
    torch.set_num_threads(case.threads)
    torch.manual_seed(0)
    module, inputs = build_module(case).train(), inputs_for([case.shape], case.channels_last)
    setup = prepare_training(module, inputs, case.optimizer, case.loss, hold_output=case.hold_output, levers=case.levers)
    del module, inputs
    for _ in range(WARM_UP):
        setup.step()
    peaks: list[int] = []
    best: list[int] = []
    resident = 0
    for _ in range(STEPS):
        setup.optimizer.zero_grad(set_to_none=True)
        gc.collect()
        dist.barrier()
        gc.disable()
        resident = counter.start() - before
        setup.step()
        peak, events = counter.stop()
        gc.enable()
        if not peaks or peak - before < min(peaks):
            best = events
        peaks.append(peak - before)
    return Rank(resident, tuple(peaks), tuple(Measured(delta, "") for delta in best))


def main() -> None:
    """One rank, started by :func:`measure_ranks`: the folder with the cases, where the results go, is the argument."""
    import torch.distributed as dist

    allocator().install()
    folder, rank = Path(sys.argv[1]), os.environ["RANK"]
    dist.init_process_group("gloo")
    for number, fields in enumerate(json.loads((folder / "cases.json").read_text(encoding="utf-8"))):
        found = run_rank(Case(**{**fields, "shape": tuple(fields["shape"]), "levers": tuple(fields["levers"])}))
        text = json.dumps({"resident_bytes": found.standing_bytes, "peaks": found.peaks, "events": [e.delta for e in found.events]})
        (folder / f"{number}.{rank}.json").write_text(text, encoding="utf-8")
        del found, text
        dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
