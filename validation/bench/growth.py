"""What an estimate costs as the network and its input grow."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

from memest.estimate.estimate import estimate
from memest.machines.cpu import Cpu
from memest.network.graph import Graph
from memest.sources import models
from memest.sources.builder import Builder
from validation.bench.probes import settled, timed
from validation.bench.table import Claim

LINEAR = 1.3
INDEPENDENT = 1.3
OPTIMIZER = "adam"
BEST_OF = 3


def _chain(layers: int) -> Graph:
    b = Builder("chain")
    x = b.input("input", ("N", 8, "H", "W"))
    for i in range(layers):
        x = b.layer("relu", x) if i % 2 else b.layer("conv2d", x, out_channels=8, kernel_size=3, padding=1)
    return b.build(x)


def linear_in_layers() -> Iterator[Claim]:
    """Time per layer of graphs of 1,000 and of 10,000 layers: building, first estimate, later ones."""
    small, large = (_per_layer(n) for n in (1_000, 10_000))
    for what in small:
        ratio = large[what] / small[what]
        yield Claim(f"time a layer, 10,000 against 1,000 layers, {what}", f"{ratio:.2f} times", f"at most {LINEAR}", ratio <= LINEAR)


def _per_layer(layers: int) -> dict[str, float]:
    building, graph = min((settled(lambda: _chain(layers)) for _ in range(BEST_OF)), key=lambda made: made[0])
    first = min(settled(lambda: _chain_peak(graph.with_(), 3))[0] for _ in range(BEST_OF))
    later = min(timed(lambda n=n: _chain_peak(graph, n))[0] for n in (3, 4, 5, 6))
    return {"built": building / layers, "first estimate": first / layers, "later ones": later / layers}


def _chain_peak(graph: Graph, batch: int) -> int:
    return estimate(graph, input_shape=(batch, 8, 16, 16), optimizer=OPTIMIZER, machine=Cpu()).peak_bytes


def independent_of_shape() -> Iterator[Claim]:
    """The 3D U-Net on whole volumes, batch 16, against small cubes: time and memory of the estimate itself."""
    small, large = ((2, 1, 32, 32, 32), (16, 1, 240, 240, 144))
    times = {s: min(timed(lambda s=s: _volume_peak(models.build("unet3d"), s))[0] for _ in range(5)) for s in (small, large)}
    peaks = {s: _traced(lambda s=s: _volume_peak(models.build("unet3d"), s)) for s in (small, large)}
    for what, found in (("time", times), ("memory", peaks)):
        ratio = found[large] / found[small]
        what = f"{what} of the estimate, 16 volumes of 240x240x144 against 2 cubes of 32"
        yield Claim(what, f"{ratio:.2f} times", f"at most {INDEPENDENT}", ratio <= INDEPENDENT)


def _volume_peak(graph: Graph, shape: tuple[int, ...]) -> int:
    return estimate(graph, input_shape=shape, optimizer=OPTIMIZER, loss="binary_cross_entropy", machine=Cpu()).peak_bytes


def _traced(run: Callable[[], Any]) -> int:
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
