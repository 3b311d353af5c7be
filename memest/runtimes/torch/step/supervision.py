"""The loss of a pass: of one output, or of several with a weight each (deep supervision).

Over several it is ``sum([w * loss(o, t) for w, o, t in zip(weights, outputs, targets) if w])``, as nnU-Net's DeepSupervisionWrapper
has it: the weighted losses stand in a list until their sum, which begins with 0, is there.
"""

from __future__ import annotations

from collections.abc import Sequence

from memest.errors import GraphError
from memest.network.tensor import numel
from memest.ops.composite import Composite
from memest.ops.operator import Operator
from memest.runtimes.torch.ledger import Value
from memest.runtimes.torch.losses import Loss
from memest.runtimes.torch.step.run import Run


def loss_of(run: Run, loss: Loss, predictions: Sequence[Value], targets: Sequence[Value]) -> Value:
    """The loss, held by the caller's variable."""
    if not loss.terms:
        return run.ledger.hold(_scalar(predictions[0]))
    entry = loss.composite
    if loss.weights is None:
        return _called(run, entry, predictions[0], targets[0])
    parts: list[Value] = []
    for weight, prediction, target in zip(loss.weights, predictions, targets, strict=True):
        if weight:
            value = _called(run, entry, prediction, target)
            parts.append(with_number(run, "mul", value, weight))
            run.ledger.let_go(value)
    total = with_number(run, "add", parts[0], 0)
    for part in parts[1:]:
        before, total = total, _called(run, run.rows["add"], total, part)
        run.ledger.let_go(before)
    for part in parts:
        run.ledger.let_go(part)
    return total


def _scalar(output: Value) -> Value:
    if numel(output.shape) != 1:
        raise GraphError(f"the loss is to be the network's first output, and that has shape {list(output.shape)}; one number is expected")
    return output


def with_number(run: Run, op: str, value: Value, number: float) -> Value:
    """``value op number``, held."""
    return _called(run, run.rows[op], value, None, value=number)


def _called(run: Run, entry: Operator | Composite, *tensors: Value | None, **attributes: float) -> Value:
    (made,) = run.caller.run(entry, list(tensors), tuple(entry.canonical(attributes).items()))
    assert made is not None
    return run.ledger.hold(made)
