"""What to know of an estimate's numbers, in sentences: what was chosen, taken for granted or left out of them."""

from __future__ import annotations

from memest.network.graph import Graph
from memest.network.tensor import Spec, nbytes
from memest.ops.table import OPERATORS
from memest.runtimes.torch.step import Recipe
from memest.shown import counted


def notes(
    graph: Graph, recipe: Recipe, optimizer: str | None, loss: str | None, unregistered_bytes: int, prediction: Spec | None
) -> tuple[str, ...]:
    """Those about the graph and its step, whose loss takes ``prediction``; a runtime and a torch have more to say."""
    return (
        *graph.notes,
        *_one_step(graph, optimizer, loss),
        *(_assumed(graph) if recipe.training else ()),
        *_standing(graph),
        *_unregistered(unregistered_bytes),
        *_about_the_loss(graph, recipe, prediction),
    )


def _one_step(graph: Graph, optimizer: str | None, loss: str | None) -> tuple[str, ...]:
    """Which step was played of a module whose own step nobody has seen."""
    if loss is None or graph.torch is None:
        return ()
    taken = "its output as the loss" if loss == "output" else f"one loss ({loss})"
    return (f"a step here is one forward, {taken}, one backward, one {optimizer} step; one with more is asked as it is: memest.step",)


def _assumed(graph: Graph) -> tuple[str, ...]:
    """What is taken for granted of values that backward goes by."""
    rows = {layer.op: OPERATORS[layer.op].facts for layer in graph.layers if layer.op in OPERATORS and layer.grad}
    told = {op: facts.assumes for op, facts in rows.items() if facts.assumes}
    return tuple(f"assumed: {what} in what {op} reads; its backward takes other ways, and more, where not" for op, what in told.items())


def _standing(graph: Graph) -> tuple[str, ...]:
    """The gradients that a step finds."""
    found = [nbytes(p.shape, p.dtype) for p in graph.parameters if p.gradient_of is not None]
    said = f"{counted(len(found), 'gradient')} ({sum(found):,} bytes) stand when the step begins, as its code leaves them"
    return (said,) if found else ()


def _unregistered(more: int) -> tuple[str, ...]:
    """The tensors that stand and that the figures do not count."""
    return (f"on top come {more:,} bytes of tensors that modules keep as plain attributes or functions cache: no buffers",) if more else ()


def _about_the_loss(graph: Graph, recipe: Recipe, prediction: Spec | None) -> tuple[str, ...]:
    """Which of several outputs it takes, and why it cannot teach the network."""
    outputs, loss = graph.outputs, recipe.loss
    if loss is None:
        return ()
    one = loss.weights is None and len(outputs) > 1
    chosen = (f"the loss takes {outputs[0]!r}, the first of {len(outputs)} outputs",) if one else ()
    return (*chosen, *(() if prediction is None else loss.notes(prediction)))
