"""DistributedDataParallel, with or without ZeroRedundancyOptimizer: what a rank adds to its own step.

Sources: torch/nn/parallel/distributed.py, torch/csrc/distributed/c10d/reducer.cpp (one flat tensor a bucket, for good; a gradient is
multiplied into its place there as soon as it is accumulated; as a bucket view the gradient then gives way to the view, else the
averaged bucket is copied back), torch/distributed/optim/zero_redundancy_optimizer.py (whole parameters, largest first, each to the rank
that has least so far). Buckets are there from the start: one of all gradients at first, which gives way to those of the size asked for, in
the order in which gradients came, when the second step begins (``_compute_bucket_assignment_by_size``, ``rebuild_buckets``; where unused
parameters are looked for, buckets of that size from the start). On a CPU their order and number do not change the bytes of a step.
"""

from __future__ import annotations

from collections.abc import Sequence

from memest.errors import UnsupportedError
from memest.memory.stream import Storage
from memest.network.tensor import Spec, nbytes, numel
from memest.runtimes.torch.autograd import AccumulateGrad
from memest.runtimes.torch.ledger import Value
from memest.runtimes.torch.step.parallel.alone import Alone
from memest.runtimes.torch.step.parallel.collectives import broadcast_coalesced, buckets, number_op
from memest.runtimes.torch.step.plan import Replicate
from memest.runtimes.torch.step.run import Run

FIRST_BUCKET_BYTES = 1024**2  # kDefaultFirstBucketBytes
EVERYTHING = 1 << 62
BUCKETS, BUCKET = "gradient", "bucket"  # category of the residents that are buckets, and what their names begin with


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
        self._arrived: list[Spec] = []
        self._rebuilt = run.recipe.target.on_cuda and run.recipe.step != 1 and plan_rebuilds(self.plan)

    def hold_residents(self) -> None:
        """The reducer's buckets, unless they wait for gradients to come in order."""
        run, plan = self.run, self.plan
        limits = (FIRST_BUCKET_BYTES, plan.bucket_bytes)
        specs = [leaf.value.spec for leaf in run.leaves]
        if not run.recipe.target.on_cuda:
            self._hold_buckets(specs[::-1], limits)
        elif not self._rebuilt:
            self._hold_buckets(specs, (EVERYTHING,) if plan_rebuilds(plan) else limits, backwards=True)
        if plan.find_unused_parameters or plan.static_graph:
            for _ in range(2):  # local_used_map_ and local_used_map_dev_
                self.ledger.resident(nbytes((len(specs),), "int32"), "gradient", "used parameters")

    def _hold_buckets(self, specs: Sequence[Spec], limits: Sequence[int], *, backwards: bool = False) -> None:
        made = buckets(specs, limits)
        for number, bucket in enumerate(reversed(made) if backwards else made):
            self.ledger.resident(sum(nbytes(specs[i].shape, specs[i].dtype) for i in bucket), BUCKETS, f"{BUCKET} {number}")

    def before_forward(self) -> None:
        """Buffers are sent round."""
        if self.plan.broadcast_buffers:
            self.ledger.layer, self.ledger.op = "", "broadcast"
            broadcast_coalesced(self.ledger, [Spec(p.shape, (), p.dtype) for p in self.run.graph.parameters if p.buffer])

    def after_forward(self) -> None:
        """Looking for unused parameters copies the outputs (_DDPSink)."""
        run, ledger = self.run, self.ledger
        if not self.plan.find_unused_parameters or self.plan.static_graph:
            return
        ledger.layer, ledger.op = "", "clone"
        names = [name for name in dict.fromkeys(run.graph.outputs) if run.env[name].requires_grad]
        copies = run.machine.pass_through([run.env[name] for name in names], lambda: None)
        for name, copy in zip(names, copies, strict=True):
            base, copy.base = copy.base, None
            assert base is not None
            copy.storage = ledger.allocate(nbytes(copy.shape, copy.spec.dtype), reason=f"copy of {name}")
            output, run.env[name] = run.env[name], ledger.hold(copy)
            ledger.let_go(base)
            ledger.let_go(output)

    def _reduce(self, leaf: AccumulateGrad) -> None:
        """A gradient is there: it goes into its bucket, and gives way to a view of it when it is to be one. The number it is multiplied by
        on the way is wrapped in a tensor of the CPU."""
        self.ledger.op = "all_reduce"
        if self._rebuilt:
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
            self._hold_buckets(self._arrived, (FIRST_BUCKET_BYTES, self.plan.bucket_bytes))
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


def partition(parameters: Sequence[tuple[str, int]], world: int) -> list[list[str]]:
    """``_partition_parameters``: the largest first, each to the first rank that holds least."""
    ranks: list[list[str]] = [[] for _ in range(world)]
    sizes = [0] * world
    for name, size in sorted(parameters, key=lambda p: p[1], reverse=True):
        rank = sizes.index(min(sizes))
        ranks[rank].append(name)
        sizes[rank] += size
    return ranks
