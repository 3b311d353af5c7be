"""Activation checkpointing as ``torch.utils.checkpoint.checkpoint(function, *args, use_reentrant=True)`` does it.

A custom autograd function: forward runs without gradients, and its arguments and the state of the random generator are kept. Its backward
runs forward again on detached arguments, with gradients, then a backward of its own over that, inside the one that is under way.

Source: torch/utils/checkpoint.py (CheckpointFunction, detach_variable), torch/random.py (fork_rng).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from memest.errors import GraphError
from memest.memory.stream import Storage
from memest.network.dtypes import DIFFERENTIABLE
from memest.network.graph import Segment
from memest.network.tensor import Spec
from memest.runtimes.torch.autograd import AccumulateGrad, EndOfRecomputation, Node
from memest.runtimes.torch.ledger import Ledger, Value
from memest.runtimes.torch.step.checkpointing import drop_in, generator_state, owned_by, results_of
from memest.runtimes.torch.step.functions import zeros
from memest.runtimes.torch.step.packing import Unseen, packed_by
from memest.runtimes.torch.step.run import Run
from memest.runtimes.torch.step.segments import Bounds, bounds_of

GIVEN_BACK = "given_back"


def play_reentrant(run: Run, segment: Segment, caller: dict[str, Value]) -> None:
    """One such call: its results are among the values of its caller then."""
    ledger, layers, bounds = run.ledger, run.layers, bounds_of(run.graph, run.layers, segment)
    state = ledger.hold(_bytes(generator_state(run, segment)))
    arguments = [caller[name] for name in segment.call.arguments]
    enabled = segment.call.grad and run.has_gradients(segment.name)
    for v in arguments if enabled else ():
        run.machine.renew(v)
    needs = [enabled and v.requires_grad for v in arguments]
    env = {name: ledger.hold(caller[name]) for name in (*bounds.arguments, *bounds.owned)}
    number = next(run.machine.numbers)  # casts that autocast keeps have a history though gradients are off
    try:
        with _without_gradients(run, segment, bounds):
            _play_segment(run, segment, env)
        own = {id(run.env[name]) for name in run.owned if name in run.env}  # written into, but not returned
        named = {id(env[name]): name for name in results_of(run, bounds, env)}  # what works in place has two names
        results = tuple([name for value, name in named.items() if value not in own])
        for layer in layers[segment.start : segment.end]:
            if layer.op == GIVEN_BACK and layer.checkpoint == segment.name:
                (name,) = layer.outputs
                if env[name].spec.dtype in DIFFERENTIABLE:
                    given, env[name] = env[name], ledger.hold(_another(ledger, env[name], any(needs)))
                    ledger.let_go(given)
        outputs = [env[name] for name in results]
        if any(needs):
            captured = {name: caller[name] for name in bounds.arguments if name not in segment.call.arguments}
            sizes = run.sizes

            def body(node: Node, grads: list[Value | None]) -> list[Value | None]:
                with run.over(layers):
                    return _Again(run, segment, bounds, results, captured, sizes).play(node, grads, needs)

            hangs = [v.spec.dtype in DIFFERENTIABLE for v in outputs]
            with packed_by(run, segment.call.packing):
                run.machine.function(outputs, arguments, arguments, [state, *captured.values()], body, hangs, number=number)
    except EndOfRecomputation:  # of one around it: amid a gradient that is taken in it, or where its arguments are saved
        for v in env.values():
            ledger.let_go(v)
        raise
    finally:
        ledger.let_go(state)
    caller.update((name, env.pop(name)) for name in results_of(run, bounds, env))
    for v in reversed(env.values()):
        ledger.let_go(v)
    drop_in(run, segment, caller)


@contextmanager
def _without_gradients(run: Run, segment: Segment, bounds: Bounds) -> Iterator[None]:
    """As its function runs in forward."""
    outer, keeping = (run.grads, run.ending, run.enabling), run.machine.keeping
    run.machine.keeping = Unseen(segment.name) if segment.call.packing else keeping
    run.caller.grad_mode = run.grads = False
    run.ending, run.enabling = bounds.scopes, frozenset(segment.call.enabling)
    try:
        yield
    finally:
        run.grads, run.ending, run.enabling = outer
        run.caller.grad_mode, run.machine.keeping = run.grads, keeping


def _play_segment(run: Run, segment: Segment, env: dict[str, Value]) -> None:
    """Its layers; what it returns is alive when they have run, though nobody may read it."""
    staying, run.staying = run.staying, run.staying | frozenset(segment.call.results)
    try:
        run.play_segment(segment, env)
    finally:
        run.staying = staying


def _another(ledger: Ledger, value: Value, hangs: bool) -> Value:
    """An argument that is returned as it is: a view of it that gets the node, or an alias (_process_backward_mode_ad)."""
    found = Value(value.spec, value.storage, value.version)
    if hangs:
        found.base = ledger.hold(value if value.base is None else value.base)
    return found


class _Again:
    """The backward of one such call."""

    def __init__(
        self, run: Run, segment: Segment, bounds: Bounds, results: Sequence[str], captured: dict[str, Value], sizes: Mapping[str, int]
    ) -> None:
        self._run, self._segment, self._bounds, self._results = run, segment, bounds, results
        self._captured, self._sizes = captured, sizes

    def play(self, node: Node, grads: list[Value | None], needs: list[bool]) -> list[Value | None]:
        """Forward and backward of the segment; the gradients of its arguments."""
        run, ledger, machine, names = self._run, self._run.ledger, self._run.machine, self._segment.call.arguments
        if machine.selects:
            raise GraphError(
                f"torch refuses torch.autograd.grad through a reentrant checkpoint ({self._segment.name}): give it use_reentrant=False"
            )
        ledger.layer, ledger.op = node.layer, "checkpoint"
        came = [zeros(run, spec) if g is None else g for g, spec in zip(grads, node.out_specs, strict=True)]
        for g in came:
            ledger.hold(g)
        unpacked = node.saved.unpack()
        given = enumerate(zip(names, node.saved.specs(node.saved_specs), unpacked, needs, strict=True))
        forked = generator_state(run, self._segment)
        leaves = [self._detached(name, Value(spec, storage, node.saved.version(i)), need) for i, (name, (_, spec), storage, need) in given]
        outputs = self._outputs(dict(zip(names, leaves, strict=True)))
        ledger.release(forked)
        roots = [(v, g) for v, g in zip(outputs, came, strict=True) if v.requires_grad]
        machine.backward_of(roots)
        found = [machine.gradients.pop(_leaf_name(name), None) for name in names]
        for v in (*outputs, *leaves, *came):
            ledger.let_go(v)
        node.saved.leave(ledger)
        return found

    def _detached(self, name: str, value: Value, needs: bool) -> Value:
        if needs:
            value.requires_grad, value.node = True, AccumulateGrad(value, _leaf_name(name), mortal=True)
        return self._run.ledger.hold(value)

    def _outputs(self, arguments: dict[str, Value]) -> list[Value]:
        """What the segment gives for detached arguments, held."""
        run, ledger = self._run, self._run.ledger
        own = owned_by(run, self._segment, [name for name in self._bounds.owned if name not in arguments])
        env = {name: ledger.hold(v) for name, v in (arguments | self._captured | own).items()}
        sizes, run.sizes = run.sizes, self._sizes
        layer, op = ledger.layer, ledger.op
        with run.caller.anew():
            _play_segment(run, self._segment, env)
        ledger.layer, ledger.op, run.sizes = layer, op, sizes
        outputs = [ledger.hold(env[name]) for name in self._results]
        for v in reversed(env.values()):
            ledger.let_go(v)
        return outputs


def _leaf_name(argument: str) -> str:
    """What the gradient of a detached argument is filed under while backward runs."""
    return f"{argument} (detached)"


def _bytes(storage: Storage) -> Value:
    return Value(Spec((storage.nbytes,), (1,), "uint8"), storage)
