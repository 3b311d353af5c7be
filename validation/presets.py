"""nnU-Net's presets: what its planner thinks a configuration takes, and what it takes.

The planner counts the outputs of convolutions for one sample (``compute_conv_feature_map_size``) and holds the count against a constant
that stands for so many GB at a batch of two (``UNet_reference_val_3d``). The count is made again here, from memest's graph.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import memest
from memest.estimate.estimate import Estimate
from memest.memory.figure import Figure
from memest.network.graph import Graph
from memest.network.tensor import numel

DATA = Path(__file__).parent / "results" / "nnunet" / "presets.json"
CARD = "a100-40gb"
GB = 1e9
REFERENCE_BATCH = 2


@dataclass(frozen=True)
class Preset:
    """One configuration that a preset's planner made for a data set."""

    plan: Mapping[str, Any]
    documented_gb: float

    @property
    def name(self) -> str:
        """The preset, and whose images."""
        return f"{self.plan['preset']}, {self.plan['data']}"

    @property
    def batch_size(self) -> int:
        """The planned one."""
        return int(self.plan["configuration"]["batch_size"])

    @cached_property
    def graph(self) -> Graph:
        """The network with its usual ways."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "plans.json"
            path.write_text(json.dumps({"plans_name": self.plan["preset"], "configurations": {"3d_fullres": self.plan["configuration"]}}))
            given = {"input_channels": self.plan["channels"], "num_classes": self.plan["heads"]}
            return memest.load(path, configuration="3d_fullres", **given)

    @property
    def planned_gb(self) -> float:
        """What the constant makes of the count."""
        reference = self.plan["reference"] / self.plan["reference_gb"]
        return float(self.plan["feature_maps"] * self.batch_size / REFERENCE_BATCH / reference)

    def estimate(self, **settings: Any) -> Estimate:
        """The training step."""
        return memest.estimate(self.graph, **settings)


def presets() -> list[Preset]:
    """All that are stored."""
    data = json.loads(DATA.read_text(encoding="utf-8"))
    return [Preset(plan, data["documented"][plan["preset"]]) for plan in data["plans"]]


def feature_maps(graph: Graph, patch: tuple[int, ...]) -> int:
    """``compute_conv_feature_map_size``: elements of all convolutions' outputs for one sample, without deep supervision; the skip of a
    residual block that is pooled alone counts as a convolution."""
    played = graph.inference or graph
    (channels,) = (n for n in played.inputs[0].shape[1:2] if isinstance(n, int))
    values = memest.estimate(played, input_shape=(1, channels, *patch), mode="infer", runtime="null").timeline.values
    made = {layer.name for layer in played.layers}
    counted = [
        layer.name
        for layer in played.layers
        if layer.op.startswith("conv") or (layer.op.startswith("avg_pool") and f"{layer.name[:-1]}1.conv" not in made)
    ]
    return sum(int(numel(values[name].shape)) for name in counted)


def lines() -> Iterator[str]:
    """The table, in Markdown; GB are 10^9 bytes."""
    yield f"| preset, images | patch | batch | planner's constant | {CARD}: allocated | process | nvidia-smi, documented |"
    yield "|---|---|---:|---:|---:|---:|---:|"
    for preset in presets():
        found = preset.estimate(machine=CARD)
        patch = " x ".join(map(str, preset.plan["configuration"]["patch_size"]))
        ours = f"{_range(found.allocated)} | {_range(found.process)}"
        yield f"| {preset.name} | {patch} | {preset.batch_size} | {preset.planned_gb:.2f} | {ours} | {preset.documented_gb:.2f} |"


def _range(figure: Figure) -> str:
    if figure.bytes is None or figure.low is None or figure.high is None:
        return "-"
    range_ = "" if figure.low == figure.high else f" ({figure.low / GB:.2f} to {figure.high / GB:.2f})"
    return f"{figure.bytes / GB:.2f}{range_}"
