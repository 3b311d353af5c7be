"""A global batch trained by synchronous data parallel on nodes of one kind: the fewest nodes, ranks and threads that hold it.

>>> plan = plan_cluster(graph, global_batch=16, input_shape=(1, 240, 240, 144), on="server-1.5tb", optimizer="adam")
>>> plan.best.nodes, plan.best.ranks, plan.best.batch, plan.best.node.high

A rank is one process: its step as it is played for it, what exchanging gradients takes besides, its data loader. A node holds its ranks,
and once the pages of the libraries that they map alike. Ranks may share a volume (``split``): each computes a part of it with all around it
that the network sees, or with a ``halo``, and so some of it twice. What holds is what holds at the upper end of its range; nothing is
rounded down.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from memest.errors import MemestError, UnsupportedError, UsageError, kind_of
from memest.estimate.estimate import Estimate, answer
from memest.estimate.feeding import gradient_bytes
from memest.estimate.question import Question, Settings, question
from memest.levers.parallel import DDP, FSDP, ZERO
from memest.machines.claims import FigureName
from memest.machines.cpu import Cpu
from memest.machines.entry import Hardware
from memest.machines.target import TORCH_CPU
from memest.machines.verdicts import Verdict, places, verdict
from memest.memory.figure import Figure, Range, modelled, plus, range_of
from memest.memory.loading import NOTHING, library_bytes
from memest.network.graph import Graph, as_graph
from memest.planning.cutting import Share, checked_halo, shared
from memest.planning.exchanges import Exchange, exchange_named
from memest.shown import Shown, counted, short
from memest.sizes import asked
from memest.sizes.units import format_bytes

if TYPE_CHECKING:
    from typing_extensions import Unpack

ON_SERVERS = (TORCH_CPU, "tensorflow-cpu")
RANKS = {"ddp": DDP, "fsdp": FSDP, "zero": ZERO}
SPLITS = (2, 4, 8, 16)
MOST_NODES = 4096
FEW = 12  # layouts that are all played
Layout = tuple[int, int, int]  # nodes, ranks a node, batch a rank


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterWay:
    """``nodes`` with ``ranks`` each, of ``threads`` and a ``batch`` of their own. ``estimate`` is the step of one rank; ``rank`` the figure
    of it that is held against the machine with what the ``exchange`` takes, ``loaders`` what feeding it adds, ``node`` all of a node."""

    nodes: int
    ranks: int
    threads: int
    batch: int
    estimate: Estimate
    exchange: Figure
    rank: Figure
    loaders: Figure | None
    node: Figure
    verdict: Verdict

    @property
    def world(self) -> int:
        """Ranks in all."""
        return self.nodes * self.ranks

    @property
    def holds(self) -> bool:
        """Whether a node holds it at the upper end of its range, in slower memory too."""
        return self.verdict.high_bytes <= self.verdict.hardware.usable_bytes

    @property
    def spills(self) -> int:
        """Bytes of a node beyond its first tier, at the upper end of the range."""
        return max(0, self.verdict.high_bytes - self.verdict.hardware.tiers[0].usable_bytes)

    @property
    def cells(self) -> tuple[int, int, int]:
        """Nodes, ranks a node, threads a rank."""
        return (self.nodes, self.ranks, self.threads)


@dataclass(frozen=True, kw_only=True)
class ClusterPlan(Shown):
    """The ``ways`` tried, the fewest nodes first. ``best`` is the first that holds (None: none does), ``fast`` the first that does in
    the first tier alone; ``notes`` say what else would help."""

    graph: str
    global_batch: int
    split: int
    exchange: Exchange
    place: Hardware
    ways: tuple[ClusterWay, ...]
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        found = self.best
        held = "nothing holds it" if found is None else f"{counted(found.nodes, 'node')} of {counted(found.ranks, 'rank')}"
        return f"<ClusterPlan of {short(self.graph)}, batch {self.global_batch} on {self.place.name}: {held}>"

    @property
    def best(self) -> ClusterWay | None:
        """The fewest nodes, then ranks, then threads."""
        return min((way for way in self.ways if way.holds), key=lambda way: way.cells, default=None)

    @property
    def fast(self) -> ClusterWay | None:
        """The fewest of those that stay in the first tier."""
        return min((way for way in self.ways if way.holds and not way.spills), key=lambda way: way.cells, default=None)


def plan_cluster(
    graph: Graph,
    *,
    global_batch: int,
    input_shape: Sequence[int],
    on: str | Hardware,
    nodes: int | None = None,
    ranks_per_node: int | None = None,
    ranks_per_socket: int | None = None,
    sockets: int | None = None,
    cores: int | None = None,
    exchange: str = "ddp",
    split: int = 1,
    halo: int | Sequence[int] | None = None,
    **settings: Unpack[Settings],
) -> ClusterPlan:
    """The fewest ``nodes`` (at most so many where they are given), ranks and threads that train ``global_batch`` volumes of
    ``input_shape`` (one volume, without a batch) at once on machines like ``on``.

    ``ranks_per_node`` or ``ranks_per_socket`` says how many ranks share a node (left out: one, and one a socket); ``sockets`` and
    ``cores`` of a node are those of the catalogue where it knows them; threads of a rank are those of a ``machine`` that is given
    without ``cores``, else the cores over the ranks. ``exchange`` is ``ddp`` or ``horovod`` with options
    (:mod:`memest.planning.exchanges`); ``split`` ranks share one volume, of which each reads its part and the ``halo`` around it (a number,
    or one a dim; left out: all that the network sees).

    UsageError for what contradicts itself; what ``estimate`` raises of a rank's step."""
    graph = as_graph(graph, "plan_cluster")
    given: dict[str, Any] = dict(settings)
    place = on if isinstance(on, Hardware) else places([on])[0]
    if not isinstance(exchange, str):
        raise UsageError(f"exchange: give text such as 'ddp' or 'horovod:backend=mpi', got {kind_of(exchange)}")
    how = exchange_named(exchange)
    asking = _asking(graph, given, place, how)
    if asking.runtime == TORCH_CPU and asking.malloc is None:
        given["malloc"] = "glibc"
    cluster = _Cluster(
        batch=asked.size(global_batch, "global_batch"),
        split=asked.size(split, "split"),
        halo=checked_halo(halo),
        most=None if nodes is None else asked.size(nodes, "nodes"),
        sockets=_count(sockets, place.sockets, "sockets"),
        cores=_count(cores, place.cores, "cores"),
        place=place,
    )
    layouts = cluster.layouts(cluster.ranks(ranks_per_node, ranks_per_socket))
    volume, threads = asked.shape(input_shape, "input_shape"), _threads(given) if cores is None else None
    planning = _Planning(graph, given, volume, cluster, how, threads=threads)
    ways = tuple(planning.ways(layouts))
    return ClusterPlan(
        graph=graph.name,
        global_batch=cluster.batch,
        split=cluster.split,
        exchange=planning.exchange,
        place=place,
        ways=ways,
        notes=tuple(planning.notes(ways)),
    )


def _asking(graph: Graph, given: dict[str, Any], place: Hardware, how: Exchange) -> Question:
    asking = question(graph, given, "plan_cluster")
    if not asking.training:
        raise UsageError("plan_cluster plans training: leave mode out, or ask plan_volume about inference over workers")
    if asking.runtime not in ON_SERVERS:
        raise UsageError(
            f"plan_cluster plans {' and '.join(ON_SERVERS)}, and runtime is {asking.runtime}; on cards ask estimate with lever ddp:world=N"
        )
    if asking.runtime != TORCH_CPU and how.name == "ddp":
        raise UsageError(f"exchange ddp is torch's, and runtime is {asking.runtime}; give horovod as the exchange")
    if place.kind == "accelerator":
        raise UsageError(f"plan_cluster plans servers, and {place.name} is an accelerator; name a server, or give a budget a node")
    own = next((text for text in asking.levers if text.partition(":")[0].strip() in RANKS), None)
    if own is not None:
        raise UsageError(f"lever {own!r}: plan_cluster makes the ranks itself; leave it out, and say exchange instead")
    return asking


def _count(given: int | None, known: int | None, what: str) -> int | None:
    found = known if given is None else asked.size(given, what)
    if given is not None and known is not None and given > known:
        raise UsageError(f"{what} {given} are more than the machine's {known}; name other hardware, or leave {what} out")
    return found


def _threads(given: dict[str, Any]) -> int | None:
    machine = given.get("machine")
    return machine.threads if isinstance(machine, Cpu) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cluster:
    """What is given of a cluster, and which numbers of ranks that allows."""

    batch: int
    split: int
    halo: tuple[int, ...] | None
    most: int | None
    sockets: int | None
    cores: int | None
    place: Hardware

    def ranks(self, per_node: int | None, per_socket: int | None) -> tuple[int, ...]:
        """Numbers of ranks a node to try. UsageError for what contradicts itself."""
        node = None if per_node is None else asked.size(per_node, "ranks_per_node")
        socket = None if per_socket is None else asked.size(per_socket, "ranks_per_socket")
        if socket is not None and self.sockets is None:
            raise UsageError(f"ranks_per_socket {socket}: nothing says how many sockets {self.place.name} has; give sockets, too")
        whole = None if socket is None or self.sockets is None else socket * self.sockets
        if node is not None and whole is not None and node != whole:
            raise UsageError(
                f"ranks_per_node {node} contradicts ranks_per_socket {socket} on {counted(self.sockets or 0, 'socket')}, "
                f"which makes {whole}; give one of them"
            )
        found = (node or whole,) if node or whole else tuple(dict.fromkeys((1, self.sockets or 2)))
        if self.cores is not None and (crowded := next((r for r in found if r and r > self.cores), None)):
            raise UsageError(f"{crowded} ranks a node are more than its {counted(self.cores, 'core')}")
        return tuple(r for r in found if r)

    def layouts(self, ranks: Sequence[int]) -> list[Layout]:
        """Nodes, ranks and batch of a rank, the fewest first: those that divide the batch evenly. UsageError where there are none."""
        found = [(n, r, self.batch * self.split // (n * r)) for n in range(1, self.nodes + 1) for r in sorted(ranks) if self.divides(n * r)]
        if not found:
            raise UsageError(self.indivisible(ranks))
        return found

    @property
    def nodes(self) -> int:
        """The most nodes that are tried."""
        return min(self.batch * self.split, MOST_NODES, self.most or MOST_NODES)

    def divides(self, world: int) -> bool:
        """Whether so many ranks share the batch evenly, ``split`` of them a volume."""
        return world % self.split == 0 and self.batch % (world // self.split) == 0

    def indivisible(self, ranks: Sequence[int]) -> str:
        """Why no number of nodes will do."""
        nodes = "1 node" if self.nodes == 1 else f"up to {self.nodes} nodes"
        shared = f", {self.split} of which share a volume" if self.split > 1 else ""
        each = " or ".join(map(str, sorted(ranks)))
        fit = islice((n * self.split for n in range(1, min(self.batch, MOST_NODES) + 1) if self.batch % n == 0), 12)
        return (
            f"global batch {self.batch} is not divisible over {nodes} of {each} ranks{shared}: "
            f"ranks in all can be {', '.join(map(str, fit))}"
        )


def _holds(way: ClusterWay) -> bool:
    return way.holds


def _stays(way: ClusterWay) -> bool:
    return way.holds and not way.spills


class _Planning:
    """Ranks' steps, each played once for a batch and a number of ranks."""

    def __init__(
        self, graph: Graph, settings: dict[str, Any], volume: tuple[int, ...], cluster: _Cluster, exchange: Exchange, threads: int | None
    ) -> None:
        self._graph, self._settings, self._volume, self._cluster = graph, settings, volume, cluster
        self.exchange, self._threads = exchange, threads
        self._cpu = settings.get("machine") or Cpu.detect()
        self._share: Share
        self._part = volume if cluster.split == 1 else self._parts(cluster.split)
        self._ways: dict[Layout, ClusterWay] = {}

    def ways(self, layouts: Sequence[Layout]) -> Iterator[ClusterWay]:
        """Layouts until the first number of nodes that holds the batch in the first tier; where none does, all. Of more than ``FEW`` only
        those that a search by halves asks about."""
        enough: int | None = None
        for layout in layouts if len(layouts) <= FEW else self._halved(layouts):
            if enough is not None and layout[0] > enough:
                return
            found = self.way(layout)
            yield found
            if _stays(found):
                enough = layout[0]

    def _halved(self, layouts: Sequence[Layout]) -> list[Layout]:
        """The layouts on the way to the first that holds, and to the first that does in the first tier: for one number of ranks a node
        takes the less, the more nodes there are. Outside that order, and so played apart, are a rank that is alone, which exchanges
        nothing, and a batch of one, for which kernels have ways of their own."""
        apart = [(nodes, ranks, batch) for nodes, ranks, batch in layouts if nodes * ranks == 1 or batch == 1]
        for layout in apart:
            self.way(layout)
        for ranks in sorted({layout[1] for layout in layouts}):
            own = [layout for layout in layouts if layout[1] == ranks and layout not in apart]
            for enough in (_holds, _stays):
                if own and enough(self.way(own[-1])):
                    bisect_left(own, True, key=lambda layout, enough=enough: enough(self.way(layout)))  # type: ignore[misc]
        return sorted(self._ways)

    def way(self, layout: Layout) -> ClusterWay:
        """One layout, played once."""
        if layout not in self._ways:
            self._ways[layout] = self._way(*layout)
        return self._ways[layout]

    def _way(self, nodes: int, ranks: int, batch: int) -> ClusterWay:
        cores = self._cluster.cores
        threads = self._threads or (self._cpu.threads if cores is None else max(1, cores // ranks))
        estimate = self._rank(batch, self._part, nodes * ranks, threads)
        gradients = gradient_bytes(estimate.played, estimate.sizes)
        exchange = self.exchange.buffers(gradients, nodes * ranks, ranks, in_place=estimate.runtime == TORCH_CPU)
        name, rank = _with_unregistered(estimate)
        rank = plus(rank, exchange, f"{name} of one rank, and its exchange")
        loaders = None if estimate.loaders is None else estimate.loaders.workers
        node = _node(rank, loaders, ranks, shares=name == "process" and estimate.runtime == TORCH_CPU)
        on_node: FigureName = "node" if loaders is not None and loaders.bytes else name
        assert node.bytes is not None
        held = verdict(self._cluster.place, node.bytes, estimate.source, low_bytes=node.low, high_bytes=node.high, figure=on_node)
        return ClusterWay(
            nodes=nodes,
            ranks=ranks,
            threads=threads,
            batch=batch,
            estimate=estimate,
            exchange=exchange,
            rank=rank,
            loaders=loaders,
            node=node,
            verdict=held,
        )

    def notes(self, ways: Sequence[ClusterWay]) -> Iterator[str]:
        """What comes of a split, and what would hold where nothing does."""
        if self._cluster.split > 1:
            text = "x".join(map(str, self._part[1:]))
            yield f"{self._cluster.split} ranks share a volume: each computes {text} of it, halos included, which are computed by several"
            yield "halos are read from the volume: ranks send one another nothing but gradients"
            if not self._share.sees_all:
                halo, field = ("unknown" if h is None else "x".join(map(str, h)) for h in (self._share.halo, self._share.field))
                yield f"the halo, {halo}, is less than what the network sees, {field}: near the edges of parts results are others"
        if self._threads is None and self._cluster.cores is None:
            threads = counted(self._cpu.threads, "thread")
            yield f"each rank has {threads}, as the machine at hand: say a node's cores or a rank's threads (--cores, --threads)"
        if any(way.holds for way in ways):
            return
        least = min(ways, key=lambda way: way.node.high or 0)
        yield (
            f"nothing holds it: {counted(least.nodes, 'node')} of {counted(least.ranks, 'rank')} with a batch of {least.batch} each take "
            f"{format_bytes(least.node.high or 0)} a node"
        )
        if self._cluster.nodes == MOST_NODES:
            yield f"no more than {MOST_NODES:,} nodes are tried"
        if self._cluster.split == 1:
            yield from self._splits()

    def _splits(self) -> Iterator[str]:
        room = self._cluster.place.usable_bytes
        for split in SPLITS:
            try:
                part = self._parts(split)
                found = self._rank(1, part, max(2, split), self._threads or self._cpu.threads)
            except MemestError as e:
                yield f"split {split}: {e}"
                return
            _, figure = _with_unregistered(found)
            if figure.high is not None and figure.high <= room:
                yield f"split {split} would: a rank's part of one volume, {'x'.join(map(str, part[1:]))}, takes {format_bytes(figure.high)}"
                return

    def _rank(self, batch: int, volume: tuple[int, ...], world: int, threads: int) -> Estimate:
        levers = (*asked_levers(self._settings), *self.exchange.lever(world))
        given = {**self._settings, "levers": levers, "machine": self._cpu.with_(threads=threads)}
        return answer(self._graph, question(self._graph, given, "plan_cluster"), (batch, *volume))

    def _parts(self, split: int) -> tuple[int, ...]:
        """The largest part of the volume, with what is read around it."""
        whole = self._rank(1, self._volume, 1, self._cpu.threads)
        try:
            self._share = shared(whole, split, self._cluster.halo)
        except UnsupportedError as e:
            better = "give a halo, or leave split out and give each rank a volume or more"
            raise UnsupportedError(f"ranks cannot share a volume: {str(e).removesuffix('; give a halo')}; {better}") from None
        extents = self._share.extents
        return (*self._volume[: len(self._volume) - len(extents)], *extents)


def asked_levers(settings: dict[str, Any]) -> tuple[str, ...]:
    """The levers given, as texts."""
    found = settings.get("levers") or ()
    return (found,) if isinstance(found, str) else tuple(found)


def _with_unregistered(estimate: Estimate) -> tuple[FigureName, Figure]:
    """The outermost figure of a rank's process alone, with what modules keep unregistered."""
    name, found = estimate.figures.outermost
    if estimate.loaders is not None and name == "process":
        found = estimate.loaders.parent
    more = estimate.unregistered_bytes
    return name, plus(found, modelled(more, more, more, ""), found.reason) if more else found


def _node(rank: Figure, loaders: Figure | None, ranks: int, *, shares: bool) -> Figure:
    """All ranks of a node; what they map alike counts once."""
    once = library_bytes() if shares else NOTHING
    whole = range_of(rank if loaders is None else plus(rank, loaders, rank.reason))
    taken = (once.high, once.bytes, once.low)  # the more is shared, the less a node holds
    reason = f"{counted(ranks, 'rank')}" + (", libraries' pages once" if shares and ranks > 1 else "")
    return Range(*(n * ranks - (ranks - 1) * less for n, less in zip(whole, taken, strict=True))).figure(reason)
