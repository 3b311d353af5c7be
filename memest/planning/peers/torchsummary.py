"""torchsummary: the outputs of all modules but the outermost and Sequentials, twice, at four bytes a number.

``summary`` hooks every module that is neither the network itself nor a Sequential or ModuleList, so a block's output stands beside that of
its last layer, and a module that is called again is counted again, with the elements of its ``weight`` and ``bias``. Several outputs of
one module are multiplied into one number (``np.prod`` of their shapes, the batch as -1). Sizes are in MB of 1,048,576 bytes, printed as
if of memory.
"""

from __future__ import annotations

from math import prod

from memest.network.graph import Parameter
from memest.network.modules import Made, ModuleCall, Modules, made_in, weight
from memest.planning.peers.said import Said, Term, plus

RULE = "torchsummary 1.5.1: torchsummary.py"
ASKS = "input, parameters and outputs"
_NUMBER = 4


def torchsummary(modules: Modules) -> Said:
    """``summary(model, input_size, batch_size=…)`` with the batch of the input."""
    calls = [c for c in modules.calls_as_given or () if c.path and not c.container]
    reason = modules.no_calls or _refusal(modules, calls)
    if reason:
        return Said(tool="torchsummary", rule=RULE, asks=ASKS, reason=reason)
    batch = modules.inputs[0][1].shape[0]
    numbers = sum(_numbers(c, batch) for c in calls)
    counted = abs(2 * numbers * _NUMBER)
    leaves: dict[str, int] = {}
    for c in calls:
        if c.leaf:
            leaves[c.path] = leaves.get(c.path, 0) + _bytes(c)
    outputs = sum(leaves.values())
    blocks = sum(_bytes(c) for c in calls if not c.leaf)
    given = sum(made.nbytes for _, made in modules.inputs)
    asked = abs(prod(n for _, made in modules.inputs for n in made.shape[1:]) * batch * _NUMBER)
    everything = weight(modules.parameters)
    reached = {p.name: p for c in calls for p in _known(modules, c)}
    forgotten = everything - weight(list(reached.values()))
    registered = _NUMBER * sum((c.weight or 0) + (c.bias or 0) for c in calls)
    terms = [
        Term(category="input", nbytes=given),
        *plus("input", asked - given, "sizes of the inputs multiplied into one number, at four bytes each"),
        Term(category="parameter", nbytes=everything),
        *plus("parameter", -forgotten, "parameters that are no module's weight or bias, or of modules never called: forgotten"),
        *plus(
            "parameter", registered - everything + forgotten, "weights counted at every call, buffers called weight, four bytes a number"
        ),
        Term(category="activation", nbytes=outputs, by_module=leaves),
        *plus("activation", blocks, "outputs of blocks, which are those of their last layers: counted again"),
        *plus("activation", counted // 2 - outputs - blocks, "several outputs multiplied into one number, at four bytes each"),
        *plus("activation", counted - counted // 2, "all outputs a second time, 'for gradients'"),
    ]
    total = sum(t.nbytes for t in terms)
    return Said(
        tool="torchsummary",
        rule=RULE,
        asks=ASKS,
        printed=f"Estimated Total Size (MB): {total / 1048576:0.2f} (of 1,048,576 bytes)",
        terms=tuple(terms),
    )


def _refusal(modules: Modules, calls: list[ModuleCall]) -> str:
    """Why it raises instead; nothing where it does not."""
    if any(made.dtype != "float32" for _, made in modules.inputs):
        return "it feeds random float32 inputs, and this network takes others"
    if all(c.weight is None and c.bias is None for c in calls):
        return "it fails where no module inside has a weight"
    if len({len(made.shape) for _, made in modules.inputs}) > 1:
        return "it cannot take inputs of several ranks"
    for c in calls:
        if not c.positional:
            return f"it fails at {c.path}, whose first argument is no tensor given by position"
        if isinstance(c.result, Made):
            continue
        if not isinstance(c.result, tuple) or not all(isinstance(part, Made) for part in c.result):
            return f"it fails at {c.path}, which gives neither a tensor nor tensors in a row"
        if len({len(part.shape) for part in c.result}) > 1:
            return f"it fails at {c.path}, whose outputs have several ranks"
    return ""


def _numbers(call: ModuleCall, batch: int) -> int:
    """What it takes for the number of elements a call gives: signed 64-bit, as numpy multiplies."""
    if isinstance(call.result, Made):
        found = batch * prod(call.result.shape[1:])
    else:
        found = prod(-1 * prod(part.shape[1:]) for part in call.result)
    return (found + 2**63) % 2**64 - 2**63


def _bytes(call: ModuleCall) -> int:
    return sum(made.nbytes for made in made_in(call.result))


def _known(modules: Modules, call: ModuleCall) -> list[Parameter]:
    """The parameters of a module that are its weight and bias."""
    own = modules.own_parameters(call.path)
    return [p for p in own if p.name.rpartition(".")[2] in ("weight", "bias")]
