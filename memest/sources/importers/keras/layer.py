"""A layer of a configuration as its handler sees it: its settings, what it is called with, and the graph that it goes into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from memest.errors import FileError, UnsupportedError
from memest.sizes.dims import plain
from memest.sources.builder import Builder, Node
from memest.sources.importers.keras.values import Orders, Value, written

MISSING: Any = object()


class Call:
    """One call of a layer. ``values`` are its tensors, ``arguments`` what else it was called with, in order; its parameters begin with the
    name ``owner``, whichever call makes them. ``own_sizes``: the input has the sizes that the file states."""

    def __init__(
        self,
        name: str,
        owner: str,
        config: Mapping[str, Any],
        built: Mapping[str, Any],
        values: Sequence[Value],
        arguments: Sequence[Any],
        builder: Builder,
        own_sizes: bool,
    ) -> None:
        self.name, self.values, self.arguments = name, values, arguments
        self.orders = Orders(builder)
        self._owner, self._config, self._built, self._builder, self._own_sizes = owner, config, built, builder, own_sizes

    def setting(self, name: str, default: Any = MISSING) -> Any:
        """A setting; FileError where it is missing and has no ``default``."""
        found = self._config.get(name, default)
        if found is MISSING:
            raise FileError(f"has no setting {name!r}")
        return found

    def refuse(self, **allowed: Any) -> None:
        """UnsupportedError for a setting that is none of those that have a rule."""
        for name, values in allowed.items():
            given = self.setting(name, None)
            if given not in (values if isinstance(values, tuple) else (values,)):
                raise UnsupportedError(f"no rule for {name}={given!r:.60}")

    @property
    def value(self) -> Value:
        """Its one tensor."""
        if len(self.values) != 1:
            raise UnsupportedError(f"is called with {len(self.values)} tensors, and takes one")
        return self.values[0]

    @property
    def trainable(self) -> bool:
        """Whether its parameters are trained."""
        return bool(self.setting("trainable", True))

    def spatial(self, name: str, dims: int, default: Any = MISSING) -> tuple[int, ...]:
        """A setting with a whole number for each spatial dim."""
        found = self.setting(name, default)
        numbers = (found,) * dims if isinstance(found, int) else tuple(found)
        if len(numbers) != dims or not all(_is_count(n) for n in numbers):
            raise FileError(f"{name} is {found!r:.60}, not {dims} whole numbers above 0")
        return numbers

    def count(self, name: str, default: Any = MISSING) -> int:
        """A setting that is a whole number above 0."""
        found = self.setting(name, default)
        if not _is_count(found):
            raise FileError(f"{name} is {found!r:.60}, not a whole number above 0")
        return int(found)

    def images(self) -> Value:
        """Its tensor with the channels second."""
        if self.setting("data_format", None) == "channels_first":
            raise UnsupportedError("no rule for data_format='channels_first'; save the network with channels last")
        return self.orders.moved(self.value, self.name)

    def made(self, op: str, *nodes: Any, name: str = "", **attributes: Any) -> Node:
        """A layer of the graph: the call's own name, or ``name`` behind it."""
        full = f"{self.name}.{name}" if name else self.name
        found: Node = written(self._builder, op, *nodes, name=full, **attributes)
        return found

    def parameter(self, role: str, shape: Sequence[int], *, buffer: bool = False) -> Node:
        """A parameter of the layer, made when it is called first."""
        name = f"{self._owner}.{role}"
        found = self._builder.find(name)
        if found is None:
            found = self._builder.parameter(name, tuple(plain(n) for n in shape), trainable=self.trainable, buffer=buffer)
        return found

    def width(self, value: Value, axis: int = -1) -> int:
        """The size of Keras's ``axis``, which parameters have: that the layer was built for. UnsupportedError where it is another one."""
        size = value.node.shape[value.axis(axis)]
        built = self._built.get("input_shape")
        if isinstance(built, list) and built and not isinstance(built[0], list) and -len(built) <= axis < len(built):
            known = built[axis]
            if isinstance(known, int) and known != size:
                raise UnsupportedError(f"was built for {known} features, and gets {plain(size)}: another input makes it another network")
        if type(size) is not int and not (isinstance(built, list) and built and isinstance(built[axis], int)) and not self._own_sizes:
            raise UnsupportedError("has as many features as its input's sizes make, and the file does not say for which it was built")
        return int(plain(size))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
