"""What a name in an ONNX graph stands for: a tensor, an initializer that nobody has read yet, or numbers that are known."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import onnx

from memest.errors import FileError, GraphError, UnsupportedError
from memest.network.dtypes import FLOATING
from memest.network.tensor import Shape
from memest.sizes.dims import Dim, plain
from memest.sources.builder import Node

MOST_KNOWN = 4_096  # elements of a tensor that is followed number by number
MOST_FLOATS = 16  # of an initializer that is read: bounds, factors, axes
MOST_ELEMENTS = 1 << 50
MOST_DIMS = 64
DTYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    14: "complex64",
    15: "complex128",
    16: "bfloat16",
}
_CONSTANT = re.compile(r"val_\d+|scalar_tensor.*|onnx::\w+|.*const.*", re.IGNORECASE)
"""Names that exporters give to numbers of the code: torch's two, tf2onnx."""


@dataclass(frozen=True, eq=False)
class Known:
    """Numbers that are known: an array of ints (``Dim``s among them), floats or bools, of a dtype by torch's name."""

    array: Any
    dtype: str

    @property
    def shape(self) -> Shape:
        """Its dims."""
        return tuple(self.array.shape)

    @property
    def symbolic(self) -> bool:
        """Whether a size that is free stands in it."""
        return any(isinstance(n, Dim) for n in self.array.flat)


@dataclass(eq=False)
class Initial:
    """An initializer: its name, sizes and dtype; ``numbers`` where it is small enough to be read; ``node`` once it is a parameter."""

    name: str
    shape: Shape
    dtype: str
    numbers: Known | None
    statistic: bool = False
    nodes: dict[Shape, Node] = field(default_factory=dict)

    @property
    def trainable(self) -> bool:
        """Whether it is a parameter: a floating tensor that no exporter made of a number."""
        return self.dtype in FLOATING and not self.statistic and not (prod(self.shape) == 1 and _CONSTANT.fullmatch(self.name))

    @property
    def is_number(self) -> bool:
        """Whether it is a number of the code, and not a tensor of the network."""
        return self.shape == () and self.numbers is not None and not self.trainable


@dataclass(frozen=True, eq=False)
class Several:
    """A list of values, which the file's own nodes take apart again."""

    parts: tuple[Any, ...]

    @property
    def shape(self) -> Shape:
        """A list has none."""
        raise GraphError("a sequence of tensors, where a tensor is wanted")


Value = Node | Initial | Known | Several


def numbers(values: Any, dtype: str = "int64") -> Known:
    """Known numbers: of a nested list, or of an array."""
    given = values if isinstance(values, np.ndarray) else _objects(values)
    return Known(given if given.dtype == object else given.astype(object), dtype)


def _objects(values: Any) -> Any:
    """An array of the very objects; a list of them has one dim."""
    made: Any = np.empty(len(values) if isinstance(values, list | tuple) else (), dtype=object)
    if not isinstance(values, list | tuple):
        made[()] = values
        return made
    for i, v in enumerate(values):
        made[i] = v
    return made


def dtype_name(code: int, what: str) -> str:
    """Torch's name of ONNX's element type."""
    if code not in DTYPES:
        known = onnx.TensorProto.DataType.Name(code) if code in onnx.TensorProto.DataType.values() else str(code)
        raise UnsupportedError(f"{what} is of the type {known}, which is not modelled")
    return DTYPES[code]


def initial(proto: Any, name: str, statistic: bool = False) -> Initial:
    """The initializer of a TensorProto, whose data is read only where it is small and in the file."""
    what = f"the initializer {name!r}"
    if any(d < 0 for d in proto.dims):
        raise FileError(f"{what} has the sizes {list(proto.dims)}")
    shape = tuple(int(d) for d in proto.dims)
    check_elements(shape, what)
    external = proto.data_location == onnx.TensorProto.EXTERNAL
    if external:
        _check_location(proto, what)
    dtype = dtype_name(proto.data_type, what)
    small = prod(shape) <= (MOST_FLOATS if dtype in FLOATING else MOST_KNOWN)
    return Initial(name, shape, dtype, None if external or not small else _read(proto, dtype, what), statistic)


def _read(proto: Any, dtype: str, what: str) -> Known:
    try:
        return numbers(np.asarray(onnx.numpy_helper.to_array(proto)).astype("float64" if dtype == "bfloat16" else dtype), dtype)
    except (ValueError, TypeError, OverflowError) as e:
        raise FileError(f"{what} has no numbers of its sizes {list(proto.dims)} ({e})") from None


def elsewhere(proto: Any) -> str | None:
    """The file that the data of an initializer lie in, by its name; None where it is the network's own."""
    if proto.data_location != onnx.TensorProto.EXTERNAL:
        return None
    return next((e.value for e in proto.external_data if e.key == "location"), "")


def _check_location(proto: Any, what: str) -> None:
    """Weights in another file are never read; one outside of the folder is a file that no reader should follow."""
    location = elsewhere(proto) or ""
    path = PurePosixPath(location.replace("\\", "/"))
    if not location or path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", location):
        raise FileError(f"{what} lies outside of the file's folder")


def check_elements(shape: Sequence[int], what: str) -> None:
    """Refuse sizes that nothing has."""
    if len(shape) > MOST_DIMS:
        raise GraphError(f"{what} has {len(shape):,} dims")
    count = 1
    for n in plain(tuple(shape)):
        count *= n
    if count >= MOST_ELEMENTS:
        raise GraphError(f"{what} would have {count:,} elements")
