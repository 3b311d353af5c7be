"""A user's own training step as a graph: the function runs on meta tensors, as it stands, until one step is like the next.

Modules, optimizers and tensors are found where the function finds them (``surroundings``). Nothing is computed, and everything is left as
it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import nn

from memest.errors import MemestError, ShapeError, UsageError, kind_of
from memest.network.graph import Graph
from memest.sizes.dims import resolve
from memest.sources.assumptions import Assumptions
from memest.sources.importers.torch.assuming.asking import asked_at_once
from memest.sources.importers.torch.contexts.watching import prepared
from memest.sources.importers.torch.network import _ONE_AT_A_TIME
from memest.sources.importers.torch.recording.sizes import MOST_RECORDED, described_where
from memest.sources.importers.torch.steps.branching import decided, same
from memest.sources.importers.torch.steps.calls import Call, name_of
from memest.sources.importers.torch.steps.lightning import is_lightning, trained
from memest.sources.importers.torch.steps.steady import Question, steady


def from_step(
    function: Any,
    examples: Sequence[Any] = (),
    *,
    name: str | None = None,
    cleared: bool = False,
    assume: Mapping[str, Any] | None = None,
) -> Graph:
    """The graph of one call ``function(*examples)`` in the midst of training: what the steps before left stands at its beginning. An
    example is a shape, a tensor, or a sequence or mapping of them; whatever else stands there is given as it is. ``cleared``: somebody sets
    all gradients to None before each call. ``assume`` states how many elements masks pick and the like (``memest.sources.assumptions``). A
    LightningModule is trained by its ``training_step`` on a batch, the one example.

    Raises UnsupportedError for what has no rule, GraphError for an exception of the function's own code, UsageError for what is no function
    or where no step is like the next; each names the line."""
    if is_lightning(function):
        called = name or type(function).__name__
        return trained(function, lambda step: from_step(step, examples, name=called, cleared=cleared, assume=assume))
    if not callable(function) or isinstance(function, type | nn.Module):
        raise UsageError(f"step takes a function that trains one step, or a LightningModule, got {kind_of(function)}")
    assumptions = Assumptions(assume)
    call = Call(function, examples)
    called = name or name_of(function)

    def found(stated: Assumptions) -> Graph:
        surroundings = call.surroundings()
        call.examples.settle(surroundings.modules.values())
        question, (graph, taken, _) = decided(Question(called, call, surroundings, cleared, stated))
        return graph if taken is None else described_where(graph, partial(_same_graph, question, graph), taken, MOST_RECORDED)

    with _ONE_AT_A_TIME, prepared():
        graph = asked_at_once(assumptions, found)
    assumptions.check_used()
    return graph


def _same_graph(question: Question, graph: Graph, sizes: Mapping[str, int]) -> bool | None:
    """Whether the step is the same at other sizes, by recording its calls there; None where an operator cannot run there."""
    there = question.call.at({i.name: resolve(i.shape, sizes) for i in graph.inputs})
    try:
        other = steady(question._replace(call=there, found=there.surroundings(), look=False)).graph
    except ShapeError:
        return None
    except MemestError:
        return False
    return same(_freely(other), _freely(graph))


def _freely(graph: Graph) -> Graph:
    """The graph without its conditions."""
    return graph.with_(guards=(), beginning=None if graph.beginning is None else graph.beginning.with_(guards=()))
