"""Custom autograd functions: their backward, played where the engine runs it.

The context's Python objects live as torch has it: what ``save_for_backward`` keeps goes when the function has run backward, attributes of
the context when the node dies, gradients that come when the call returns.

Source: torch/csrc/autograd/python_function.cpp (PyNode::apply, _wrap_outputs, _save_variables).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Protocol

from memest.errors import GraphError, UnsupportedError
from memest.network.graph import BACKWARD_HOOK, USUAL, Backward, Graph, Layer, LeafHook, Segment
from memest.network.tensor import Spec, contiguous_strides, nbytes
from memest.runtimes.torch.autograd import AccumulateGrad, Machine, Node, with_history
from memest.runtimes.torch.ledger import Ledger, Value
from memest.runtimes.torch.step.caller import Caller
from memest.runtimes.torch.step.histories import Body


class Run(Protocol):
    """What plays layers (:class:`memest.runtimes.torch.step.run.Run`)."""

    graph: Graph
    ledger: Ledger
    machine: Machine
    caller: Caller
    env: dict[str, Value]
    owned: set[str]
    grads: bool
    lending: frozenset[str]
    lent: dict[str, list[Value]]
    begun: dict[str, int]
    checkpoint: Callable[[Segment, dict[str, Value]], None] | None

    def now(self, name: str, backward: Backward) -> Backward:
        """What the hook or function ``name`` does this time."""

    def play(self, layers: Sequence[Layer], env: dict[str, Value]) -> None:
        """Layers of what runs in backward, and the checkpoints among them, on the values in ``env``."""


HOOK = "register_hook"


def lenders(layers: Iterable[Layer]) -> frozenset[str]:
    """The functions that keep what they gave for another, also where they stand in what runs in backward."""
    found: set[str] = set()
    for outermost in (la.backward for la in layers if la.backward is not None):
        for one in (outermost, *outermost.others):
            found |= lenders(one.layers) | ({one.lender} if one.lender is not None else set())
    return frozenset(found)


def beginnings(layers: Iterable[Layer]) -> dict[str, list[str]]:
    """The functions whose nodes are numbered before a layer, by its name, also where they stand in what runs in backward."""
    found: dict[str, list[str]] = {}
    for layer in layers:
        if layer.backward is None:
            continue
        if layer.backward.begins is not None:
            found.setdefault(layer.backward.begins, []).append(layer.name)
        for one in (layer.backward, *layer.backward.others):
            for first, names in beginnings(one.layers).items():
                found.setdefault(first, []).extend(names)
    return found


def hang(run: Run, layer: Layer, backward: Backward, env: dict[str, Value]) -> None:
    """The layer ``autograd_function`` has run: its outputs get the node of the function where a gradient reaches it."""
    results, arguments = layer.tensors
    inputs = [env[name] for name in arguments or ()]
    for v in inputs if run.caller.grad_mode else ():
        run.machine.renew(v)
    if not (run.caller.grad_mode and any(v.requires_grad for v in inputs)):
        return
    run.machine.function(
        [env[name] for name in results or ()],
        inputs,
        [env[name] for name in backward.saved],
        [env[name] for name in backward.kept],
        FunctionBody(run, layer, backward),
        backward.differentiable,
        backward.unpacks,
        run.begun.pop(layer.name, None),
    )


class FunctionBody(Body):
    """The backward of a custom function."""

    def __init__(self, run: Run, layer: Layer, backward: Backward) -> None:
        self._run, self._backward = run, backward
        self._once = bool(dict(layer.attributes).get("once"))

    def __call__(self, node: Node, grads: list[Value | None]) -> list[Value | None]:
        """Without a graph."""
        return _play(self._run, self._backward, node, grads)

    def created(self, node: Node, grads: list[Value | None]) -> list[Value | None]:
        """With one: what it saved of its arguments and results has their histories."""
        run, backward = self._run, self._backward
        if self._once:
            raise UnsupportedError(
                f"create_graph=True through the custom function {node.layer}, which is marked once_differentiable: torch raises when its"
                " gradient is gone back through; take the mark off"
            )
        if backward.lender is not None or BACKWARD_HOOK in node.layer:
            raise UnsupportedError(f"create_graph=True through a module's full backward hook ({node.layer}): take the hook off")
        _check_created(backward, f"the custom function {node.layer}")
        grad, run.grads = run.grads, True
        try:
            return _play(run, backward, node, grads, recorded=True)
        finally:
            run.grads = grad


def register(run: Run, layer: Layer, backward: Backward, env: dict[str, Value]) -> None:
    """The layer ``register_hook``: what it does with the gradient of its tensor. What it captures lives as long as the tensor's node."""
    (name,) = layer.tensors
    value = env[str(name)]
    run.machine.renew(value)
    if not (run.caller.grad_mode and isinstance(value.node, Node)):
        return
    node, nr = value.node, value.output_nr
    captured = {name: run.ledger.hold(env[name]) for name in backward.kept if name in env}
    node.captured.extend(captured.values())
    name = layer.name
    node.on_gradient.setdefault(nr, []).append(lambda gradient: _changed(run, run.now(name, backward), node.layer, captured, gradient))


def hook_leaf(run: Run, hook: LeafHook) -> None:
    """A hook on a parameter, for as long as the run lasts."""
    value = run.env[hook.parameter]
    leaf, backward = value.node, hook.backward
    if not isinstance(leaf, AccumulateGrad):
        return

    def changed(gradient: Value) -> Value:
        return _changed(run, run.now(str(backward.gradients[0]), backward), leaf.name, {}, gradient)

    def after() -> None:
        before = ledger.phase, ledger.layer, ledger.op
        ledger.layer, ledger.op = leaf.name, HOOK
        (gradient,) = backward.gradients
        env: dict[str, Value] = {}
        if gradient is not None and any(gradient in layer.reads for layer in backward.layers):
            env[gradient] = ledger.hold(run.machine.gradients[leaf.name])
        _bind_own(run, backward, env)
        if run.machine.creates and any(layer.name not in backward.without_grad for layer in backward.layers):
            raise UnsupportedError(
                f"create_graph=True with register_post_accumulate_grad_hook on {leaf.name}, whose calls would have gradients: put"
                " torch.no_grad() around what the hook does"
            )
        run.play(backward.layers, env)
        for v in env.values():
            ledger.let_go(v)
        ledger.phase, ledger.layer, ledger.op = before

    ledger = run.ledger
    if hook.after:
        leaf.after.append(after)
    else:
        leaf.changes.append(changed)


def _changed(run: Run, backward: Backward, layer_name: str, captured: dict[str, Value], given: Value) -> Value:
    """The hook: its result takes the gradient's place."""
    ledger = run.ledger
    ledger.layer, ledger.op = layer_name, HOOK
    _check_asked(run, backward, layer_name)
    ((gradient,), (result,)) = backward.gradients, backward.results
    env = {name: ledger.hold(value) for name, value in captured.items()}
    assert gradient is not None
    env[gradient] = ledger.hold(given)
    _bind_mortal(run, backward, env)
    _bind_own(run, backward, env)
    if run.machine.creates:
        _check_created(backward, f"a hook on a tensor ({layer_name})")
    run.play(_recorded(backward, run.machine.creates), env)
    found = given if result is None else ledger.hold(env[result])
    if result is not None:
        ledger.let_go(given)
    _leave_behind(run, backward, env)
    for value in env.values():
        ledger.let_go(value)
    return found


def _recorded(backward: Backward, recorded: bool) -> Sequence[Layer]:
    """Its layers; with ``create_graph`` those with a history that have none else, unless its own code says no."""
    if not recorded:
        return backward.layers
    return [layer if layer.name in backward.without_grad else replace(layer, grad=True) for layer in backward.layers]


def _check_created(backward: Backward, what: str) -> None:
    """Refuse what does otherwise where it is differentiated."""
    if backward.applies is not None:
        raise UnsupportedError(
            f"create_graph=True through {what}, in whose backward another one is applied ({backward.applies}): write"
            " that backward in torch's own operations"
        )


def _check_asked(run: Run, backward: Backward, layer: str) -> None:
    """Refuse what was told that autocast is off where the engine runs inside of it."""
    if backward.asks_autocast and run.caller.casts:
        raise UnsupportedError(
            f"autograd inside autocast through {layer}, whose backward asks whether autocast is on: leave the context before it"
        )


def _bind_own(run: Run, backward: Backward, env: dict[str, Value]) -> None:
    """What backward reads of the network's own tensors, or gives to a checkpoint in it, and a hook of the step's other values."""
    read = [name for layer in backward.layers for name in layer.reads]
    for call in {layer.checkpoint for layer in backward.layers if layer.checkpoint is not None}:
        read += dict(run.graph.checkpoints).get(call, USUAL).arguments
    env.update((name, run.ledger.hold(run.env[name])) for name in dict.fromkeys(read) if name in run.env and name not in env)


def _bind_mortal(run: Run, backward: Backward, env: dict[str, Value]) -> None:
    """The step's own values that die in it, the step's hold with them."""
    env.update((name, run.env.pop(name)) for name in backward.drops if name in run.env and name not in env)


def _leave_behind(run: Run, backward: Backward, env: dict[str, Value]) -> None:
    """What stays is the step's from now on, and what has not died in a call dies."""
    for name in backward.drops:
        if name in env:
            value = env.pop(name)
            run.ledger.let_go(value)
            if name in run.owned:
                run.ledger.let_go_storage(value.storage)
    if backward.stays and run.machine.creates:
        raise UnsupportedError("create_graph=True through a hook that keeps a gradient: keep a detached one, of a backward without it")
    run.env.update((name, run.ledger.hold(env[name])) for name in backward.stays)


def _play(run: Run, backward: Backward, node: Node, grads: list[Value | None], *, recorded: bool = False) -> list[Value | None]:
    """The function's backward; gradients of its inputs. What it saved has its histories."""
    ledger = run.ledger
    ledger.layer, ledger.op = node.layer, node.op
    _check_asked(run, backward, node.layer)
    backward = _as_they_came(node, run.now(node.layer, backward), grads)
    if backward.raises is not None:
        raise GraphError(f"the backward of the custom function {node.layer} raises an error: {backward.raises}")
    env: dict[str, Value] = {}
    if backward.lender is not None:
        lent = run.lent.pop(backward.lender, None)
        if lent is None:  # the gradient did not come through the module's outputs
            return [None if g is None else ledger.hold(g) for g in grads]
        env.update(zip(backward.lent, lent, strict=True))
    unpacked = node.saved.unpack()
    saved = zip(backward.saved, node.saved.specs(node.saved_specs), unpacked, node.histories, strict=True)
    for i, (name, (_, spec), storage, history) in enumerate(saved):
        if name in env:  # saved twice
            continue
        env[name] = ledger.hold(with_history(Value(spec, storage, node.saved.version(i)), history))
    if len(node.context) < len(backward.kept):
        raise GraphError(f"backward a second time through the custom function {node.layer}, whose first deleted what its context kept")
    env.update(zip(backward.kept, node.context, strict=True))  # the context's own hold: backward may delete it
    node.context = [] if run.checkpoint is not None else [ledger.hold(v) for v in node.context]
    for gradient, grad, spec in zip(backward.gradients, grads, node.out_specs, strict=True):
        if gradient is not None:
            env[gradient] = ledger.hold(zeros(run, spec) if grad is None else grad)
    _bind_mortal(run, backward, env)
    _bind_own(run, backward, env)
    try:
        run.play(_recorded(backward, recorded), env)
        outputs = [None if name is None else ledger.hold(env[name]) for name in backward.results]
        if node.layer in run.lending:
            run.lent[node.layer] = [ledger.hold(v) for v in outputs if v is not None]
        _leave_behind(run, backward, env)
    finally:  # also where a recomputation around it ends amid its calls
        node.saved.leave(ledger)
        node.context = node.context or [env.pop(name) for name in backward.kept if name in env]
        for value in env.values():
            ledger.let_go(value)
    return outputs


def _as_they_came(node: Node, backward: Backward, grads: list[Value | None]) -> Backward:
    """What the function does with the gradients that came, where it asked not to be given zeros for the others."""
    if backward.materialized:
        return backward
    for one in (backward, *backward.others):
        if all((name is None) == (grad is None) for name, grad in zip(one.gradients, grads, strict=True)):
            return one
    if BACKWARD_HOOK in node.layer:
        raise UnsupportedError(
            f"a full backward hook of a module of whose outputs one gets no gradient ({node.layer}): use them all, or take the hook off"
        )
    missing = [i for i, grad in enumerate(grads) if grad is None]
    raise UnsupportedError(
        f"the custom function {node.layer}, whose backward cannot be recorded without the gradient of its output {missing[0]}, which does"
        " not come: use that output, or leave set_materialize_grads(False) out"
    )


def zeros(run: Run, spec: Spec) -> Value:
    """A gradient that did not come (``set_materialize_grads``), unheld."""
    return Value(Spec(spec.shape, contiguous_strides(spec.shape), spec.dtype), run.ledger.allocate(nbytes(spec.shape, spec.dtype)))
