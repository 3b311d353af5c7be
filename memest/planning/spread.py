"""Work spread over the caller's executor: any of ``concurrent.futures``, and what submits as they do (Dask's ``Client.get_executor()``).

Results come in the order of the tasks, however they are done. A task whose worker was lost is done again here, and so is all that an
executor takes no more: the result is that of one process, or the error is.
"""

from __future__ import annotations

import pickle
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

from memest.errors import MemestError, UsageError, kind_of
from memest.machines.cpu import Cpu, at_hand
from memest.network.graph import Graph, as_graph
from memest.planning.progress import tell
from memest.sizes.remembering import kept

T = TypeVar("T")
AHEAD = 64  # tasks that are handed out before the first of them is asked for
KNOWN = 8  # things that a worker keeps unpacked, with what it found out about them
SEVERAL = (list, tuple, Mapping)  # what several graphs stand in
Task = tuple[Any, ...]


def checked(executor: Any) -> Executor | None:
    """An executor, or None; UsageError for what is none, and for one that takes nothing from the start."""
    if isinstance(executor, type):
        raise UsageError(f"executor is the class {executor.__name__}: write {executor.__name__}()")
    if _shut(executor):
        raise UsageError(f"executor, {kind_of(executor)}, is shut down: call within its 'with' block, or make another")
    if executor is None or callable(getattr(executor, "submit", None)):
        found: Executor | None = executor
        return found
    raise UsageError(f"executor is one of concurrent.futures, such as ProcessPoolExecutor(), got {kind_of(executor)}")


def _shut(executor: Any) -> bool:
    """Whether one of concurrent.futures was shut down by its owner, rather than broken by a lost worker."""
    return any(getattr(executor, name, False) is True for name in ("_shutdown", "_shutdown_thread")) and not getattr(
        executor, "_broken", False
    )


def in_order(executor: Executor, work: Callable[..., T], tasks: Iterable[Task]) -> Iterator[T]:
    """What ``work`` gives for each task, in order. Raises what it raises for the first task at which it does. The machine at hand is this
    one, whoever computes."""
    left, machine = iter(tasks), Cpu.detect()
    waiting: deque[tuple[Task, Future[T] | None]] = deque()
    try:
        while True:
            while len(waiting) < AHEAD and (task := next(left, None)) is not None:
                waiting.append((task, _submitted(executor, machine, work, task)))
            if not waiting:
                return
            task, future = waiting.popleft()
            yield _done(future, work, task)
    finally:
        for _, future in waiting:
            if future is not None:
                future.cancel()


def _submitted(executor: Executor, machine: Cpu, work: Callable[..., T], task: Task) -> Future[T] | None:
    """The task on its way; None where the executor takes no more."""
    try:
        return executor.submit(_as_if_here, machine, work, task)
    except Exception:
        return None


def _as_if_here(machine: Cpu, work: Callable[..., T], task: Task) -> T:
    with at_hand(machine):
        return work(*task)


def _done(future: Future[T] | None, work: Callable[..., T], task: Task) -> T:
    """The result. What fails elsewhere with an error that is not ours is done here: a worker was lost, or it fails here, too."""
    try:
        if future is not None:
            return future.result()
    except MemestError:
        raise
    except Exception:
        pass
    return work(*task)


def packed(thing: Any) -> bytes:
    """``thing`` as bytes that many tasks carry: short, and a worker unpacks them once."""
    return zlib.compress(pickle.dumps(thing, pickle.HIGHEST_PROTOCOL), 1)


@kept(KNOWN)
def unpacked(thing: bytes) -> Any:
    """The thing again; the same one for the same bytes, so that what was found out about it is known the next time."""
    return pickle.loads(zlib.decompress(thing))


def each(graphs: Any, one: Callable[[Graph], T], executor: Any, who: str) -> Any:
    """``one``, which has to pickle, of a graph, or of each of several: a tuple for a sequence of them, a dict for a mapping; in this
    process where there is no executor."""
    spread = checked(executor)
    if not isinstance(graphs, SEVERAL):
        return one(as_graph(graphs, who)) if spread is None else next(in_order(spread, one, [(as_graph(graphs, who),)]))
    named = graphs if isinstance(graphs, Mapping) else dict(enumerate(graphs))
    given = [as_graph(graph, who) for graph in named.values()]
    results = map(one, given) if spread is None else in_order(spread, one, [(graph,) for graph in given])
    found: list[T] = []
    for n, graph in enumerate(given):
        tell("networks", n, len(given))
        try:
            found.append(next(results))
        except MemestError as e:
            raise e.at(graph.name) from e.__cause__
    return dict(zip(named, found, strict=True)) if isinstance(graphs, Mapping) else tuple(found)
