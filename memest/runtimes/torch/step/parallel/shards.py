"""FSDP2 (``fully_shard`` on each block and on the root): what one rank gathers, keeps and scatters in a step.

Sources: torch/distributed/fsdp/_fully_shard/_fsdp_state.py (hooks before and after a block, on its outputs' nodes, and a callback when
backward has ended), _fsdp_param_group.py (unshard, reshard, prefetch of the group that ran before) and _fsdp_collectives.py (one flat
tensor an all-gather, copied out into the parameters; gradients are copied into one flat tensor and reduce-scattered);
aten/src/ATen/native/TensorShape.cpp (_pad_chunk of _chunk_cat).
All of it runs in the order of the calls. On a CPU streams mean nothing; on CUDA what is gathered and what is left of a reduce-scatter are
made on streams of their own, whose blocks the caching allocator keeps apart, gradients of uneven rows are padded by the copy itself, and
both copies tell their kernel the tensors in a buffer (cuda/TensorShape.cu).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from memest.errors import UnsupportedError
from memest.memory.stream import Move, Storage
from memest.network.graph import Parameter
from memest.network.tensor import nbytes
from memest.runtimes.torch.autograd import AccumulateGrad
from memest.runtimes.torch.ledger import Value
from memest.runtimes.torch.step.parallel.alone import Alone
from memest.runtimes.torch.step.parallel.collectives import all_gather, copy_in_numbers, copy_out_numbers, reduce_scatter
from memest.runtimes.torch.step.parallel.groups import ROOT, Group, Sharded, Stretch, check_readers, find_groups, find_runs, gathered_bytes
from memest.runtimes.torch.step.parallel.making import in_script_order
from memest.runtimes.torch.step.plan import Shard
from memest.runtimes.torch.step.run import Run

GATHERING, SCATTERING = 1, 2  # streams


class Shards(Alone):
    """One of several processes that each keep a part of every parameter."""

    def __init__(self, plan: Shard) -> None:
        self.plan = plan
        self.world, self.rank, self.modules = plan.world, plan.rank, len(plan.blocks) + 1

    def begin(self, run: Run) -> None:
        """Parameters are grouped by the blocks that are wrapped."""
        super().begin(run)
        self.on_cuda = run.recipe.target.on_cuda
        plan = self.plan
        self.runs = find_runs(run.graph, plan.blocks)
        self.groups = find_groups(run.graph.parameters, self.runs, plan.reshard_after_forward)
        check_readers(run.graph, self.groups)
        self._members: dict[str, Sharded] = {m.name: m for g in self.groups.values() for m in g.members}
        self._parts: dict[str, Storage] = {}
        self._order: list[Group] = []
        self._last_gathered: Storage | None = None
        self._scattered: list[Storage] = []
        self._inside: list[tuple[Stretch, list[tuple[str, Value, Value]]]] = []
        self._reduced: set[str] = set()

    def place(self, p: Parameter) -> Storage:
        """A rank keeps its padded part; layers see a parameter whose bytes come and go with its group."""
        if p.buffer:
            return super().place(p)
        self._parts[p.name] = self.ledger.resident(self._members[p.name].padded(self.world), "parameter", p.name)
        seen = self.ledger.allocate(0)
        seen.refs = 1
        return seen

    # forward -----------------------------------------------------------------------------------------------------------

    def hold_residents(self) -> None:
        """Every wrapped module has a device mesh of its own, which lists the ranks in the CPU's memory."""
        if self.on_cuda:
            return
        for _ in range(self.modules):
            self.ledger.resident(nbytes((self.world,), "int32"), "buffer", "device mesh")

    def before_forward(self) -> None:
        """The root's hook: its group is gathered."""
        self._before_block(self.groups[ROOT])

    def enter(self, first: int, last: int) -> None:
        """Before a block: its group is gathered, and its arguments go through a node that will tell when its backward has ended. What is
        checkpointed runs within a block (as the module's forward does between its hooks)."""
        for stretch in self.runs:
            if stretch.first <= last and first <= stretch.last and not (stretch.first <= first and last <= stretch.last):
                raise UnsupportedError(
                    f"fsdp: a checkpointed segment has block {stretch.block!r} or a part of it inside; "
                    "checkpoint whole blocks, or parts of one"
                )
            if stretch.first == first:
                group = self.groups.get(stretch.block)
                if group is not None:
                    self._before_block(group)
                self._inside.append((stretch, self._pass(stretch, group)))

    def leave(self, index: int) -> None:
        """After a block: its group is let go, and the nodes of its results will gather it again."""
        while self._inside and self._inside[-1][0].last == index:
            stretch, passed = self._inside.pop()
            self._restore(passed)
            group = self.groups.get(stretch.block)
            if group is not None:
                self._after_block(group, stretch.results)

    def after_forward(self) -> None:
        """The root's hook; the last flat tensor goes."""
        self._after_block(self.groups[ROOT], self.run.graph.outputs)
        if self._last_gathered is not None:
            self.ledger.release(self._last_gathered)
            self._last_gathered = None

    def _before_block(self, group: Group) -> None:
        if not group.members:
            return
        group.state = "forward"
        if group.whole:
            return
        self._gather(group)
        flat, group.gathered = group.gathered, None
        self._copy_out(group)
        if self._last_gathered is not None:
            self.ledger.release(self._last_gathered)
        self._last_gathered = flat

    def _after_block(self, group: Group, results: Sequence[str]) -> None:
        if group.members:
            if group.reshards:
                self._reshard(group)
            group.turns.append(len(self._order))
            self._order.append(group)
            group.state = "idle"
        for name in results:
            value = self.run.env.get(name)
            if value is not None:
                self.run.machine.hook(value, lambda: self._before_backward(group))

    def _pass(self, stretch: Stretch, group: Group | None) -> list[tuple[str, Value, Value]]:
        env, ledger = self.run.env, self.ledger
        wanted = [name for name in stretch.arguments if env[name].requires_grad and group is not None]
        views: dict[str, Value] = {}
        if wanted and group is not None:
            passed = self.run.machine.pass_through([env[name] for name in wanted], lambda: self._after_backward(group))
            views = dict(zip(wanted, passed, strict=True))
        kept = []
        for name in stretch.arguments:
            outer, inner = env[name], views.get(name, env[name])
            env[name] = ledger.hold(inner)
            ledger.hold(inner)
            kept.append((name, outer, inner))
        return kept

    def _restore(self, passed: list[tuple[str, Value, Value]]) -> None:
        env, ledger = self.run.env, self.ledger
        for name, outer, inner in passed:
            if name in env:
                env[name] = outer
                ledger.let_go(inner)
                ledger.let_go(inner)
            else:
                ledger.let_go(inner)
                ledger.let_go(outer)

    # backward ----------------------------------------------------------------------------------------------------------

    def _before_backward(self, group: Group) -> None:
        if not group.members or group.state == "before_backward":
            return
        group.state = "before_backward"
        if not group.whole:
            if group.gathered is None:
                self._gather(group)
            self._copy_out(group)
            assert group.gathered is not None
            self.ledger.release(group.gathered)
            group.gathered = None
        if group.turns and (turn := group.turns.pop()) > 0:
            ahead = self._order[turn - 1]
            if not ahead.whole and ahead.gathered is None:
                self._gather(ahead)

    def _after_backward(self, group: Group) -> None:
        group.state = "after_backward"
        gradients = self.run.machine.gradients
        graded = [m for m in group.members if m.name in gradients]
        self._reshard(group)
        for old in self._scattered:
            self.ledger.release(old)
        self._scattered.clear()
        if len({m.dtype for m in graded}) > 1:
            raise UnsupportedError(
                f"fsdp: gradients of more than one dtype in {group.name or 'the root'}; torch refuses to reduce them at once"
            )
        if graded:
            self._reduce(group, graded)

    def _reduce(self, group: Group, graded: list[Sharded]) -> None:
        """foreach_reduce: gradients of uneven rows are padded for the copy; the loop's own variable holds the last one until it returns."""
        ledger, gradients = self.ledger, self.run.machine.gradients
        ledger.layer, ledger.op = group.name, "reduce_scatter"
        size = self.world * sum(m.padded(self.world) for m in graded)
        whole = ledger.allocate(size, "gradient", "gradients on their way to all ranks")
        if self.on_cuda:
            self._told(copy_in_numbers([m.padded(self.world) for m in graded]))
        uneven = [] if self.on_cuda else [m for m in graded if m.shape[0] % self.world]
        padded = [ledger.allocate(self.world * m.padded(self.world), reason=f"gradient of {m.name}, padded") for m in uneven]
        for copy in padded:
            ledger.release(copy)
        *others, last = [gradients.pop(m.name) for m in graded]
        for gradient in reversed(others):
            ledger.let_go(gradient)
        shards = ledger.allocate(size // self.world, "gradient", "gradients of this rank's shards")
        shards.refs, shards.stream = 1, SCATTERING
        reduce_scatter(ledger, size, graded[0].dtype, self.world, self.run.recipe.target)
        ledger.let_go(last)
        self._scattered.append(whole)
        if graded[0].name in self._reduced:  # by an earlier pass, whose shards these are added to
            ledger.release(shards)
        self._reduced.update(m.name for m in graded)

    def after_backward(self) -> None:
        """Groups whose arguments wanted no gradient are reduced now, the root's first."""
        for group in self.groups.values():
            if group.state != "after_backward":
                self._after_backward(group)
            if group.gathered is not None:
                self.ledger.release(group.gathered)
                group.gathered = None
            group.turns.clear()
        self._order.clear()
        for old in self._scattered:
            self.ledger.release(old)
        self._scattered.clear()

    def updated(self, leaves: Sequence[AccumulateGrad]) -> list[tuple[str, Value]]:
        """This rank's shards of the parameters that got a gradient."""
        nothing = self.ledger.allocate(0)
        shards = [(leaf.name, self._members[leaf.name].local(self.world, self.rank)) for leaf in leaves if leaf.name in self._reduced]
        return [(name, Value(shard, nothing)) for name, shard in shards]

    def made(self) -> Iterable[Move]:
        """Whole parameters are there until their group has all its parts; inner blocks come first, the root last, as torch wants it."""
        if not self.on_cuda:
            return
        aside = self.ledger.aside()
        parts = {part.id: self._members[name] for name, part in self._parts.items()}
        whole: dict[str, Storage] = {}
        for resident in in_script_order(self.run.graph, self.ledger.residents):
            member = parts.get(resident.id)
            if member is None:
                yield Move(resident, True)
            else:
                whole[member.name] = aside.allocate(nbytes(member.shape, member.dtype), resident.category)
                yield Move(whole[member.name], True)
        for block in (*sorted(self.plan.blocks, key=len, reverse=True), ROOT):
            members = self.groups[block].members if block in self.groups else []
            yield from (Move(self._parts[m.name], True) for m in members)
            yield from (Move(whole[m.name], False) for m in members)

    # a group -----------------------------------------------------------------------------------------------------------

    def _gather(self, group: Group) -> None:
        ledger = self.ledger
        ledger.layer, ledger.op = group.name, "all_gather"
        size = gathered_bytes(group, self.world)
        group.gathered = ledger.allocate(size, reason="a group's parameters as they came from all ranks")
        group.gathered.stream = GATHERING
        all_gather(ledger, size, self.run.recipe.target)

    def _copy_out(self, group: Group) -> None:
        for m in group.members:
            self.ledger.layer = m.name
            m.whole = self.ledger.allocate(self.world * m.padded(self.world), "parameter", f"{m.name}, gathered")
        group.whole = True
        if self.on_cuda:
            self._told(copy_out_numbers([m.padded(self.world) for m in group.members], self.world, self.run.recipe.target.device))

    def _told(self, size: int) -> None:
        """Addresses and sizes that a kernel over many tensors is told."""
        self.ledger.release(self.ledger.allocate(size, reason="what a copy of many tensors is told"))

    def _reshard(self, group: Group) -> None:
        if group.whole:
            for m in group.members:
                assert m.whole is not None
                self.ledger.release(m.whole)
                m.whole = None
            group.whole = False
