"""torch's own ``MemTracker``: every storage that an operator returns while it is alive, by category, at its highest moment.

``__torch_dispatch__`` sees what aten operators return and not what their kernels allocate and drop inside (oneDNN's scratch, copies made
contiguous). It is no rule over a graph but a run of the module, so it is asked (``sources``), and what it says is laid beside ours
category by category.
"""

from __future__ import annotations

from collections.abc import Mapping

from memest.planning.peers.said import Said, Term

TOOL = "MemTracker"
ASKS = "storages that operators return, at their peak"
CATEGORIES = {
    "Parameter": "parameter",
    "Buffer": "buffer",
    "Gradient": "gradient",
    "Activation": "activation",
    "Temp": "temporary",
    "Optstate": "optimizer_state",
    "Other": "input",
}


def mem_tracker(found: Mapping[str, int], torch: str) -> Said:
    """What torch's class said, by its categories; ``torch`` is the version that ran it."""
    terms = tuple(Term(category=ours, nbytes=found.get(theirs, 0)) for theirs, ours in CATEGORIES.items())
    total = sum(t.nbytes for t in terms)
    return Said(tool=TOOL, rule=_rule(torch), asks=ASKS, printed=f"Total: {total} B", terms=terms)


def silent(reason: str, torch: str | None) -> Said:
    """It cannot be asked."""
    return Said(tool=TOOL, rule=_rule(torch), asks=ASKS, reason=reason)


def _rule(torch: str | None) -> str:
    return f"torch {torch or 'of any version'}: torch/distributed/_tools/mem_tracker.py"
