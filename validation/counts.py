"""The counts of a real run, as statements: what ``assume`` has to say so that a prediction speaks of these very values."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from memest.sources.assumptions import BINS, BOXES, SELECTED, UNIQUE
from memest.sources.importers.torch.refusals import users_line

SAME = frozenset({"view", "_unsafe_view", "detach", "alias", "clone", "unsqueeze", "squeeze", "transpose", "permute", "t", "expand"})
NEGATED = frozenset({"bitwise_not", "logical_not"})
COMPARED = frozenset({"gt", "ge", "lt", "le", "eq", "ne", "add", "clamp"})


def counts_of(run: Callable[[], Any], *, lines: bool = False) -> dict[str, list[int]]:
    """By kind, one after the other, what memest's importer asks for when it records ``run``; with ``lines`` also what every line reads
    besides: truths and whole numbers."""
    with _Counting(lines) as counting:
        run()
    return {kind: found for kind, found in counting.found.items() if found}


class _Counting(TorchDispatchMode):
    """Writes down how many elements masks pick, each mask once. Tensors are known by identity, so all are kept alive."""

    def __init__(self, lines: bool) -> None:
        super().__init__()
        self._lines = lines
        self.found: dict[str, list[int]] = {SELECTED: [], BOXES: [], UNIQUE: [], BINS: []}
        self._roots: dict[int, int] = {}
        self._known: set[int] = set()
        self._sums: dict[int, torch.Tensor] = {}
        self._alive: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One call of an operator."""
        name = func.overloadpacket.__name__
        for mask in self._counted(name, args):
            self._ask(mask)
        result = func(*args, **(kwargs or {}))
        self._alive.append((args, result))
        if name == "_local_scalar_dense" and self._lines and id(args[0]) not in self._sums:
            self._read(result)
        if name == "nms":
            self.found[BOXES].append(len(result))
        elif name == "_unique2":
            self.found[UNIQUE].append(len(result[0]))
        elif name == "bincount":
            self.found[BINS].append(len(result))
        elif isinstance(result, torch.Tensor) and args and isinstance(args[0], torch.Tensor):
            self._follow(name, args[0], result)
        return result

    def _read(self, number: Any) -> None:
        """A line of code has read a number."""
        line = users_line(traceback.extract_stack(limit=100)[:-3])
        if line and (isinstance(number, int) or float(number).is_integer()):
            self.found.setdefault(line, []).append(number if isinstance(number, bool) else int(number))

    def _follow(self, name: str, given: torch.Tensor, result: torch.Tensor) -> None:
        if name in SAME or name in NEGATED:
            self._roots[id(result)] = self._root(given)
        if name == "sum" and given.dtype == torch.bool and result.ndim == 0:
            self._sums[id(result)] = given
        elif id(given) in self._sums and name in (SAME | COMPARED):
            self._sums[id(result)] = self._sums[id(given)]

    def _counted(self, name: str, args: Any) -> list[torch.Tensor]:
        """The masks that a call asks for."""
        if name == "nonzero":
            return [args[0]]
        if name == "masked_select":
            return [args[1]]
        if name == "_local_scalar_dense":
            return [self._sums[id(args[0])]] if id(args[0]) in self._sums else []
        masks = [t for t in args[1] if t is not None and t.dtype == torch.bool] if name in ("index", "index_put_", "index_put") else []
        if name != "index" and masks:
            value = args[2]
            if value.numel() == 1 and len(args[1]) == 1:
                return []
            if len(masks) == 1 and value.ndim == args[0].ndim - masks[0].ndim + 1:
                self._known.add(self._root(masks[0]))
                return []
        return masks

    def _root(self, t: torch.Tensor) -> int:
        return self._roots.get(id(t), id(t))

    def _ask(self, mask: torch.Tensor) -> None:
        root = self._root(mask)
        if root not in self._known:
            self._known.add(root)
            self.found[SELECTED].append(int(mask.count_nonzero()))
