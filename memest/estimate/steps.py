"""A user's own training step, answered like any estimate.

>>> step(train_one_batch, torch.rand(8, 3, 224, 224), torch.zeros(8, dtype=torch.int64)).peak_bytes
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from memest.estimate.estimate import Estimate, answer
from memest.estimate.question import Settings, question, refuse_said
from memest.network.tensor import Shape
from memest.sizes.dims import resolve

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from memest.network.graph import Graph


def step(
    function: Any, *examples: Any, cleared: bool = False, assume: Mapping[str, Any] | None = None, **settings: Unpack[Settings]
) -> Estimate:
    """The memory of one call ``function(*examples)`` in the midst of training: the user's own step, with its models, losses, optimizers
    and loops, recorded as it stands (:func:`memest.from_step`). ``settings`` are those of :func:`memest.estimate` that say who runs it
    and on what, and ``first_step``; what the code says itself (``optimizer``, ``loss``, ``levers``) is refused.

    Gradients that the code leaves stand when the next call begins, and are counted; ``cleared`` says that all are set to None before it.
    ``assume`` says how many there are where sizes depend on values (:func:`memest.from_torch`).
    The graph is ``played``: it can be estimated at other sizes, swept and fitted. Raises as :func:`memest.from_step` does."""
    from memest.sources.opening import from_step

    graph = from_step(function, *examples, cleared=cleared, assume=assume)
    refuse_said(graph, settings)
    return answer(graph, question(graph, dict(settings), "step"), example_shapes(graph))


def example_shapes(graph: Graph) -> dict[str, Shape]:
    """The shapes of the inputs a graph was recorded with."""
    sizes = dict(graph.examples)
    return {i.name: resolve(i.shape, sizes) for i in graph.inputs}
