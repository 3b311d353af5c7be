"""Which tensors the network is called with, one call after the other: the batch itself, its slices, or a window of a volume.

A slice of a batch (``x.split(size)``) is a view: the whole batch stays resident.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from memest.errors import UsageError
from memest.network.binding import bind
from memest.network.tensor import Shape, spec
from memest.runtimes.torch.ledger import Value
from memest.runtimes.torch.step.run import Run
from memest.sizes.dims import Expr, plain

MOST_SLICES = 10_000


@dataclass(frozen=True, slots=True)
class Batch:
    """The inputs of one call by name, and the sizes they bind."""

    inputs: Mapping[str, Value]
    sizes: Mapping[str, int]


def whole(run: Run) -> Batch:
    """The inputs as they are given."""
    return Batch({i.name: run.env[i.name] for i in run.graph.inputs}, run.sizes)


def slices(run: Run, size: int) -> Iterator[Batch]:
    """The given batch in slices of ``size``, the last maybe smaller."""
    given = whole(run)
    total = _batch_size(run)
    if plain(total) > MOST_SLICES * size:
        raise UsageError(f"micro_batch: a batch of {total:,} in slices of {size:,} is more than {MOST_SLICES:,} of them; take larger ones")
    done = 0
    while done < total:
        rest = total - done
        count = size if size < rest else rest
        inputs = {}
        for i in run.graph.inputs:
            value = given.inputs[i.name]
            part = Value(spec((count, *value.shape[1:]), i.dtype, i.layout), value.storage)
            inputs[i.name] = run.ledger.hold(part)
        yield Batch(inputs, sizes_at(run, {name: v.shape for name, v in inputs.items()}, "micro_batch"))
        done = done + count


def _batch_size(run: Run) -> int:
    """The common first dim of the inputs; UsageError where they have none, or where the graph is described for one batch size."""
    first = run.graph.inputs[0]
    for i in run.graph.inputs:
        dim = i.shape[0] if i.shape else 1
        if not (isinstance(dim, Expr) and dim.op == "symbol") or dim != first.shape[0]:
            raise UsageError(
                f"micro_batch: input {i.name!r} is described for batch {dim}; describe every input's first dim by one name (N)"
            )
    return run.env[first.name].shape[0]


def sizes_at(run: Run, shapes: Mapping[str, Shape], lever: str) -> dict[str, int]:
    """The sizes that other ``shapes`` of the inputs bind; UsageError where the network is not described for them."""
    try:
        sizes = bind(run.graph.inputs, shapes)
    except UsageError as e:
        raise e.at(lever) from None
    broken = next((g for g in run.graph.guards if not g.holds(sizes)), None)
    if broken is not None:
        raise UsageError(f"{lever}: {run.graph.name} is described for sizes where {broken}; it may run differently on the part")
    return sizes
