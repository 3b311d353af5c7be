"""What torch says of a saved tensor that was written to before backward asked for it, in the words of somebody who has to change his code.

Source: torch/csrc/autograd/saved_variable.cpp (unpack: "modified by an inplace operation").
"""

from __future__ import annotations

from collections.abc import Callable

from memest.errors import GraphError
from memest.runtimes.torch.autograd.nodes import Node

ACCUMULATED = "AccumulateGrad"
WRITERS = {
    "optimizer_step": "an optimizer's step()",
    ACCUMULATED: "another backward, which added to it",
    "scale_gradients": "clipping gradients by their norm",
}
"""What writes and is no operator."""
OWN = ("parameter", "buffer", "input")


def written_since(node: Node, number: int, line_of: Callable[[str], str]) -> GraphError:
    """The error for the saved tensor of that ``number``; ``line_of`` tells a layer's line of user code."""
    version, storage, role = node.saved.version(number), node.saved.storages[number], node.saved_specs[number][0]
    assert version is not None and storage is not None
    writer = WRITERS.get(version.op) or f"{version.op} in place"
    what = storage.layer if storage.category in OWN else f"its {role}" if role else "a tensor"
    if version.op == "optimizer_step":
        advice = "step after the last backward, or run the forward again"
    elif storage.category in OWN:
        advice = "write to it after backward, or give the forward a clone() of it"
    else:
        advice = "write out of place there (x = x + 1, inplace=False), or into a clone()"
    return GraphError(
        f"torch refuses backward through {node.op} ({_place(node.layer, line_of)}): {what}, which it saved for backward, was changed by"
        f" {writer} ({_place(version.by, line_of)}) since: {advice}"
    )


def _place(layer: str, line_of: Callable[[str], str]) -> str:
    line = line_of(layer)
    return f"{layer}, {line}" if line else layer
