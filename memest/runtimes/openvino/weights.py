"""Weights beside the originals: what the plugin's kernels pack once, for the life of a compiled model.

Measured (heap of compiled models): oneDNN packs convolutions with outputs in blocks of 16; MLAS packs products in float32 the same way; a
deconvolution's are transposed first; a product of more than two dims in bfloat16 keeps the weights in bfloat16, and packs those.
Source: openvino/src/plugins/intel_cpu/src/nodes/executors/{mlas,dnnl} and thirdparty/mlas (MlasGemmPackBSize).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from memest.network.dtypes import ITEMSIZE
from memest.network.graph import Graph, Layer
from memest.network.tensor import Shape
from memest.runtimes.openvino.rows import told

BLOCK = 16
PACKED = frozenset({"Convolution", "Deconvolution", "FullyConnected"})


def packed_bytes(graph: Graph, precision: str) -> int:
    """Bytes of all packed copies of a network of nodes; weights that several nodes share are packed once."""
    shapes = {p.name: tuple(p.shape) for p in graph.parameters}
    of: dict[str, int] = {}
    for layer in graph.layers:
        if layer.op in PACKED and layer.reads[1] in shapes:
            of[layer.reads[1]] = _of(layer, shapes, precision)
    return sum(of.values())


def _of(layer: Layer, shapes: Mapping[str, Shape], precision: str) -> int:
    shape = shapes[layer.reads[1]]
    one = _blocked(layer, shape) * ITEMSIZE[precision]
    if layer.op == "Deconvolution":
        return one + prod(shape) * ITEMSIZE[precision]
    rank = len(told(layer, "shapes")[0])
    return one * (2 if layer.op == "FullyConnected" and rank > 2 and precision != "float32" else 1)


def _blocked(layer: Layer, shape: Shape) -> int:
    """Elements, the outputs rounded up to whole blocks; of a convolution a channel each the channels."""
    channels = told(layer, "shapes")[0][-1] if layer.op == "FullyConnected" else shape[0]
    return prod(shape) // channels * (-(-channels // BLOCK) * BLOCK)
