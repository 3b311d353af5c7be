"""The gradient of an operation: new nodes, in the order in which its registered function makes them.

Source: tensorflow/python/ops/{math,nn,array,image}_grad.py; names begin with ``gradient_tape/`` and where the operation was called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from memest.errors import UnsupportedError
from memest.runtimes.tensorflow.gradients import arithmetic, arrays, gelu, networks
from memest.runtimes.tensorflow.nodes import Net, Node, Value

Gradient = Callable[[Net, Node, Sequence[Value | None]], Sequence[Value | None]]
TABLE: Mapping[str, Gradient] = {**arithmetic.TABLE, **arrays.TABLE, **networks.TABLE, "Erfc": gelu.of_complement}
GELU: Mapping[str, Gradient] = {"whole": gelu.of_whole, "argument": gelu.of_argument}


def gradient_of(net: Net, node: Node, given: Sequence[Value | None]) -> Sequence[Value | None]:
    """The gradients by the inputs of a node; None where there is none."""
    found = GELU.get(node.attributes.get("gelu", "")) or TABLE.get(node.op)
    if found is None:
        raise UnsupportedError(f"no rule for the gradient of TensorFlow's {node.op!r}")
    return found(net, node, given)
