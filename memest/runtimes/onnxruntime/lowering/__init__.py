"""A network as ONNX Runtime rewrites it before it runs."""

from __future__ import annotations

from collections.abc import Mapping

from memest.machines.engines import OnnxSettings
from memest.machines.target import Target
from memest.network.graph import Graph
from memest.network.tensor import Shape, Spec
from memest.runtimes.onnxruntime.lowering import fusing, recurrent
from memest.runtimes.onnxruntime.lowering.exporting import exported
from memest.runtimes.onnxruntime.lowering.nchwc import blocked
from memest.runtimes.onnxruntime.lowering.nodes import Net


def lowered(
    graph: Graph,
    shapes: Mapping[str, Shape],
    sizes: Mapping[str, int],
    target: Target,
    settings: OnnxSettings,
    *,
    remember: bool,
    youngest_first: bool = True,
) -> tuple[Net, dict[str, Spec], bool]:
    """The nodes that run, what the graph's own values are, and whether their order is unsettled (``nchwc.blocked``)."""
    net, specs = exported(graph, shapes, sizes, target, remember=remember)
    fusing.pads_into_windows(net, own=True)
    recurrent.straightened(net)
    if settings.level != "disabled":
        fusing.basic(net)
    fusing.inlined(net)
    if settings.level in ("extended", "all"):
        fusing.extended(net)
    if settings.level == "all":
        fusing.hard_swish_into(net)
        return net, specs, blocked(net, target.cpu.vector_floats, youngest_first=youngest_first)
    return net, specs, False
