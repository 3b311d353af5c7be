"""Sweeps: the peak over a product of sizes, optimizers, dtypes and modes, as flat columns.

Every number equals what an estimate of that configuration alone would say, to the byte, and is exact past 2**63.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memest.errors import UsageError, did_you_mean, kind_of
from memest.estimate.question import KEYWORDS, Job, Question, apart, question
from memest.network.graph import Graph, as_graph
from memest.planning.axes import batch_symbol, pinned_sizes, symbols_in_order
from memest.planning.product import Product
from memest.planning.spread import checked
from memest.planning.swept import Sweep, Sweeps
from memest.runtimes.table import torch_behind
from memest.sizes import asked

Column = NDArray[Any]
MOST_VALUES = 50_000_000  # of an axis
AT_ONCE = 1_000_000  # points of a part
SEVERAL = (list, tuple, set, frozenset, np.ndarray)
SETTINGS = ("mode", "optimizer", "loss", "dtype", "runtime")


def sweep(
    graph: Graph,
    *,
    batch: Any = None,
    spatial: Any = None,
    axes: Sequence[tuple[Sequence[str], Any]] = (),
    invalid: str = "raise",
    memory: int | str | None = None,
    executor: Executor | None = None,
    **settings_and_sizes: Any,
) -> Sweep:
    """The peak of every combination of the values given.

    ``batch`` is the first dim of the first input, ``spatial`` all the graph's other symbols at once (cubes), ``sizes`` are the graph's
    symbols by name, ``axes`` pairs of symbols that vary together and their values; each is a number or a sequence of them. The settings
    are those of :func:`memest.estimate`; ``mode``, ``optimizer``, ``loss``, ``dtype`` and ``runtime`` may be sequences of names. The last
    axis varies fastest; axes come in the order batch, spatial, axes, sizes, names.

    ``invalid`` says what becomes of sizes the network cannot run at: ``raise`` (UsageError that names the first) or ``skip``. ``memory``
    is what the sweep itself may take, in bytes or as text such as ``8GiB``; what is available when left out. It takes 16 bytes a point
    (24 where some are skipped), and up to 80 more while no more than 4 million of them are computed. An ``executor`` of
    concurrent.futures, or Dask's (``Client.get_executor()``), computes the parts; a part that is lost with its worker is done again, and
    the result is that of one process.
    Raises UsageError for an empty axis, an unknown or missing size, and, before anything is computed, where memory is not enough:
    :func:`sweeps` goes through any number of points.
    """
    return product_of(graph, batch=batch, spatial=spatial, axes=axes, invalid=invalid, **settings_and_sizes).whole(
        memory, checked(executor)
    )


def sweeps(graph: Graph, *, at_once: int = AT_ONCE, executor: Executor | None = None, **what: Any) -> Sweeps:
    """The same as :func:`sweep` (``what`` are its keywords) in parts of at most ``at_once`` points, for products that do not fit in
    memory: ``for part in memest.sweeps(…)``, or ``memest.sweeps(…).write("peaks.parquet")``."""
    at_once = asked.size(at_once, "at_once")
    return product_of(graph, **what).parts(at_once, checked(executor))


def product_of(
    graph: Graph,
    *,
    batch: Any = None,
    spatial: Any = None,
    axes: Sequence[tuple[Sequence[str], Any]] = (),
    invalid: str = "raise",
    **settings_and_sizes: Any,
) -> Product:
    """The configurations of a sweep, checked; see :func:`sweep`."""
    graph = as_graph(graph, "sweep")
    if not isinstance(invalid, str) or invalid not in ("raise", "skip"):
        raise UsageError(f"invalid={kind_of(invalid)}: use 'raise' or 'skip'")
    settings, sizes = apart(settings_and_sizes)
    several = {name: _several(name, settings.pop(name)) for name in SETTINGS if isinstance(settings.get(name), SEVERAL)}
    questions = tuple(question(graph, {**settings, **dict(zip(several, c, strict=True))}, "sweep") for c in product(*several.values()))
    return Product(
        graph=graph,
        symbols=tuple(_size_axes(graph, batch, spatial, axes, sizes)),
        questions=questions,
        jobs=tuple(_job(graph, q) for q in questions),
        shown=tuple(several),
        skip=invalid == "skip",
        torch=torch_behind(questions[0].job(graph).recipe.target, graph.torch),
    )


def _job(graph: Graph, asking: Question) -> Job:
    if asking.process is not None:
        raise UsageError("a sweep counts a step's tensors, not the process; leave malloc out, or ask estimate or fit, which count it")
    job = asking.job(graph)
    if job.depends_on_shape:
        raise UsageError(f"levers {', '.join(asking.levers)}: chosen for one input shape at a time; estimate each, or name the segments")
    return job


def _size_axes(
    graph: Graph, batch: Any, spatial: Any, axes: Sequence[tuple[Sequence[str], Any]], sizes: Mapping[str, Any]
) -> list[tuple[tuple[str, ...], Column]]:
    """(the symbols that vary together, their values), in the order of the result's columns."""
    known, first = symbols_in_order(graph), batch_symbol(graph)
    given: dict[tuple[str, ...], Any] = {}
    if batch is not None:
        if first is None:
            raise UsageError("the graph's batch is a number, so it cannot vary; describe it as a symbol, such as N")
        given[(first,)] = batch
    if not isinstance(axes, list | tuple) or not all(
        isinstance(a, list | tuple) and len(a) == 2 and isinstance(a[0], list | tuple) for a in axes
    ):
        raise UsageError(f"axes are pairs of names and values, such as [(('H', 'W'), [64, 128])], got {kind_of(axes)}")
    if spatial is not None:
        given[tuple(s for s in known if s != first and s not in sizes)] = spatial
    given.update({tuple(tied): values for tied, values in axes})
    given.update({(name,): values for name, values in sizes.items()})
    named = {s for tied in given for s in tied}
    for name in named:
        if name not in known:
            raise UsageError(f"the graph has no size {name!r}{did_you_mean(name, (*known, *KEYWORDS))}; it has {', '.join(known)}")
    if sum(map(len, given)) > len(named):
        raise UsageError("a size is given on two axes; name each once")
    given.update({(s,): n for s, n in pinned_sizes(graph).items() if s not in named})
    missing = [s for s in known if s not in {s for tied in given for s in tied}]
    if missing:
        raise UsageError(f"no values are given for {', '.join('batch' if s == first else s for s in missing)}")
    if not known:
        raise UsageError("every size of the graph is a number, so there is nothing to sweep; use estimate")
    return [(tied, _values("batch" if tied == (first,) else ", ".join(tied), values)) for tied, values in given.items() if tied]


def _values(name: str, values: Any) -> Column:
    """A range, a sequence or a number as an int64 column; UsageError names the axis."""
    if isinstance(values, str | bytes | Mapping) or not (asked.whole(values) is not None or isinstance(values, Iterable)):
        raise UsageError(f"{name}: give a number, a range or a list of numbers, got {kind_of(values)}")
    found = values if isinstance(values, Iterable) else [values]
    if isinstance(found, range) and found and max(found[0], found[-1]) >= 2**31:
        raise UsageError(f"{name}: sizes are whole numbers from 1 to {2**31 - 1:,}")
    if isinstance(found, range) and len(found) > MOST_VALUES:
        raise UsageError(
            f"{name}: {len(found):,} values are more than a sweep holds ({MOST_VALUES:,}); give a step, such as range(a, b, 32)"
        )
    if isinstance(found, range):
        column = np.arange(found.start, found.stop, found.step)
    else:
        column = np.asarray(found if isinstance(found, np.ndarray) else list(found))
    if column.ndim != 1 or column.size == 0:
        raise UsageError(f"{name}: no values are given")
    if column.dtype.kind not in "iu" or (column < 1).any() or (column >= 2**31).any():
        raise UsageError(f"{name}: sizes are whole numbers from 1 to {2**31 - 1:,}")
    return column.astype(np.int64)


def _several(name: str, values: Any) -> tuple[Any, ...]:
    """The names that a setting takes one after the other."""
    found = tuple(values)
    if not found or any(value is None for value in found):
        raise UsageError(f"{name}: give a name, or a list of names")
    return found
