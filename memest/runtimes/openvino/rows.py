"""The plugin's nodes, by the type that ``CompiledModel.get_runtime_model()`` tells (``layerType``).

A node makes its outputs and nothing else: whatever scratch its kernels take is counted with the process. Lowering says their ``shapes``,
and of which input one takes the place (``over``: a view of it, or written over it), and for how many elements it makes ``room`` (what it is
joined with is written behind it).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memest.network.graph import Items, Layer
from memest.network.tensor import Shape
from memest.ops.facts import EVERYWHERE_FACTS
from memest.ops.operator import Operator, integer, optional, text
from memest.ops.tape import Tape, Tensor
from memest.ops.writing import attribute, row

TYPES = (
    "Broadcast",
    "Concatenation",
    "Convert",
    "Convolution",
    "Deconvolution",
    "DepthToSpace",
    "Eltwise",
    "FullyConnected",
    "Gather",
    "GatherND",
    "GridSample",
    "Interpolate",
    "MatMul",
    "Math",
    "MVN",
    "Pad",
    "Pooling",
    "Reduce",
    "Reorder",
    "RMS",
    "Reshape",
    "ShuffleChannels",
    "Softmax",
    "Split",
    "StridedSlice",
    "Subgraph",
    "Tile",
    "Transpose",
)


def _shapes(value: Any) -> tuple[Shape, ...]:
    return tuple([tuple(shape) for shape in value])


def _node(
    k: Tape, inputs: list[Tensor], *, shapes: tuple[Shape, ...], dtype: str, over: int | None, room: int | None, what: str, layout: str
) -> Tensor | tuple[Tensor, ...]:
    base = inputs[over] if over is not None else None if room is None else k.empty((room,), dtype)
    made = tuple([k.empty(shape, dtype) if base is None else k.view(base, shape) for shape in shapes])
    return made if len(made) > 1 else made[0]


NODES: dict[str, Operator] = {
    name: row(
        name,
        _node,
        None,
        (
            attribute("shapes", check=_shapes),
            attribute("dtype", check=text),
            attribute("over", None, optional(integer)),
            attribute("room", None, optional(integer)),
            attribute("what", "", text),
            attribute("layout", "planar", text),
        ),
        (),
        "openvino/src/plugins/intel_cpu/src/nodes",
        roles=("inputs*",),
        torch="",
        facts=EVERYWHERE_FACTS,
    )
    for name in TYPES
}


def node(
    name: str,
    kind: str,
    reads: Sequence[str],
    shapes: Sequence[Shape],
    *,
    what: str = "",
    outputs: Sequence[str] = (),
    dtype: str = "float32",
) -> Layer:
    """A node of a type, by the names of what it reads; ``what`` tells which of the functions of its type it is."""
    made = tuple([tuple(s) for s in shapes])
    given = {"shapes": made, "dtype": dtype, "over": None, "room": None, "what": what, "layout": "planar"}
    return Layer(name=name, op=kind, tensors=(tuple(reads),), attributes=tuple(given.items()), outputs=tuple(outputs) or (name,))


def told(layer: Layer, name: str) -> Any:
    """An attribute of a node."""
    return next(value for key, value in layer.attributes if key == name)


def telling(layer: Layer, **changes: Any) -> Items:
    """The attributes of a node, changed."""
    return tuple([(key, changes.get(key, value)) for key, value in layer.attributes])
