"""Where elements lie: views, parts, joins, copies, and reading at places."""

from __future__ import annotations

from math import prod
from typing import Any

from memest.errors import GraphError
from memest.network.dtypes import FLOATING
from memest.sources.builder import Node
from memest.sources.importers.onnx.call import Call, Handler, Result
from memest.sources.importers.onnx.folding import filling, slices
from memest.sources.importers.onnx.values import Initial, initial
from memest.sources.importers.onnx.writing import shape_of

WHOLE = (1 << 31) - 1
"""From this end on a slice goes to the end, as exporters write it."""


def reshape(c: Call) -> Result:
    """``Reshape``: a 0 is the size as it was, a -1 what is left."""
    x, wanted = c.tensor(0), c.numbers(1)
    as_is = c.attribute("allowzero", 0)
    sizes = []
    for i, n in enumerate(wanted):
        if n == 0 and not as_is:
            if i >= len(x.shape):
                raise GraphError(f"size {i} of {list(x.shape)} is to be as it was")
            n = x.shape[i]
        sizes.append(n)
    made: Result = c.layer("reshape", x, shape=tuple(sizes))
    return made


def flatten(c: Call) -> Result:
    """``Flatten``: always to two dims."""
    x = c.tensor(0)
    ndim = len(x.shape)
    at = c.attribute("axis", 1)
    if not -ndim <= at <= ndim:
        raise GraphError(f"axis {at} of a tensor with {ndim} dims")
    at = at if at >= 0 else at + ndim
    made: Result
    if at == 1 and ndim > 1:
        made = c.layer("flatten", x, start_dim=1)
    else:
        made = c.layer("reshape", x, shape=(prod(x.shape[:at]), -1))
    return made


def transpose(c: Call) -> Result:
    """``Transpose``."""
    x = c.tensor(0)
    dims = c.attribute("perm") or tuple(reversed(range(len(x.shape))))
    if sorted(dims) != list(range(len(x.shape))):
        raise GraphError(f"perm {list(dims)} of {len(x.shape)} dims")
    made: Result = c.layer("permute", x, dims=tuple(dims))
    return made


def unsqueeze(c: Call) -> Result:
    """``Unsqueeze``: axes are those of the result."""
    made = c.tensor(0)
    given = c.attribute("axes") or c.numbers(1)
    for at in sorted(c.axes(1, len(made.shape) + len(given)) or ()):
        made = c.layer("unsqueeze", made, dim=at)
    return made


def squeeze(c: Call) -> Result:
    """``Squeeze``."""
    made = c.tensor(0)
    axes = c.axes(1, len(made.shape))
    if axes is None:
        axes = tuple(i for i, n in enumerate(made.shape) if n == 1)
    for at in sorted(axes, reverse=True):
        if made.shape[at] != 1:
            raise GraphError(f"axis {at} of {list(made.shape)} is not 1")
        made = c.layer("squeeze", made, dim=at)
    return made


def concat(c: Call) -> Result:
    """``Concat``; one part alone is that part."""
    parts = [c.tensor(i) for i in range(len(c.inputs))]
    made: Result = parts[0]
    if len(parts) > 1:
        made = c.layer("cat", parts, dim=c.axis(0, len(parts[0].shape)))
    return made


def split(c: Call) -> Result:
    """``Split``: by sizes, or into as many parts as outputs, of which the last may be smaller."""
    x = c.tensor(0)
    at = c.axis(0, len(x.shape))
    sizes = c.attribute("split") or (c.numbers(1) if c.version >= 13 and c.given(1) else None)
    count = len(c.node.output)
    made: Any
    if sizes is None:
        part = (x.shape[at] + count - 1) // count
        sizes = (*(part,) * (count - 1), x.shape[at] - part * (count - 1))
    if len(sizes) != count:
        raise GraphError(f"splits into {len(sizes)}, and has {count} outputs")
    if any(n < 0 for n in sizes):
        raise GraphError(f"splits {x.shape[at]} into {count}")
    made = c.layer("split", x, split_size_or_sections=tuple(sizes), dim=at)
    return made if isinstance(made, tuple) else (made,)


def slice_(c: Call) -> Result:
    """``Slice``: a view for each dim that is cut; backwards over all of it is a flip."""
    made = c.tensor(0)
    for at, start, end, step in slices(c, len(made.shape)):
        if step < 0:
            if step != -1 or (-made.shape[at] <= start < made.shape[at] - 1 and start != -1) or end >= -made.shape[at]:
                raise c.refuse(f"a slice with the step {step}: torch has none")
            made = c.layer("flip", made, dims=(at,))
        elif start != 0 or end < WHOLE or step != 1:
            made = c.layer("slice", made, dim=at, start=start, end=None if end >= WHOLE else end, step=step)
    return made


def gather(c: Call) -> Result:
    """``Gather``: a row of a table, one place, or several by a tensor of places."""
    at = c.axis(0, len(shape_of(c.input(0))))
    places = c.known(1)
    made: Result
    if places is not None and places.shape == ():
        made = c.layer("select", c.tensor(0), dim=at, index=places.array[()])
    elif places is not None and places.array.size == 1 and not places.symbolic and places.array.flat[0] >= 0:
        n = int(places.array.flat[0])
        part = c.layer("slice", c.tensor(0), dim=at, start=n, end=n + 1)
        made = part if len(places.shape) == 1 else c.layer("reshape", part, shape=_placed(part.shape, at, places.shape))
    elif isinstance(c.input(0), Initial) and at == 0 and len(shape_of(c.input(0))) == 2 and c.tensor(0).value.spec.dtype in FLOATING:
        made = c.layer("embedding", c.tensor(0), c.tensor(1))
    elif len(shape_of(c.input(1))) == 1:
        made = c.layer("index_select", c.tensor(0), c.tensor(1), dim=at)
    else:
        whole = ((None, None, 1),) * at
        made = c.layer("getitem", c.tensor(0), [c.tensor(1)], index=(*whole, "tensor"))
    return made


def _placed(shape: Any, at: int, places: Any) -> tuple[Any, ...]:
    return (*shape[:at], *places, *shape[at + 1 :])


def gather_nd(c: Call) -> Result:
    """``GatherND``: the last dim of the places has a place along each of the first dims."""
    if c.attribute("batch_dims", 0):
        raise c.refuse("GatherND with batch_dims")
    parts = _places(c)
    made: Result = c.layer("getitem", c.tensor(0), parts, index=("tensor",) * len(parts))
    return made


def scatter_nd(c: Call) -> Result:
    """``ScatterND``: a copy that is written to at such places."""
    if c.attribute("reduction", "none") != "none":
        raise c.refuse("ScatterND with a reduction")
    parts = _places(c)
    made: Result = c.layer("index_put_", c.layer("clone", c.tensor(0)), parts, c.tensor(2), dims=tuple(range(len(parts))))
    return made


def _places(c: Call) -> list[Node]:
    """The places along each dim, which lie beside one another in the last dim of a tensor."""
    ndim, places = len(shape_of(c.input(0))), c.tensor(1)
    along = int(places.shape[-1]) if places.shape else 0
    if not 1 <= along <= ndim:
        raise GraphError(f"has places of {along} dims in a tensor of {ndim}")
    return [c.layer("select", places, dim=len(places.shape) - 1, index=i) for i in range(along)]


def gather_elements(c: Call) -> Result:
    """``GatherElements``."""
    x = c.tensor(0)
    made: Result = c.layer("gather", x, c.tensor(1), dim=c.axis(0, len(x.shape)))
    return made


def scatter_elements(c: Call) -> Result:
    """``ScatterElements``."""
    x = c.tensor(0)
    if c.attribute("reduction", "none") != "none":
        raise c.refuse("ScatterElements with a reduction")
    made: Result = c.layer("scatter", x, c.tensor(1), c.tensor(2), dim=c.axis(0, len(x.shape)))
    return made


def expand(c: Call) -> Result:
    """``Expand``: both shapes are broadcast."""
    x, wanted = c.tensor(0), list(c.numbers(1))
    ndim = max(len(wanted), len(x.shape))
    have = [1] * (ndim - len(x.shape)) + list(x.shape)
    want = [1] * (ndim - len(wanted)) + wanted
    sizes = tuple(h if w == 1 else w for h, w in zip(have, want, strict=True))
    made: Result = c.layer("expand", x, size=sizes)
    return made


def tile(c: Call) -> Result:
    """``Tile``."""
    made: Result = c.layer("repeat", c.tensor(0), repeats=c.numbers(1))
    return made


MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


def pad(c: Call) -> Result:
    """``Pad``: all beginnings, then all ends; torch has both ends of the last dim first."""
    x = c.tensor(0)
    ndim = len(x.shape)
    if c.version < 11:
        given, value = tuple(c.attribute("pads") or ()), c.attribute("value", 0.0)
    else:
        given, value = c.numbers(1), c.number(2) if c.given(2) else None
    axes = c.axes(3, ndim) if c.version >= 18 else None
    axes = tuple(range(ndim)) if axes is None else axes
    if len(given) != 2 * len(axes):
        raise GraphError(f"pads {list(given)} for {len(axes)} dims")
    sides: list[tuple[Any, Any]] = [(0, 0)] * ndim
    for i, at in enumerate(axes):
        sides[at] = (given[i], given[i + len(axes)])
    while sides and sides[0] == (0, 0):
        sides.pop(0)
    mode = c.attribute("mode", "constant")
    if mode not in MODES:
        raise GraphError(f"has the mode {mode!r}")
    if not sides and ndim:  # a copy all the same
        sides = [(0, 0)] * max(1, ndim - 2)
    both = tuple(n for side in reversed(sides) for n in side)
    made: Result = c.layer("pad", x, pad=both, mode=MODES[mode], value=value or None)
    return made


def _turned(c: Call, x: Node, first: Any, dims: Any, last: Any) -> Result:
    """The elements in other dims, one copy."""
    seen = c.layer("reshape", x, shape=first)
    made: Result = c.layer("reshape", c.layer("permute", seen, dims=dims), shape=last)
    return made


def depth_to_space(c: Call) -> Result:
    """``DepthToSpace``: torch's pixel shuffle (CRD), or with the parts of a block outermost (DCR)."""
    x, b = c.tensor(0), c.attribute("blocksize", 0)
    _check_block(x, b)
    made: Result
    if c.attribute("mode", "DCR") == "CRD":
        made = c.layer("pixel_shuffle", x, upscale_factor=b)
        return made
    n, channels, h, w = x.shape
    deep = channels // (b * b)
    return _turned(c, x, (n, b, b, deep, h, w), (0, 3, 4, 1, 5, 2), (n, deep, h * b, w * b))


def space_to_depth(c: Call) -> Result:
    """``SpaceToDepth``."""
    x, b = c.tensor(0), c.attribute("blocksize", 0)
    _check_block(x, b)
    n, channels, h, w = x.shape
    return _turned(c, x, (n, channels, h // b, b, w // b, b), (0, 3, 5, 1, 2, 4), (n, channels * b * b, h // b, w // b))


def _check_block(x: Node, block: Any) -> None:
    if len(x.shape) != 4 or not isinstance(block, int) or not 0 < block < 1 << 16:
        raise GraphError(f"a block of {block} in {len(x.shape)} dims; it is for 4")


def constant_of_shape(c: Call) -> Result:
    """``ConstantOfShape`` with more elements than are followed, or of sizes that are free."""
    number, dtype = filling(c)
    made: Result = c.layer("full", shape=c.numbers(0), fill_value=number, dtype=dtype)
    return made


def range_(c: Call) -> Result:
    """``Range`` likewise."""
    start, end, step = (c.number(i) for i in range(3))
    found = c.known(0)
    made: Result = c.layer("arange", start=start, end=end, step=step, dtype="int64" if found is None else found.dtype)
    return made


def reverse_sequence(c: Call) -> Result:
    """``ReverseSequence``: as many elements are moved, whatever the lengths are."""
    x = c.tensor(0)
    made: Result = c.layer("flip", x, dims=(c.axis(0, len(x.shape), "time_axis"),))
    return made


def trilu(c: Call) -> Result:
    """``Trilu``."""
    diagonal = int(c.number(1)) if c.given(1) else 0
    made: Result = c.layer("triu" if c.attribute("upper", 1) else "tril", c.tensor(0), diagonal=diagonal)
    return made


def constant(c: Call) -> Result:
    """A ``Constant`` whose numbers are too many to be followed is a buffer."""
    return initial(c.attribute("value"), c.node.output[0] or "constant", statistic=True)


def identity(c: Call) -> Result:
    """``Identity``: the very same."""
    return c.input(0)


HANDLERS: dict[str, Handler] = {
    "Reshape": reshape,
    "Flatten": flatten,
    "Transpose": transpose,
    "Unsqueeze": unsqueeze,
    "Squeeze": squeeze,
    "Concat": concat,
    "Split": split,
    "Slice": slice_,
    "Gather": gather,
    "GatherND": gather_nd,
    "ScatterND": scatter_nd,
    "GatherElements": gather_elements,
    "ScatterElements": scatter_elements,
    "Expand": expand,
    "Tile": tile,
    "Pad": pad,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
    "ConstantOfShape": constant_of_shape,
    "Range": range_,
    "Trilu": trilu,
    "ReverseSequence": reverse_sequence,
    "Constant": constant,
    "Identity": identity,
}
