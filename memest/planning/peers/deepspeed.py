"""DeepSpeed's ``estimate_zero2_model_states_mem_needs`` and ``estimate_zero3_…``: bytes a parameter, for one GPU, no offload.

ZeRO-2 takes 20 bytes a parameter: 2 for the half weights, and 18 shared out over all GPUs (2 + 4 gradients, 4 float32 weights, 8 Adam's
states). ZeRO-3 takes those 18 and, whole, four bytes a parameter of the largest module. Parameters are counted once each, buffers and
activations not at all ("params, optim states and gradients"). Printed in GB of 2**30.
"""

from __future__ import annotations

from memest.network.modules import Modules, sizes
from memest.planning.peers.said import Said, Term, plus

RULE = "DeepSpeed 0.19.6: runtime/zero/stage_1_and_2.py, stage3.py"
HALF = "weights once more in half precision"
HALF_GRADIENTS = "gradients once more in half precision"
ASKS = "weights, gradients and Adam's state in mixed precision, one GPU, any batch"


def zero2(modules: Modules) -> Said:
    """Of one GPU without offload."""
    count = sizes(modules.parameters)
    return _said("DeepSpeed ZeRO-2", [Term(category="parameter", nbytes=4 * count), *plus("parameter", 2 * count, HALF)], count)


def zero3(modules: Modules) -> Said:
    """Of one GPU without offload."""
    count = sizes(modules.parameters)
    largest = max((sizes(modules.own_parameters(path)) for path in modules.own), default=0)
    weights = [
        Term(category="parameter", nbytes=4 * count),
        *plus("parameter", 4 * largest, "the largest module's weights gathered whole"),
    ]
    return _said("DeepSpeed ZeRO-3", weights, count)


def _said(tool: str, weights: list[Term], count: int) -> Said:
    shared = [
        Term(category="gradient", nbytes=4 * count),
        *plus("gradient", 2 * count, HALF_GRADIENTS),
        Term(category="optimizer_state", nbytes=8 * count),
    ]
    terms = tuple([*weights, *shared])
    total = sum(t.nbytes for t in terms)
    return Said(tool=tool, rule=RULE, asks=ASKS, printed=f"per GPU: {total / 2**30:.2f}GB (of 1,073,741,824 bytes)", terms=terms)
