"""Speed and accuracy side by side, in one run: memest, torch's MemTracker under FakeTensorMode and torchinfo on one training step.

Every time is CPU time of this process (of the child process for the command line), so a busy machine does not decide. The truth is
measured in the same run; ``--quick`` takes a stored result of the same case where there is one.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from memest.estimate.estimate import estimate
from memest.machines.cpu import Cpu
from memest.network.graph import Graph
from memest.sources.builder import Builder

BATCH = 8
IMAGE = (3, 224, 224)
SHAPE = (BATCH, *IMAGE)
OPTIMIZER, LOSS = "adam", "cross_entropy"
NETWORK = "torchvision.models:resnet50()"

FASTER_IN_MEMORY = 1000
FASTER_WITH_IMPORT = 5
COLD_SECONDS = 0.7
LINEAR = 1.3
INDEPENDENT = 1.3


@dataclass(frozen=True)
class Claim:
    """Something the bench checks: what was found, what is claimed, and whether it holds."""

    what: str
    found: str
    claimed: str
    holds: bool


def bench(quick: bool) -> int:
    """Print all tables; 1 when a claim fails, else 0."""
    print(f"ResNet-50, one training step ({OPTIMIZER}, {LOSS}), batch {BATCH}, {'x'.join(map(str, IMAGE))}, torch CPU\n")
    claims = [*_side_by_side(quick), *_sweeps(), *_cold_command(), *_linear(), *_independent_of_shape()]
    print()
    _print_table(("claim", "found", "claimed", "holds"), [(c.what, c.found, c.claimed, "yes" if c.holds else "NO") for c in claims])
    return 0 if all(c.holds for c in claims) else 1


# time ------------------------------------------------------------------------------------------------------------------------


def _timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of ``run()``, and its result."""
    start = time.process_time()
    result = run()
    return time.process_time() - start, result


def _module() -> Any:
    from memest.sources.importers.torch_loading import build

    return build(NETWORK).train()


def _peak(graph: Graph, batch: int) -> int:
    return estimate(graph, input_shape=(batch, *IMAGE), optimizer=OPTIMIZER, loss=LOSS, cpu=_cpu()).peak_bytes


def _cpu() -> Cpu:
    import torch

    return Cpu.detect().with_(threads=torch.get_num_threads())


# side by side ----------------------------------------------------------------------------------------------------------------


def _side_by_side(quick: bool) -> Iterator[Claim]:
    from memest.sources.importers.torch import from_torch

    module = _module()
    _timed(lambda: from_torch(module, (2, 3, 64, 64)))  # libraries load once, for everyone
    imported, peak = min(_timed(lambda: _peak(from_torch(module, SHAPE), BATCH)) for _ in range(2))
    graph = from_torch(module, SHAPE)
    first, _ = _timed(lambda: _peak(graph, BATCH + 1))
    batches = range(BATCH + 2, BATCH + (8 if quick else 34))
    new_batch = median(_timed(lambda b=b: _peak(graph, b))[0] for b in batches)
    again = [BATCH, *batches[:3]] * 5  # asked before, evaluated anew: only library heuristics are remembered
    in_memory = median(_timed(lambda b=b: _peak(graph, b))[0] for b in again)
    tracker_time, tracker_peak = min(_timed(_mem_tracker) for _ in range(2))  # the first loads what FakeTensorMode needs
    info_time, info_peak = min(_timed(lambda: _torchinfo(module)) for _ in range(2))
    truth = _truth(module, quick)
    rows = [
        ("memest, graph in memory", in_memory, peak),
        ("memest, graph in memory, a batch size never seen", new_batch, peak),
        ("memest, first estimate of a graph", first, peak),
        ("memest, import and estimate", imported, peak),
        ("torch MemTracker under FakeTensorMode", tracker_time, tracker_peak),
        ("torchinfo", info_time, info_peak),
    ]
    lines = [(name, f"{1000 * t:,.2f}", f"{tracker_time / t:,.1f}", f"{p:,}", f"{100 * (p - truth) / truth:+.3f} %") for name, t, p in rows]
    _print_table(("estimator", "CPU ms", "times MemTracker's speed", "peak bytes", "error"), lines)
    print(f"measured peak: {truth:,} bytes")
    yield Claim("peak of ResNet-50", f"{peak - truth:+,} bytes", "0", peak == truth)
    yield _ratio("estimate from a graph in memory, against MemTracker", tracker_time / in_memory, FASTER_IN_MEMORY)
    yield _ratio("import and estimate, against MemTracker", tracker_time / imported, FASTER_WITH_IMPORT)


def _ratio(what: str, found: float, least: float) -> Claim:
    return Claim(what, f"{found:,.1f} times faster", f"at least {least:,}", found >= least)


def _mem_tracker() -> int:
    """Two steps, as the optimizer's state exists in the second; everything is built under the mode."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.distributed._tools.mem_tracker import MemTracker

    from validation.losses import torch_loss
    from validation.protocol import target_for, torch_optimizer

    loss_fn = torch_loss(LOSS)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model, x = _module(), torch.rand(SHAPE)
        y = target_for(LOSS, torch.empty(BATCH, 1000))
        optimizer = torch_optimizer(OPTIMIZER, model.parameters())

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            loss_fn(model(x), y).backward()
            optimizer.step()

        tracker = MemTracker()
        tracker.track_external(model, optimizer, x, y)
        with tracker:
            step()
            tracker.reset_mod_stats()
            step()
    return int(max(device["Total"] for device in tracker.get_tracker_snapshot("peak").values()))


def _torchinfo(module: Any) -> int:
    import torchinfo

    s = torchinfo.summary(module, input_size=SHAPE, verbose=0, device="cpu")
    return int(s.total_input + s.total_output_bytes + s.total_param_bytes)


def _truth(module: Any, quick: bool) -> int:
    """The measured peak of the step."""
    return (_stored_truth() if quick else None) or _measured_truth(module)


def _stored_truth() -> int | None:
    from validation.compare import stored
    from validation.measure import RESULTS, machine_name

    if not RESULTS.is_dir():
        return None
    for machine, result in stored():
        case = result["case"]
        same = case["model"] == NETWORK and tuple(case["shape"]) == SHAPE and case["optimizer"] == OPTIMIZER
        if same and machine == machine_name() and result["cpu"]["threads"] == _cpu().threads:
            return int(result["peak_bytes"])
    return None


def _measured_truth(module: Any) -> int:
    from validation.protocol import inputs_for, measure_training

    return measure_training(module.train(), inputs_for([SHAPE]), OPTIMIZER, LOSS).peak_bytes


# sweeps ----------------------------------------------------------------------------------------------------------------------


def _sweeps() -> Iterator[Claim]:
    from memest.sources import models
    from validation.bench_sweep import measured

    print()
    lines = list(measured(lambda: models.build("resnet50"), OPTIMIZER, LOSS, _cpu(), _mem_tracker))
    head = ("configurations of (batch, H, W)", "asked", "a CPU second", "all multiples of 32")
    _print_table(head, [line.row for line in lines])
    for (what, *_), rate, least, differing in lines:
        if least:
            yield Claim(what, f"{rate:,.0f} a second", f"at least {least:,}", rate >= least)
            yield Claim(f"{what}: of 50, differing from estimates made alone", f"{differing}", "0", differing == 0)


# the command line ------------------------------------------------------------------------------------------------------------


def _cold_command() -> Iterator[Claim]:
    """CPU time of the whole process, the best of three, and what it has loaded."""
    command = ["estimate", "resnet50", "--input", "x".join(map(str, IMAGE)), "--batch", str(BATCH), "--train"]
    seconds = min(_child_seconds([sys.executable, "-m", "memest", *command]) for _ in range(3))
    yield Claim("memest estimate resnet50, cold", f"{seconds:.2f} s of CPU", f"under {COLD_SECONDS} s", seconds < COLD_SECONDS)
    program = (
        "import sys\nsys.argv[1:] = " + repr(command) + "\nimport memest.cli.app\n"
        "try:\n    memest.cli.app.main()\nexcept SystemExit:\n    pass\n"
        "print(*({'torch', 'sympy'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = done.stderr.strip()
    yield Claim("libraries it loads", loaded or "neither torch nor sympy", "neither torch nor sympy", not loaded)


def _child_seconds(command: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


# growth ----------------------------------------------------------------------------------------------------------------------


def _chain(layers: int) -> Graph:
    b = Builder("chain")
    x = b.input("input", ("N", 8, "H", "W"))
    for i in range(layers):
        x = b.layer("relu", x) if i % 2 else b.layer("conv2d", x, out_channels=8, kernel_size=3, padding=1)
    return b.build(x)


def _linear() -> Iterator[Claim]:
    """Time per layer of graphs of 1,000 and of 10,000 layers: building, first estimate, later ones."""
    small, large = (_per_layer(n) for n in (1_000, 10_000))
    for what in small:
        ratio = large[what] / small[what]
        yield Claim(f"time a layer, 10,000 against 1,000 layers, {what}", f"{ratio:.2f} times", f"at most {LINEAR}", ratio <= LINEAR)


def _per_layer(layers: int) -> dict[str, float]:
    building, graph = _timed(lambda: _chain(layers))
    first, _ = _timed(lambda: _chain_peak(graph, 3))
    later = min(_timed(lambda n=n: _chain_peak(graph, n))[0] for n in (4, 5, 6))
    return {"built": building / layers, "first estimate": first / layers, "later ones": later / layers}


def _chain_peak(graph: Graph, batch: int) -> int:
    return estimate(graph, input_shape=(batch, 8, 16, 16), optimizer=OPTIMIZER, cpu=Cpu()).peak_bytes


def _independent_of_shape() -> Iterator[Claim]:
    """The 3D U-Net on whole volumes, batch 16, against small cubes: time and memory of the estimate itself."""
    from memest.sources import models

    small, large = ((2, 1, 32, 32, 32), (16, 1, 240, 240, 144))
    times = {s: min(_timed(lambda s=s: _volume_peak(models.build("unet3d"), s))[0] for _ in range(5)) for s in (small, large)}
    peaks = {s: _traced(lambda s=s: _volume_peak(models.build("unet3d"), s)) for s in (small, large)}
    for what, found in (("time", times), ("memory", peaks)):
        ratio = found[large] / found[small]
        what = f"{what} of the estimate, 16 volumes of 240x240x144 against 2 cubes of 32"
        yield Claim(what, f"{ratio:.2f} times", f"at most {INDEPENDENT}", ratio <= INDEPENDENT)


def _volume_peak(graph: Graph, shape: tuple[int, ...]) -> int:
    return estimate(graph, input_shape=shape, optimizer=OPTIMIZER, loss="binary_cross_entropy", cpu=Cpu()).peak_bytes


def _traced(run: Callable[[], Any]) -> int:
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _print_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    for row in (head, tuple("-" * w for w in widths), *rows):
        print("  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))).rstrip())
