"""memest, torch's MemTracker under FakeTensorMode and torchinfo on one training step of ResNet-50, and the measured truth."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import Any

from memest.estimate.estimate import estimate
from memest.machines.cpu import Cpu
from memest.network.graph import Graph
from validation.bench.builds import THIS
from validation.bench.lines import NEW_BATCHES, Found
from validation.bench.probes import timed
from validation.bench.table import Claim, print_table

BATCH = 8
IMAGE = (3, 224, 224)
SHAPE = (BATCH, *IMAGE)
OPTIMIZER, LOSS = "adam", "cross_entropy"
NETWORK = "torchvision.models:resnet50()"

FASTER_IN_MEMORY = 1000
FASTER_WITH_IMPORT = 5


def side_by_side(quick: bool, found: Found) -> Iterator[Claim]:
    """The table of estimators, with the estimates at a new batch that the speed table ``found``, and what is claimed of them. ``quick``
    takes a stored measurement for the truth where there is one."""
    from memest.sources.importers.torch.network import from_torch

    module = _module()
    timed(lambda: from_torch(module, (2, 3, 64, 64)))  # libraries load once, for everyone
    imported, peak = min(timed(lambda: _peak(from_torch(module, SHAPE), BATCH)) for _ in range(2))
    graph = from_torch(module, SHAPE)
    first, _ = timed(lambda: _peak(graph, BATCH + 1))
    batches = range(BATCH + 2, BATCH + (8 if quick else 34))
    new_batch = median(timed(lambda b=b: _peak(graph, b))[0] for b in batches)
    again = median(timed(lambda b=b: _peak(graph, b))[0] for b in [BATCH, *batches[:3]] * 5)
    tracker_time, tracker_peak = min(timed(_mem_tracker) for _ in range(2))  # the first loads what FakeTensorMode needs
    info_time, info_peak = min(timed(lambda: _torchinfo(module)) for _ in range(2))
    truth = _truth(module, quick)
    rows = [
        ("memest, graph in memory, a batch size asked before", again, peak),
        ("memest, graph in memory, a batch size never seen", new_batch, peak),
        ("memest, first estimate of a graph", first, peak),
        ("memest, import and estimate", imported, peak),
        ("torch MemTracker under FakeTensorMode", tracker_time, tracker_peak),
        ("torchinfo", info_time, info_peak),
    ]
    lines = [(name, f"{1000 * t:,.2f}", f"{tracker_time / t:,.1f}", f"{p:,}", f"{100 * (p - truth) / truth:+.3f} %") for name, t, p in rows]
    for line in NEW_BATCHES:
        seconds = line.value(found, THIS)
        if seconds is not None:
            lines.append((f"memest, {line.what}", f"{1000 * seconds:,.2f}", f"{tracker_time / seconds:,.1f}", "", ""))
    print(f"ResNet-50, one training step ({OPTIMIZER}, {LOSS}), batch {BATCH}, {'x'.join(map(str, IMAGE))}, torch CPU")
    print_table(("estimator", "CPU ms", "times MemTracker's speed", "peak bytes", "error"), lines)
    print(f"measured peak: {truth:,} bytes")
    yield Claim("peak of ResNet-50", f"{peak - truth:+,} bytes", "0", peak == truth)
    yield _ratio("estimate at a batch size never seen, against MemTracker", tracker_time / new_batch, FASTER_IN_MEMORY)
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


def _module() -> Any:
    from memest.sources.importers.torch.loading import build

    return build(NETWORK).train()


def _peak(graph: Graph, batch: int) -> int:
    return estimate(graph, input_shape=(batch, *IMAGE), optimizer=OPTIMIZER, loss=LOSS, machine=_cpu()).peak_bytes


def _cpu() -> Cpu:
    import torch

    return Cpu.detect().with_(threads=torch.get_num_threads())
