"""Activation checkpointing, as ``torch.utils.checkpoint.checkpoint(function, *args, use_reentrant=False)`` does it.

In forward a segment's nodes keep promises instead of tensors; kept are the arguments and the state of the random generator. In each run
of the engine the first node of the segment that wants its tensors runs the segment's forward again (in an autocast context of its own,
where there was one): tensors go to the nodes that still wait for them, and the run ends as soon as the last tensor is there that forward
saved so far. A node's tensors die with its kernel, those made for a node that does not come to run in this run of the engine with the
node; arguments and generator state when the last node has run. A CUDA generator's state is read into the host's memory, and nothing of it
lies on the device. A call's arguments are saved as a call's tensors are: by another checkpoint around it, or by hooks of saved tensors.

Source: torch/utils/checkpoint.py (_CheckpointFrame, _checkpoint_hook, _recomputation_hook, get_device_states), torch/random.py (fork_rng),
aten/src/ATen/CPUGeneratorImpl.cpp (the size of the state), aten/src/ATen/cuda/CUDAGeneratorImpl.cpp (get_state).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from memest.errors import GraphError, UnsupportedError
from memest.memory.stream import Storage
from memest.network.graph import Segment
from memest.runtimes.torch.autograd import AccumulateGrad, EndOfRecomputation, Holder, Keeping, Node, PackedHolder
from memest.runtimes.torch.autograd.choosing import Selecting
from memest.runtimes.torch.ledger import Ledger, Value
from memest.runtimes.torch.step.packing import packed_by
from memest.runtimes.torch.step.run import Run
from memest.runtimes.torch.step.segments import Bounds, bounds_of
from memest.runtimes.torch.step.selecting import Selection

GENERATOR_STATE_BYTES = 5056  # CPUGeneratorImplState: the Mersenne twister's words and the cached normals


def generator_state(run: Run, segment: Segment) -> Storage:
    """The state of the random generator before a segment, for its recomputation (nothing where it is not preserved)."""
    size = 0 if run.recipe.target.on_cuda or not segment.call.preserve_rng_state else GENERATOR_STATE_BYTES
    return run.ledger.allocate(size, "temporary", "state of the random generator, for the recomputation")


def owned_by(run: Run, segment: Segment, names: Sequence[str]) -> dict[str, Value]:
    """The network's own tensors of these names, which a segment's function finds when it runs again."""
    gone = next((name for name in names if name not in run.env), None)
    if gone is not None:
        raise UnsupportedError(
            f"checkpointed segment {segment.name!r}, which reads {gone!r}: that is replaced by another tensor before the function runs"
            " again, which would read the other; make it an argument of the checkpoint, or write into it in place"
        )
    return {name: run.env[name] for name in names}


class Frame(Keeping):
    """One checkpointed call: made before its forward, alive until the last node of it has run. ``env`` has the values of who calls."""

    def __init__(self, run: Run, segment: Segment, env: dict[str, Value]) -> None:
        ledger = run.ledger
        self._run = run
        self._segment = segment
        self._env = env
        self._layers = run.layers
        self._bounds = bounds_of(run.graph, run.layers, segment)
        self._sizes = run.sizes
        self._keeps = segment.call.grad and run.has_gradients(segment.name)
        self._state = self._generator_state()
        self._given = self._packed_arguments()
        given = [name for name in self._bounds.owned if name in segment.call.arguments]
        self._arguments = {name: ledger.hold(env[name]) for name in (*self._bounds.arguments, *given) if name not in self._given}
        self._versions = {name: v.version.count for name, v in self._arguments.items() if name not in segment.call.captured}
        self._holders: list[Holder] = []
        self._promised: set[Storage | None] = set()
        self._selection = self._selected()
        self._waiting = 1  # the call itself
        self._made: dict[int, dict[Holder, list[Storage]]] = {}  # by the run of the engine that it was made for

    def _packed_arguments(self) -> Packed:
        """Inside another checkpoint the arguments are saved as a call's tensors are: that one promises to make them again; hooks of saved
        tensors that stand nearer pack them."""
        run, call = self._run, self._segment.call
        saved = self._keeps and (call.inside is not None or call.packing)
        values = {name: self._env[name] for name in call.arguments} if saved else {}
        with packed_by(run, call.packing):
            if values and run.machine.keeping.ends():
                run.machine.keeping.pack([v.storage for v in values.values()], [False] * len(values)).release(run.ledger)
                run.ledger.release(self._state)
                raise EndOfRecomputation(ran=True)
            return Packed(run.ledger, run.machine.keeping, values)

    def run(self) -> None:
        """The segment's forward: promises in place of saved tensors. The function holds its arguments until it returns; then the caller
        lets go of what the segment's layers drop."""
        run, ledger, caller = self._run, self._run.ledger, self._env
        machine, outer, ending = run.machine, run.machine.keeping, run.ending
        env = {name: ledger.hold(caller[name]) for name in (*self._bounds.arguments, *self._bounds.owned)}
        machine.keeping, run.ending = self if self._keeps else outer, self._bounds.scopes
        with self._selecting(self._selection or machine.selection):
            run.play_segment(self._segment, env)
        machine.keeping, run.ending = outer, ending
        self._promised.clear()
        caller.update((name, env.pop(name)) for name in results_of(run, self._bounds, env))
        for v in reversed(env.values()):
            ledger.let_go(v)
        drop_in(run, self._segment, caller)
        self._leave()

    def pack(self, storages: list[Storage | None], numbers: list[bool]) -> Holder:
        """A promise for every tensor; numbers are kept."""
        if all(numbers):
            return Holder(storages)
        self._holders.append(Holder([s if number else None for s, number in zip(storages, numbers, strict=True)], self))
        self._promised.update(storages)
        self._waiting += 1
        return self._holders[-1]

    def promised(self, storage: Storage) -> bool:
        """True for what the segment's calls saved: it will be made again, and must then be what it is now."""
        return storage in self._promised

    def fulfil(self, holder: Holder) -> list[Storage]:
        """The tensors of one node, made again with those of all others once in each run of the engine."""
        task = self._run.machine.task
        if task not in self._made:
            self._made[task] = {}
            self._run_again(self._made[task])
        return self._made[task].pop(holder)

    def _run_again(self, made: dict[Holder, list[Storage]]) -> None:
        """The segment's forward once more, up to the last tensor wanted."""
        self._check_versions()
        run, ledger = self._run, self._run.ledger
        machine, outer, layer, op = run.machine, run.machine.keeping, ledger.layer, ledger.op
        env = self._environment()
        forked = self._generator_state()
        machine.keeping = Recomputation(self._holders, made, self._segment.call.early_stop)
        sizes, run.sizes = run.sizes, self._sizes
        if self._selection is not None:
            self._selection.again = True
        with run.over(self._layers), run.caller.anew(), self._selecting(self._selection):
            try:
                run.play_segment(self._segment, env)
            except EndOfRecomputation as end:
                if end.ran:
                    run.ran_again.append(ledger.layer)
            finally:
                machine.keeping, ledger.layer, ledger.op, run.sizes = outer, layer, op, sizes
        for v in reversed(env.values()):
            ledger.let_go(v)
        ledger.release(forked)
        self._given.leave()

    def forget(self, holder: Holder) -> None:
        """It waits no more, and what was made for it goes."""
        for made in self._made.values():
            for s in made.pop(holder, ()):
                self._run.ledger.let_go_storage(s)
        self._leave()

    def _leave(self) -> None:
        """One less waits; without any the arguments and the generator's state go."""
        self._waiting -= 1
        if not self._waiting:
            for v in self._arguments.values():
                self._run.ledger.let_go(v)
            self._given.release()
            self._run.ledger.release(self._state)
            if self._selection is not None:
                self._selection.release()

    def _selected(self) -> Selection | None:
        """What a selective checkpoint keeps; on a card it is not modelled."""
        segment, run = self._segment, self._run
        if not (segment.call.selective and self._keeps):  # torch enters no contexts where nothing is kept
            return None
        if run.recipe.target.on_cuda:
            raise UnsupportedError(f"a selective checkpoint ({segment.name}) on CUDA; on a CPU it is modelled")
        return Selection(run.ledger, segment.call.allow_cache_entry_mutation)

    @contextmanager
    def _selecting(self, selection: Selecting | None) -> Iterator[None]:
        """A selective checkpoint's mode of Python's sees the calls: in forward that of one around, too, which is long gone when what is in
        it runs again alone."""
        machine = self._run.machine
        outer = machine.selection, machine.target
        machine.selection = selection
        machine.target = replace(machine.target, dispatched=selection is not None)
        try:
            yield
        finally:
            machine.selection, machine.target = outer

    def _environment(self) -> dict[str, Value]:
        """What the segment's function sees: its arguments and the network's own tensors."""
        run = self._run
        own = owned_by(run, self._segment, [name for name in self._bounds.owned if name not in self._arguments])
        return {name: run.ledger.hold(v) for name, v in (self._given.unpacked() | self._arguments | own).items()}

    def _generator_state(self) -> Storage:
        return generator_state(self._run, self._segment)

    def _check_versions(self) -> None:
        for name, count in self._versions.items():
            version = self._arguments[name].version
            if version.count != count:
                raise GraphError(
                    f"checkpointed segment {self._segment.name!r}: its input {name!r} is changed in place by {version.by!r}, which torch"
                    " refuses; let the segment begin after the layer that does so, or make that layer not work in place"
                )


class Packed:
    """Arguments that are saved as a call's tensors are (``_CheckpointFrame.save_inputs``), by name. The node of each lives as long."""

    def __init__(self, ledger: Ledger, keeping: Keeping, values: dict[str, Value]) -> None:
        self._ledger = ledger
        self._seen = {name: (v.spec, v.requires_grad) for name, v in values.items()}
        self._nodes = [v.node for v in values.values() if isinstance(v.node, Node)]
        for node in self._nodes:
            node.join(ledger)
        if keeping.one_by_one:
            self._holder: Holder = PackedHolder([keeping.keep(v.spec, v.storage, False) for v in values.values()], circle=False)
        else:
            self._holder = keeping.pack([v.storage for v in values.values()], [False] * len(values)) if values else Holder([])

    def __contains__(self, name: object) -> bool:
        return name in self._seen

    def unpacked(self) -> dict[str, Value]:
        """The arguments, made again where that was promised. No backward goes beyond them."""
        found: dict[str, Value] = {}
        unpacked = self._holder.unpack()
        specs = self._holder.specs(tuple([("", spec) for spec, _ in self._seen.values()]))
        for (name, (_, grad)), (_, spec), storage in zip(self._seen.items(), specs, unpacked, strict=True):
            value = found[name] = Value(spec, storage)
            if grad:
                value.requires_grad, value.node = True, AccumulateGrad(value, name)
        return found

    def leave(self) -> None:
        """The recomputation is over."""
        self._holder.leave(self._ledger)

    def release(self) -> None:
        """The call is forgotten."""
        self._holder.release(self._ledger)
        for node in self._nodes:
            node.leave(self._ledger)
        self._nodes = []


def results_of(run: Run, bounds: Bounds, env: Mapping[str, Value]) -> tuple[str, ...]:
    """What a segment leaves to its caller: what is read after it, and what a call around it returns."""
    given = {*bounds.arguments, *bounds.owned, *bounds.results}
    return (*bounds.results, *(name for name in env if name in run.staying and name not in given))


def drop_in(run: Run, segment: Segment, env: dict[str, Value]) -> None:
    """A segment has returned: its caller lets go of what its layers drop."""
    for layer in run.layers[segment.start : segment.end]:
        for name in layer.drops:
            if name in run.staying:
                continue
            if name in env:
                run.ledger.let_go(env.pop(name))
            elif run.ending is None or name in run.ending:
                run.caller.end_scope(name)


class Recomputation(Keeping):
    """What saved tensors go to while a segment runs again: the nodes of forward that still wait for them."""

    def __init__(self, holders: list[Holder], made: dict[Holder, list[Storage]], early_stop: bool) -> None:
        self._holders, self._made = holders, made
        self._early_stop = early_stop
        self._next = 0

    def ends(self) -> bool:
        """True before the last call that saved something in forward."""
        return self._early_stop and self._next == len(self._holders) - 1

    def pack(self, storages: list[Storage | None], numbers: list[bool]) -> Holder:
        """To the node of forward; the node of the recomputation keeps them, too. (What goes on after a gradient that the function takes
        itself saves more than forward did so far.)"""
        if not all(numbers):
            waiting = self._holders[self._next] if self._next < len(self._holders) else None
            self._next += 1
            if waiting is not None and waiting.waits:
                found = [s for i, s in enumerate(storages) if s is not None and i in waiting.gaps]
                for s in found:
                    s.refs += 1
                self._made[waiting] = found
        return Holder([s for s in storages if s is not None])
