"""From a network of torch's operators to the plugin's nodes, as ``get_runtime_model()`` tells them."""

from __future__ import annotations

from collections.abc import Mapping

from memest.machines.target import Target
from memest.network.graph import Graph, default_drops
from memest.network.tensor import Shape
from memest.runtimes.openvino.lowering import elementwise, products, reducing, shaping
from memest.runtimes.openvino.lowering.fusing import Fusing
from memest.runtimes.openvino.lowering.in_place import in_place
from memest.runtimes.openvino.lowering.layouts import Layouts, without_cancelled
from memest.runtimes.openvino.lowering.order import depth_first, from_outputs, resorted
from memest.runtimes.openvino.lowering.patterns import (
    broadcasts,
    check_rotations,
    grouped,
    joined_once,
    normed_by_squares,
    padded,
    shuffled_channels,
    sliced_apart,
    views_around,
)
from memest.runtimes.openvino.lowering.subgraphs import tokenize, tokenize_attention
from memest.runtimes.openvino.lowering.translation import Translation
from memest.runtimes.rewriting import Rewriting, described, drop_identities, fold_norms

TABLE = {**elementwise.TABLE, **shaping.TABLE, **products.TABLE, **reducing.TABLE}


def lowered(
    graph: Graph, input_shapes: Mapping[str, Shape], sizes: Mapping[str, int], target: Target, precision: str, *, remember: bool
) -> Graph:
    """The network as the plugin runs it at these sizes, computing in ``precision``."""
    rewriting = Rewriting(graph)
    specs = described(rewriting.graph(), input_shapes, sizes, target, remember=remember)
    drop_identities(rewriting)
    fold_norms(rewriting)
    normed_by_squares(rewriting, specs, frozenset(p.name for p in graph.parameters))
    translation = Translation(rewriting.graph(), specs, sizes)
    nodes = translation.run(TABLE)
    known = Rewriting(nodes)
    shuffled_channels(known, translation.shapes)
    padded(known)
    broadcasts(known, translation.shapes)
    sliced_apart(known, translation.shapes)
    check_rotations(known)
    grouped(known, translation.shapes)
    joined_once(known)
    nodes = nodes.with_(layers=from_outputs(known.layers, known.outputs))
    constants = frozenset(translation.constants)
    fusing = Fusing(Rewriting(nodes), translation.shapes, constants)
    tokenize_attention(fusing, precision)
    views_around(fusing.r, translation.shapes)
    fusing.run()
    tokenize(fusing)
    listed = fusing.r.layers
    layouts = Layouts(translation.shapes, constants, precision)
    found, outputs = layouts.run(depth_first(listed, listed), fusing.r.outputs)
    found = resorted(found, listed)
    found = without_cancelled(found, outputs)
    found = in_place(found, outputs, [i.name for i in graph.inputs], layouts.shapes)
    read = {name for layer in found for name in layer.reads}
    parameters = tuple([p for p in nodes.parameters if p.name in read])
    permanent = [*(i.name for i in nodes.inputs), *(p.name for p in parameters)]
    return nodes.with_(layers=default_drops(found, outputs, permanent), parameters=parameters, outputs=tuple(outputs))
