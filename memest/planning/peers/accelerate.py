"""accelerate's ``estimate-memory``: the weights, and for training four times the weights, whatever the input.

``calculate_maximum_sizes`` adds up parameters and buffers, each once; ``estimate_training_usage`` takes for float32 the largest of model,
gradients, optimizer (twice the model) and "step" (four times the model: weights, gradients and Adam's two states). No activations, at any
batch. A bool counts an eighth of a byte (``dtype_byte_size``). ``convert_bytes`` prints KB, MB, GB of 1,024.
"""

from __future__ import annotations

from memest.network.modules import Modules, weight
from memest.planning.peers.said import Said, Term, plus

RULE = "accelerate 1.15.0: commands/estimate.py, utils/modeling.py"


def accelerate(modules: Modules, training: bool) -> Said:
    """``Training using Adam`` in float32, or ``Total Size``."""
    parameters, buffers = weight(modules.parameters), weight(modules.buffers)
    flags = weight([p for p in modules.buffers if p.dtype == "bool"])
    packed = -(-flags // 8) - flags  # bits, the last byte whole
    model = parameters + buffers + packed
    terms = [
        Term(category="parameter", nbytes=parameters),
        Term(category="buffer", nbytes=buffers),
        *plus("buffer", packed, "a bool counted as a bit"),
    ]
    if training:
        besides = buffers + packed
        terms += [
            Term(category="gradient", nbytes=parameters),
            *plus("gradient", besides, "gradients of buffers, which have none"),
            Term(category="optimizer_state", nbytes=2 * parameters),
            *plus("optimizer_state", 2 * besides, "Adam's state of buffers, which have none"),
        ]
    total = 4 * model if training else model
    what = "Training using Adam" if training else "Total Size"
    return Said(
        tool="accelerate estimate-memory",
        rule=RULE,
        asks="weights, gradients and Adam's state, of any batch" if training else "weights",
        printed=f"{what}: {_printed(total)} (of 1,024)",
        terms=tuple(terms),
    )


def _printed(size: float) -> str:
    for unit in ("bytes", "KB", "MB", "GB", "TB"):
        if size < 1024:
            return f"{round(size, 2)} {unit}"
        size /= 1024
    return f"{round(size, 2)} PB"
