"""The networks a service knows: the last ones asked about, by name or by the hash of their description. What is remembered of a network
(compiled steps, peaks) is remembered with it, and goes with it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, Generic, TypeVar

from memest.errors import UsageError, kind_of
from memest.network.graph import Graph
from memest.serve.asking import REQUEST, Asked
from memest.sizes.interpreter import Lock
from memest.sources import files, models
from memest.sources.opening import is_torch, model, open_model, reads_sizes

T = TypeVar("T")


class Kept(Generic[T]):
    """The last things used, together no more than ``most`` by what each counts. Safe in threads."""

    def __init__(self, most: int) -> None:
        self._most, self._lock = most, Lock()
        self._known: OrderedDict[Hashable, tuple[T, int]] = OrderedDict()
        self.total = 0

    def get(self, key: Hashable) -> T | None:
        """What is known by this key."""
        with self._lock:
            found = self._known.get(key)
            if found is None:
                return None
            self._known.move_to_end(key)
            return found[0]

    def keep(self, key: Hashable, thing: T, counts: int = 1) -> T:
        """``thing``, or what another thread kept before."""
        with self._lock:
            if key in self._known:
                return self._known[key][0]
            self._known[key] = thing, counts
            self.total += counts
            while self.total > self._most:
                self.total -= self._known.popitem(last=False)[1][1]
        return thing


class Graphs:
    """Finds the network of a question. Built-in models and descriptions alone, unless ``imports`` are allowed: then whatever ``memest
    estimate`` opens, code and files of the server."""

    def __init__(self, most: int, imports: bool) -> None:
        self._known: Kept[Graph] = Kept(most)
        self._imports = imports

    @property
    def count(self) -> int:
        """How many are known."""
        return self._known.total

    def find(self, asked: Asked) -> Graph:
        """The network, made where it is not known. Raises what reading it raises."""
        what, value = asked.network
        key: Hashable = asked.key[0]
        if what == "graph":
            return self._known.get(key) or self._known.keep(key, _described(value))
        if not isinstance(value, str):
            raise UsageError(f"model is a name such as 'resnet50', got {kind_of(value)}")
        if value.partition(":")[0] in models.MODELS or not self._imports:
            return self._known.get(key) or self._known.keep(key, _built_in(value))
        example, mode = asked.words.get("input_shape"), asked.settings.get("mode", "train")
        if is_torch(value) or reads_sizes(value):
            key = (key, repr(example), mode)
            return self._known.get(key) or self._known.keep(key, open_model(value, example, mode))
        return open_model(value)  # a file may have changed


def _described(value: Any) -> Graph:
    if isinstance(value, str):
        return files.loads(value, source=REQUEST)
    return files.from_dict(value, source=REQUEST)


def _built_in(text: str) -> Graph:
    if text.partition(":")[0].strip() not in models.MODELS and any(c in text for c in "./:-"):
        raise UsageError(
            f"model {text[:80]!r}: built-in models have a name here (GET /models); files and code are opened with --allow-import alone, "
            "and a description is given as 'graph'"
        )
    return model(text)
