"""What torch lets nobody write into while gradients are on, and whose history it does not follow after somebody did.

Sources: torch/csrc/autograd/VariableTypeUtils.h (check_inplace), torch/csrc/autograd/variable.cpp (handle_view_on_rebase).
"""

from __future__ import annotations

from collections.abc import Sequence

from memest.errors import GraphError, UnsupportedError
from memest.network.dtypes import DIFFERENTIABLE
from memest.ops.tape import Trace
from memest.runtimes.torch.autograd.nodes import AccumulateGrad
from memest.runtimes.torch.ledger import Value

GIVING_SEVERAL = frozenset({"split", "unbind"})
"""Rows whose every output is a view, one of several by one node."""
SEVERAL, WITHOUT_GRADIENTS, BY_FUNCTION = "several", "no_grad", "function"
_WHICH = {
    SEVERAL: "one of the views that split, chunk or unbind gave",
    WITHOUT_GRADIENTS: "a view that was made under torch.no_grad()",
    BY_FUNCTION: "what a custom autograd function (or a module with a backward hook) gives back as it got it",
}
_ADVICE = {
    SEVERAL: "clone() it first, or take the part by an index (x[:, :n])",
    WITHOUT_GRADIENTS: "write under no_grad, too, or make the view with gradients on",
    BY_FUNCTION: "clone() it first",
}


def check_writable(value: Value, wanted: bool, *, leaves: bool) -> None:
    """GraphError where a call may not write into ``value`` while gradients are on. ``wanted``: what it reads requires one; into ``leaves``
    it may, if that is said."""
    if value.bound and (wanted or value.says_grad):
        raise GraphError(f"torch refuses to write into {_WHICH[value.bound]} while gradients are on: {_ADVICE[value.bound]}")
    leaf = value if value.base is None else value.base
    if not leaves and value.requires_grad and leaf.requires_grad and isinstance(leaf.node, AccumulateGrad):
        which = "a parameter (or another leaf)" if leaf is value else "a view of a parameter (or of another leaf)"
        raise GraphError(f"torch refuses to write into {which} that requires a gradient: write under torch.no_grad(), or into a clone()")


def check_fresh(value: Value, stale: Sequence[Value]) -> None:
    """GraphError where a call writes into one of the ``stale`` views, whose base came to require a gradient by another one, and which
    nobody has used since: torch takes it for a leaf."""
    if any(value is v for v in stale):
        raise GraphError(
            "torch refuses to write into a view made before another view of the same tensor was written to with gradients on: take the part"
            " anew (x[i]) each time"
        )


def check_readable(view: Value) -> None:
    """GraphError where the memory of ``view`` was written to, and its gradient cannot go that way."""
    if view.bound:
        by = f" ({view.version.by}, {view.version.op} in place)" if view.version.by else ""
        raise GraphError(
            f"torch refuses to go on with {_WHICH[view.bound]} once that memory is written to{by}: use it before, or clone() it first"
        )


def check_leads_somewhere(trace: Trace, line: str) -> None:
    """UnsupportedError where torch makes a node without edges: an input says that it requires a gradient, and none arrives there. ``line``
    is that of the user's code (empty: not known)."""
    if not trace.is_noop and any(o is not None and o.spec.dtype in DIFFERENTIABLE for o in trace.outputs):
        raise UnsupportedError(
            f"{line}{': ' * bool(line)}torch makes a graph from a view of a tensor that requires a gradient, made under torch.no_grad(): it"
            " leads nowhere and keeps its memory, which is not modelled; detach() the view"
        )
