"""The training part of a step: for each batch forward, loss and backward; then what is done with the gradients; then the optimizer."""

from __future__ import annotations

from dataclasses import dataclass, field

from memest.errors import GraphError, UsageError
from memest.network.tensor import Shape, Spec, nbytes
from memest.runtimes.torch import optimizers
from memest.runtimes.torch.ledger import Value
from memest.runtimes.torch.losses import Loss
from memest.runtimes.torch.step.averaging import play_average
from memest.runtimes.torch.step.batches import Batch, slices, whole
from memest.runtimes.torch.step.clipping import play_clipping
from memest.runtimes.torch.step.forward import forward
from memest.runtimes.torch.step.plan import Shard
from memest.runtimes.torch.step.recipe import Recipe
from memest.runtimes.torch.step.run import Run
from memest.runtimes.torch.step.scaling import Scaler
from memest.runtimes.torch.step.supervision import loss_of, with_number


@dataclass
class Step:
    """What passes of one step share: the batches, their targets, and what the caller's variables hold between passes (``hold_output``)."""

    loss: Loss
    batches: list[Batch]
    scaler: Scaler | None = None
    targets: list[list[Value]] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    losses: list[Value] = field(default_factory=list)


def train(run: Run) -> None:
    """One training step, on top of what is resident."""
    recipe, ledger = run.recipe, run.ledger
    if recipe.loss is None or recipe.optimizer is None:
        raise UsageError("training needs a loss and an optimizer")
    parts = [whole(run)] if recipe.micro_batch is None else list(slices(run, recipe.micro_batch.size))
    scaler = None
    if recipe.autocast is not None and recipe.autocast.scaler:
        scaler = Scaler(ledger, fused=bool(dict(recipe.optimizer.options)["fused"]), sharded=isinstance(recipe.parallel, Shard))
    step = Step(recipe.loss, parts, scaler)
    _play_passes(run, step)
    if recipe.clip is not None:
        if scaler is not None:
            scaler.unscale()
        gradients = run.machine.gradients
        given = [gradients[leaf.name] for leaf in run.leaves if leaf.name in gradients]
        play_clipping(ledger, given, recipe.clip, recipe.target, run.vector_norm)
    if scaler is not None:
        scaler.before_step()
    _optimize(run, recipe.optimizer, run.hooks.updated(run.leaves))
    if scaler is not None:
        scaler.after_step()
    if recipe.average is not None:
        play_average(ledger, run.graph, recipe.average, first=recipe.step == 1, target=recipe.target)
    ledger.layer, ledger.op = "", ""
    for value in (*step.outputs, *step.losses):
        ledger.let_go(value)


def _play_passes(run: Run, step: Step) -> None:
    """Every batch through forward, loss and backward, as often as gradients accumulate. From the second pass on, gradients are there to
    be added to, and equal passes leave equal events: those after the second are written down again instead of being played (unless the
    caller's variables reach from pass to pass)."""
    recipe, steps = run.recipe, run.ledger.events
    rounds = recipe.accumulate.steps if recipe.accumulate is not None else 1
    shapes: list[tuple[Shape, ...]] = []
    start = end = 0
    for number, batch in list(enumerate(step.batches)) * rounds:
        shapes.append(tuple(v.shape for v in batch.inputs.values()))
        if len(shapes) > run.hooks.alike_from and shapes[-3] == shapes[-2] == shapes[-1] and not recipe.hold_output:
            _targets(run, step, number, None)
            run.ledger.again(end - start)
            continue
        start = len(steps)
        _play_pass(run, step, number, batch)
        end = len(steps)


def _play_pass(run: Run, step: Step, number: int, batch: Batch) -> None:
    """Forward, loss and backward of one batch."""
    recipe, ledger = run.recipe, run.ledger
    ledger.phase = "forward"
    outputs = forward(run, batch)
    names = run.graph.outputs
    taken = names[: step.loss.taken(len(names))]
    if recipe.hold_output:
        _rebind(run, step.outputs, _own(run, names))
    else:
        _let_outputs_go(run, tuple(name for name in names if name not in taken))
    if recipe.autocast is not None and not recipe.autocast.loss_inside:
        run.caller.leave_autocast()
    ledger.phase, ledger.layer = "loss", "loss"
    predictions = outputs[: len(taken)]
    targets = _targets(run, step, number, [_before_casts(recipe, p.spec) for p in predictions])
    loss = loss_of(run, step.loss, predictions, targets)
    if recipe.hold_output:
        _rebind(run, step.losses, [loss])
    else:
        _let_outputs_go(run, taken)
    run.caller.leave_autocast()
    if not loss.requires_grad:
        raise GraphError(
            "nothing to train: no trainable parameter reaches the loss (for inference: mode='infer', --infer; for an input's gradient:"
            " memest.step)"
        )
    for divisor in _divisors(run, len(step.batches)):
        loss = _divided(run, loss, divisor)
        if recipe.hold_output:
            step.losses[:] = [loss]
    if step.scaler is not None:
        if recipe.hold_output:
            ledger.hold(loss)
        loss = step.scaler.scaled(run.caller, loss)
    ledger.phase, ledger.layer, ledger.op = "backward", "loss", "ones_like"
    gradient = ledger.hold(Value(loss.spec, ledger.allocate(nbytes(loss.shape, loss.spec.dtype), "gradient")))
    run.machine.backward(loss, gradient)
    run.hooks.after_backward()
    ledger.let_go(gradient)
    if not recipe.hold_output or step.scaler is not None:
        ledger.let_go(loss)


def _before_casts(recipe: Recipe, prediction: Spec) -> Spec:
    """What the prediction were without autocast, for targets are data and stay float32."""
    return prediction if recipe.autocast is None else prediction._replace(dtype="float32")


def _targets(run: Run, step: Step, number: int, predictions: list[Spec] | None) -> list[Value]:
    """The targets of batch ``number``, resident since before the step; without ``predictions`` they are as those before. Those of slices
    are slices of the whole batch's (``target.split(size)``)."""
    if number == len(step.targets):
        before: list[Spec | None] = [] if predictions is not None else [value.spec for value in step.targets[-1]]
        wanted = before if predictions is None else [step.loss.target(p) for p in predictions]
        given = [w for w in wanted if w is not None]
        sizes = [nbytes(w.shape, w.dtype) for w in given]
        if number == 0:
            storages = [run.ledger.resident(size, "input", "target") for size in sizes]
        else:
            storages = [value.storage for value in step.targets[0]]
            for storage, size in zip(storages, sizes, strict=True):
                storage.nbytes = storage.nbytes + size
        step.targets.append([run.ledger.hold(Value(w, storage)) for w, storage in zip(given, storages, strict=True)])
    return step.targets[number]


def _divisors(run: Run, parts: int) -> list[int]:
    """What the loss is divided by, one division a lever that asks for it."""
    accumulate, micro_batch = run.recipe.accumulate, run.recipe.micro_batch
    found = [parts] if micro_batch is not None and micro_batch.mean else []
    return [*found, accumulate.steps] if accumulate is not None and accumulate.mean else found


def _divided(run: Run, loss: Value, divisor: int) -> Value:
    """``loss / divisor``; the undivided loss dies after."""
    divided = with_number(run, "div", loss, divisor)
    run.ledger.let_go(loss)
    return divided


def _optimize(run: Run, optimizer: optimizers.Optimizer, trained: list[tuple[str, Value]]) -> None:
    ledger, number, target = run.ledger, run.recipe.step, run.recipe.target
    ledger.phase = "optimizer_step"
    if run.recipe.offload:
        for name, value in trained:
            _optimize_alone(run, optimizer, name, value)
        return
    for name, value in trained:
        for state in optimizers.resident_states(optimizer, value.spec, number, target):
            ledger.resident(nbytes(state.shape, state.dtype), "optimizer_state", name)
    optimizers.play_step(optimizer, ledger, [value for _, value in trained], [name for name, _ in trained], number, target)


def _optimize_alone(run: Run, optimizer: optimizers.Optimizer, name: str, value: Value) -> None:
    """One parameter's state comes in, its update runs, and its state goes out again (the first time it is made here)."""
    ledger, number, target = run.ledger, run.recipe.step, run.recipe.target
    start = len(ledger.events)
    ledger.layer, ledger.op = name, "fetch_state"
    for state in optimizers.resident_states(optimizer, value.spec, number, target):
        ledger.allocate(nbytes(state.shape, state.dtype), "optimizer_state", f"state of {name}, fetched for its update")
    optimizers.play_step(optimizer, ledger, [value], [name], number, target)
    ledger.layer, ledger.op = name, "return_state"
    for step in ledger.events[start:]:
        if step.delta > 0 and step.storage.category == "optimizer_state":
            ledger.release(step.storage)


def _own(run: Run, names: tuple[str, ...]) -> list[Value]:
    """The output values, no longer known by their names; those that are inputs or parameters too stay where they are."""
    permanent = {i.name for i in run.graph.inputs} | {p.name for p in run.graph.parameters}
    return [run.env.pop(name) for name in dict.fromkeys(names) if name in run.env and name not in permanent]


def _rebind(run: Run, variables: list[Value], values: list[Value]) -> None:
    """A Python variable gets a new value; what it held before is dropped after."""
    before = list(variables)
    variables[:] = values
    for value in before:
        run.ledger.let_go(value)


def _let_outputs_go(run: Run, names: tuple[str, ...]) -> None:
    """``model(x)`` was an argument only: it dies when the loss is there, and outputs that the loss does not take before that."""
    for value in _own(run, names):
        run.ledger.let_go(value)
