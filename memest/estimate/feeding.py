"""From the step of an estimate to the data loader that feeds it."""

from __future__ import annotations

from collections.abc import Mapping

from memest.machines.loader import Loader
from memest.machines.target import TORCH_CPU, Target
from memest.memory.figure import Figure, unknown
from memest.memory.loading import Fed, Loading, loading
from memest.memory.stream import Stream
from memest.network.graph import Graph
from memest.network.tensor import nbytes
from memest.sizes.dims import resolve

ON_THE_HOST = "the host's memory of a process that runs on a card is not modelled; its loader's workers and /dev/shm are"
REPLACED = ("parameter", "buffer", "optimizer_state")  # of what stands, what a step writes to


def fed_by(loader: Loader, step: Stream, above: int, gradients: int, process: Figure, target: Target) -> Loading:
    """What ``loader`` adds to a process that takes ``step`` again and again, whose peak is so many bytes ``above`` what stands, and which
    trains by so many bytes of ``gradients`` (0: it only infers)."""
    told = target.process
    written = sum(s.nbytes for s in step.residents if s.category in REPLACED) if gradients else 0
    return loading(
        loader,
        Fed(
            batch=tuple(s.nbytes for s in step.residents if s.category == "input"),
            process=process if target.runtime == TORCH_CPU else unknown(ON_THE_HOST),
            below_peak=max(0, above - gradients),
            replaced=written + gradients,
            moves=told is not None and told.malloc.moves,
            pins=target.on_cuda,
        ),
    )


def gradient_bytes(graph: Graph, sizes: Mapping[str, int]) -> int:
    """Bytes of the gradients of all parameters that are trained."""
    trained = (p for p in graph.parameters if p.trainable and not p.buffer and p.gradient_of is None)
    return sum(nbytes(resolve(p.shape, sizes), p.dtype) for p in trained)
