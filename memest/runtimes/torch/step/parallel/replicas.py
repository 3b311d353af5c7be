"""DistributedDataParallel, with or without ZeroRedundancyOptimizer: what a rank adds to its own step.

Sources: torch/nn/parallel/distributed.py, torch/csrc/distributed/c10d/reducer.cpp (one flat tensor a bucket, for good; a gradient is
multiplied into its place there as soon as it is accumulated; as a bucket view the gradient then gives way to the view, else the
averaged bucket is copied back), torch/distributed/optim/zero_redundancy_optimizer.py (whole parameters, largest first, each to the rank
that has least so far). Buckets are there from the start: one of all gradients at first, which gives way to those of the size asked for, in
the order in which gradients came, when the second step begins, or the third of a static graph (``_compute_bucket_assignment_by_size``,
``rebuild_buckets``; where unused parameters are looked for, buckets of that size from the start). On a CPU their order and number do not
change the bytes of a step. The first step of a static graph waits for all gradients before any goes into its bucket
(``delay_all_reduce``), and passes the outputs on as copies (``_DDPSink``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from memest.errors import UnsupportedError
from memest.memory.stream import Move, Storage
from memest.network.tensor import Spec, nbytes, numel
from memest.runtimes.torch.autograd import AccumulateGrad
from memest.runtimes.torch.ledger import Ledger, Value
from memest.runtimes.torch.step.parallel.alone import Alone
from memest.runtimes.torch.step.parallel.collectives import broadcast_coalesced, buckets, number_op
from memest.runtimes.torch.step.parallel.making import in_script_order
from memest.runtimes.torch.step.plan import Replicate
from memest.runtimes.torch.step.run import Run

FIRST_BUCKET_BYTES, BUCKET_BYTES = 1024**2, 25 * 1024**2  # kDefaultFirstBucketBytes, kDefaultBucketBytesCap
EVERYTHING = 1 << 62
INT32, INT64 = 4, 8
BUCKETS, BUCKET = "gradient", "bucket"  # category of the residents that are buckets, and what their names begin with

OPEN_ORDER = "buckets of several dtypes, whose order torch leaves open"


def plan_rebuilds(plan: Replicate) -> bool:
    """``should_rebuild_buckets``."""
    return plan.static_graph or not plan.find_unused_parameters


def is_bucket(storage: Storage) -> bool:
    """Whether a resident storage is one of the reducer's buckets."""
    return storage.category == BUCKETS and storage.layer.startswith(f"{BUCKET} ")


class Replicas(Alone):
    """One of several equal processes."""

    def __init__(self, plan: Replicate) -> None:
        self.plan = plan

    def begin(self, run: Run) -> None:
        """Gradients are reduced as they come."""
        super().begin(run)
        run.machine.on_gradient = self._reduce
        run.machine.gradients_are_views = self.plan.gradient_as_bucket_view
        self._arrived: list[Spec] = []
        self._on_cuda, self._first = run.recipe.target.on_cuda, run.recipe.step == 1
        self._rebuilds = self._on_cuda and plan_rebuilds(self.plan)
        self._pass, self._rebuilt_in = 0, 3 if self.plan.static_graph else 2
        self._rebuilt = self._rebuilds and not self._first
        self._delayed = self._first and self.plan.static_graph
        if self._rebuilds:
            self.alike_from = self._rebuilt_in + self._first

    def hold_residents(self) -> None:
        """The reducer's buckets, unless they wait for gradients to come in order."""
        run, plan = self.run, self.plan
        specs = [leaf.value.spec for leaf in run.leaves]
        if not self._on_cuda:
            self._hold_buckets(specs[::-1], self._limits())
        elif not self._rebuilt:
            self._hold_buckets(specs, (EVERYTHING,) if plan_rebuilds(plan) else self._limits(), backwards=True)
        if plan.find_unused_parameters or plan.static_graph:
            for _ in range(1 if self._on_cuda else 2):  # local_used_map_dev_, and local_used_map_ in the host's memory
                self.ledger.resident(nbytes((len(specs),), "int32"), "gradient", "used parameters")

    def _limits(self) -> tuple[int, ...]:
        """Bytes at which a bucket is full; the first one is smaller unless a size is asked for (``_BucketCapacityConfig``)."""
        asked = self.plan.bucket_bytes
        return (FIRST_BUCKET_BYTES, BUCKET_BYTES) if asked is None else (asked,)

    def _hold_buckets(self, specs: Sequence[Spec], limits: Sequence[int], *, backwards: bool = False) -> None:
        made = buckets(specs, limits)
        open_order = self._on_cuda and len(made) > 1 and len({s.dtype for s in specs}) > 1
        for number, bucket in enumerate(reversed(made) if backwards else made):
            size = sum(nbytes(specs[i].shape, specs[i].dtype) for i in bucket)
            held = self.ledger.resident(size, BUCKETS, f"{BUCKET} {number}")
            if open_order:
                held.spread, held.reason = (size, size), OPEN_ORDER

    def before_forward(self) -> None:
        """Buckets may be rebuilt, in the order in which the pass before brought gradients; buffers are sent round."""
        self._pass += 1
        if self._rebuilds and self._first and self._pass == self._rebuilt_in:
            self._rebuild()
        if self.plan.broadcast_buffers:
            self.ledger.layer, self.ledger.op = "", "broadcast"
            broadcast_coalesced(self.ledger, [Spec(p.shape, (), p.dtype) for p in self.run.graph.parameters if p.buffer])

    def after_forward(self) -> None:
        """Looking for unused parameters copies the outputs (_DDPSink)."""
        run, ledger = self.run, self.ledger
        if not (self._delayed or (self.plan.find_unused_parameters and not self.plan.static_graph)):
            return
        ledger.layer, ledger.op = "", "clone"
        names = [name for name in dict.fromkeys(run.graph.outputs) if run.env[name].requires_grad]
        copies = run.machine.pass_through([run.env[name] for name in names], lambda: None)
        bases = [copy.base for copy in copies]
        for name, copy in zip(names, copies, strict=True):
            copy.base, copy.storage = None, ledger.allocate(nbytes(copy.shape, copy.spec.dtype), reason=f"copy of {name}")
        for name, copy, base in zip(names, copies, bases, strict=True):
            assert base is not None
            output, run.env[name] = run.env[name], ledger.hold(copy)
            ledger.let_go(base)
            ledger.let_go(output)

    def _reduce(self, leaf: AccumulateGrad) -> None:
        """A gradient is there: it goes into its bucket, and gives way to a view of it when it is to be one. The number it is multiplied by
        on the way is wrapped in a tensor of the CPU."""
        if self._delayed:
            return
        self.ledger.op = "all_reduce"
        if self._rebuilt or (self._first and self._pass == self._rebuilt_in - 1):
            self._arrived.append(leaf.value.spec)
        number_op(self.ledger, leaf.value.spec.dtype, self.run.recipe.target)
        if self.plan.gradient_as_bucket_view:
            gradients = self.run.machine.gradients
            own = gradients[leaf.name]
            gradients[leaf.name] = self.ledger.hold(Value(own.spec, self.ledger.allocate(0)))
            self.ledger.let_go(own)

    def after_backward(self) -> None:
        """Every parameter must have been reduced: torch refuses the next step otherwise."""
        if self._rebuilt:
            self._rebuilt = False
            self._hold_buckets(self._arrived, self._limits())
        if self._delayed:
            self._delayed = False
            for leaf in self.run.leaves:
                if leaf.name in self.run.machine.gradients:
                    self._reduce(leaf)
        if self.plan.find_unused_parameters or self.plan.static_graph:
            return
        for leaf in self.run.leaves:
            if leaf.name not in self.run.machine.gradients:
                raise UnsupportedError(f"parameter {leaf.name!r} gets no gradient, as torch would report; give find_unused_parameters=true")

    def updated(self, leaves: Sequence[AccumulateGrad]) -> list[tuple[str, Value]]:
        """All parameters, or those that ZeroRedundancyOptimizer gave to this rank, in the order it gave them."""
        found = super().updated(leaves)
        if not self.plan.shard_optimizer:
            return found
        mine = partition([(leaf.name, numel(leaf.value.shape)) for leaf in leaves], self.plan.world)[self.plan.rank]
        known = dict(found)
        return [(name, known[name]) for name in mine if name in known]

    def made(self) -> Iterable[Move]:
        """The network, its inputs and the target; then what ranks tell each other of the network and of themselves; then buckets."""
        if not self._on_cuda:
            return
        residents = self.ledger.residents
        wrapping = [s for s in residents if s.category == BUCKETS]
        yield from (Move(s, True) for s in in_script_order(self.run.graph, residents) if s not in wrapping)
        aside = self.ledger.aside()
        self._compare(aside)
        network = [Spec(p.shape, (), p.dtype) for buffers in (False, True) for p in self.run.graph.parameters if p.buffer == buffers]
        broadcast_coalesced(aside, network)
        yield from aside.moves()
        yield from (Move(s, True) for s in wrapping)

    def _compare(self, aside: Ledger) -> None:
        """``verify_params_across_processes``: how many parameters every rank has, then their sizes and strides. NCCL gathers into one flat
        tensor first."""
        own = aside.allocate(INT64)
        theirs = [aside.allocate(INT64) for _ in range(self.plan.world)]
        aside.release(aside.allocate(INT64 * self.plan.world))
        described = aside.allocate(INT64 * sum(2 * len(leaf.value.shape) for leaf in self.run.leaves))
        for storage in (described, *theirs, own):
            aside.release(storage)

    def remade(self) -> tuple[int, Iterable[Move]]:
        """The buckets, unless that was in the midst of the first step."""
        if not self._rebuilds:
            return 0, ()
        step, passes_before = divmod(self._rebuilt_in - 1, self._pass)
        if passes_before:  # in the midst of the first step
            return 0, ()
        new = [s for s in self.ledger.residents if is_bucket(s)]
        aside = self.ledger.aside()
        self._tell(aside, len(new))
        return step + 1, (*aside.moves(), *(Move(s, True) for s in new))

    def _tell(self, ledger: Ledger, buckets: int) -> None:
        """``sync_bucket_indices``: rank 0 tells which gradients came in which order, and how many of them are in each bucket."""
        order, counts = (ledger.allocate(INT32 * n) for n in (len(self.run.leaves) + 1, buckets))
        for storage in (counts, order):
            ledger.release(storage)

    def _rebuild(self) -> None:
        """``rebuild_buckets`` in the midst of a step, whose gradients stand. Where they are views they keep the old bucket until all have a
        place in the new ones."""
        ledger = self.ledger
        ledger.layer, ledger.op = "", "rebuild_buckets"
        old = [s for s in ledger.residents if is_bucket(s)]
        sizes = [sum(nbytes(self._arrived[i].shape, self._arrived[i].dtype) for i in b) for b in buckets(self._arrived, self._limits())]
        self._tell(ledger, len(sizes))
        held_by_gradients = self.plan.gradient_as_bucket_view
        for storage in () if held_by_gradients else old:
            ledger.release(storage)
        for number, size in enumerate(sizes):
            ledger.layer = f"{BUCKET} {number}"
            ledger.allocate(size, BUCKETS).refs = 1
        for storage in old if held_by_gradients else ():
            ledger.release(storage)


def partition(parameters: Sequence[tuple[str, int]], world: int) -> list[list[str]]:
    """``_partition_parameters``: the largest first, each to the first rank that holds least."""
    ranks: list[list[str]] = [[] for _ in range(world)]
    sizes = [0] * world
    for name, size in sorted(parameters, key=lambda p: p[1], reverse=True):
        rank = sizes.index(min(sizes))
        ranks[rank].append(name)
        sizes[rank] += size
    return ranks
