"""Lists of tensors, as torch's older exporter has them: nothing of them is in the graph but their parts."""

from __future__ import annotations

from typing import Any

from memest.errors import GraphError
from memest.sources.importers.onnx.call import Call, Handler, Result
from memest.sources.importers.onnx.values import Several, numbers
from memest.sources.importers.onnx.writing import shape_of


def _parts(c: Call) -> tuple[Any, ...]:
    value = c.input(0)
    if not isinstance(value, Several):
        raise GraphError(f"{c.node.input[0]!r} is no sequence")
    return value.parts


def _place(c: Call, i: int, count: int) -> int:
    """A place that an input gives, from 0."""
    at = int(c.number(i))
    if not -count <= at < count:
        raise GraphError(f"number {at} of a sequence of {count}")
    return at % count


def empty(c: Call) -> Result:
    """``SequenceEmpty``."""
    return Several(())


def construct(c: Call) -> Result:
    """``SequenceConstruct``."""
    return Several(tuple(c.input(i) for i in range(len(c.inputs))))


def insert(c: Call) -> Result:
    """``SequenceInsert``: at the end where no place is given."""
    parts = list(_parts(c))
    parts.insert(_place(c, 2, len(parts) + 1) if c.given(2) else len(parts), c.input(1))
    return Several(tuple(parts))


def erase(c: Call) -> Result:
    """``SequenceErase``: the last where no place is given."""
    parts = list(_parts(c))
    del parts[_place(c, 1, len(parts)) if c.given(1) else -1]
    return Several(tuple(parts))


def at(c: Call) -> Result:
    """``SequenceAt``."""
    parts = _parts(c)
    made: Result = parts[_place(c, 1, len(parts))]
    return made


def length(c: Call) -> Result:
    """``SequenceLength``."""
    return numbers(len(_parts(c)))


def split(c: Call) -> Result:
    """``SplitToSequence``: parts of a size (the last may be smaller), or of sizes; one element each where there are none."""
    x = c.tensor(0)
    axis = c.axis(0, len(x.shape))
    size = int(x.shape[axis])
    given = [int(n) for n in c.numbers(1)] if c.given(1) else [1]
    if c.given(1) and shape_of(c.input(1)) != ():
        sizes = given
    elif given[0] > 0:
        sizes = [min(given[0], size - start) for start in range(0, size, given[0])]
    else:
        raise GraphError(f"parts of {given[0]}")
    made = c.layer("split", x, split_size_or_sections=tuple(sizes), dim=axis)
    parts = made if isinstance(made, tuple) else (made,)
    if not c.given(1) and not c.attribute("keepdims", 1):
        parts = tuple(c.layer("squeeze", part, dim=axis) for part in parts)
    return Several(parts)


def concat(c: Call) -> Result:
    """``ConcatFromSequence``."""
    parts = [c.writer.tensor(part) for part in _parts(c)]
    if not parts:
        raise GraphError("joins a sequence without parts")
    made: Result = c.layer("stack" if c.attribute("new_axis", 0) else "cat", parts, dim=c.axis(0, len(parts[0].shape)))
    return made


HANDLERS: dict[str, Handler] = {
    "SequenceEmpty": empty,
    "SequenceConstruct": construct,
    "SequenceInsert": insert,
    "SequenceErase": erase,
    "SequenceAt": at,
    "SequenceLength": length,
    "SplitToSequence": split,
    "ConcatFromSequence": concat,
}
