"""A network as ONNX Runtime rewrites it before it runs."""

from __future__ import annotations

from collections.abc import Mapping

from memest.machines.engines import OnnxSettings
from memest.machines.target import Target
from memest.network.graph import Graph
from memest.network.tensor import Shape, Spec
from memest.runtimes.onnxruntime.lowering import fusing
from memest.runtimes.onnxruntime.lowering.exporting import exported
from memest.runtimes.onnxruntime.lowering.nchwc import blocked
from memest.runtimes.onnxruntime.lowering.nodes import Net


def lowered(
    graph: Graph, shapes: Mapping[str, Shape], sizes: Mapping[str, int], target: Target, settings: OnnxSettings, *, remember: bool
) -> tuple[Net, dict[str, Spec]]:
    """The nodes that run, and what the graph's own values are."""
    net, specs = exported(graph, shapes, sizes, target, remember=remember)
    if settings.level != "disabled":
        fusing.basic(net)
    fusing.inlined(net)
    if settings.level in ("extended", "all"):
        fusing.extended(net)
    if settings.level == "all":
        fusing.hard_swish_into(net)
        blocked(net, target.cpu.vector_floats)
    return net, specs
