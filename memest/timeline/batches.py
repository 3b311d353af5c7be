"""Which tensors the network is called with, one call after the other: the batch itself, its slices, or a window of a volume.

A slice of a batch (``x.split(size)``) is a view: the whole batch stays resident.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from memest.dims import Expr
from memest.errors import UsageError
from memest.ledger import Value
from memest.tensor import Shape, spec
from memest.timeline.binding import bind

if TYPE_CHECKING:
    from memest.timeline.player import Player


@dataclass(frozen=True, slots=True)
class Batch:
    """The inputs of one call by name, and the sizes they bind."""

    inputs: Mapping[str, Value]
    sizes: Mapping[str, int]


def whole(player: Player) -> Batch:
    """The inputs as they are given."""
    return Batch({i.name: player.env[i.name] for i in player.graph.inputs}, player.sizes)


def slices(player: Player, size: int) -> Iterator[Batch]:
    """The given batch in slices of ``size``, the last maybe smaller."""
    given = whole(player)
    total = _batch_size(player)
    done = 0
    while done < total:
        rest = total - done
        count = size if size < rest else rest
        inputs = {}
        for i in player.graph.inputs:
            value = given.inputs[i.name]
            part = Value(spec((count, *value.shape[1:]), i.dtype, i.layout), value.storage)
            inputs[i.name] = player.ledger.hold(part)
        yield Batch(inputs, sizes_at(player, {name: v.shape for name, v in inputs.items()}, "micro_batch"))
        done = done + count


def _batch_size(player: Player) -> int:
    """The common first dim of the inputs; UsageError where they have none, or where the graph is described for one batch size."""
    first = player.graph.inputs[0]
    for i in player.graph.inputs:
        dim = i.shape[0] if i.shape else 1
        if not (isinstance(dim, Expr) and dim.op == "symbol") or dim != first.shape[0]:
            raise UsageError(
                f"micro_batch: input {i.name!r} is described for batch {dim}; describe every input's first dim by one name (N)"
            )
    return player.env[first.name].shape[0]


def sizes_at(player: Player, shapes: Mapping[str, Shape], lever: str) -> dict[str, int]:
    """The sizes that other ``shapes`` of the inputs bind; UsageError where the network is not described for them."""
    try:
        sizes = bind(player.graph.inputs, shapes)
    except UsageError as e:
        raise e.at(lever) from None
    broken = next((g for g in player.graph.guards if not g.holds(sizes)), None)
    if broken is not None:
        raise UsageError(f"{lever}: {player.graph.name} is described for sizes where {broken}; it may run differently on the part")
    return sizes
