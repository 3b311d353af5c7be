"""Where an activation may write over its input: autograd keeps the input nowhere, no view looks at it, nobody reads it later, and it is
neither the caller's nor a parameter.

In training only activations count whose in-place variant keeps the result (or a mask): the others clone their input first, which gains
nothing (derivatives.yaml: an in-place operator whose formula reads ``self`` saves ``self.clone()``). Which does what is among the facts of
its row; one that torch.nn has no flag for is left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from memest.network.graph import Graph, Layer
from memest.ops.facts import KEEPS_INPUT, KEEPS_MASK, KEEPS_RESULT
from memest.ops.table import operator_named
from memest.runtimes.torch.autograd import Machine
from memest.runtimes.torch.ledger import Value

IN_TRAINING = (KEEPS_RESULT, KEEPS_MASK)
IN_INFERENCE = (KEEPS_RESULT, KEEPS_INPUT)  # a dropout gives its very input


def may_overwrite(graph: Graph, layer: Layer, attributes: tuple[tuple[str, Any], ...], env: Mapping[str, Value], machine: Machine) -> bool:
    """True when ``layer`` may write over what it reads, with ``env`` the values by name as they are before it."""
    worthwhile = IN_TRAINING if machine.training else IN_INFERENCE
    if operator_named(layer.op).facts.overwrites not in worthwhile or ("inplace", False) not in attributes:
        return False
    name = layer.tensors[0]
    if not isinstance(name, str) or env[name].storage.category in ("input", "parameter", "buffer"):
        return False
    if any(key in ("negative_slope", "alpha") and slope < 0 for key, slope in attributes):
        return False  # the sign of the input cannot be told from the result
    value = env[name]
    aliases = [n for n, v in env.items() if v is value]
    if value.base is not None or value.storage.refs != len(aliases) or machine.keeping.promised(value.storage):
        return False
    last, here = _last_readers(graph)
    return all(last.get(n, -1) <= here[layer.name] and n not in graph.outputs for n in aliases)


def _last_readers(graph: Graph) -> tuple[dict[str, int], dict[str, int]]:
    """The number of the layer that reads each value last, and the number of each layer."""

    def find() -> tuple[dict[str, int], dict[str, int]]:
        last = {name: i for i, layer in enumerate(graph.layers) for name in layer.reads}
        return last, {layer.name: i for i, layer in enumerate(graph.layers)}

    return graph.memo.find("last_readers", None, 1, find)
