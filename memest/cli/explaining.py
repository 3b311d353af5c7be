"""From the words of ``explain`` to its answer."""

from __future__ import annotations

from memest.cli.answering import answered
from memest.cli.inputs import torch_example
from memest.cli.request import Request
from memest.errors import UsageError
from memest.estimate.question import resolved
from memest.planning.peers.explaining import Explanation, explain
from memest.planning.peers.mem_tracker import mem_tracker, silent
from memest.planning.peers.of_graph import modules_of_graph
from memest.sources.opening import is_torch, modules_of

GIVE_CODE = "it runs the module itself: give torch code, such as torchvision.models:resnet18"


def explained(request: Request) -> Explanation:
    """Every tool's figure beside the estimate that ``request`` asks for."""
    graph, estimate = answered(request)
    if graph.step:
        raise UsageError(f"explain takes a network, and {graph.name} is a whole training step: name the module alone")
    if not is_torch(request.model):
        return explain(estimate, modules_of_graph(estimate), silent(GIVE_CODE, None))
    asking = estimate.question
    names = resolved(asking)
    example = torch_example(request.inputs or (), request.batch)
    modules, tracked = modules_of(request.model, example, asking.mode, names.optimizer, names.loss)
    if asking.levers or asking.dtype is not None:
        tracked = "it is asked about the module as it stands: leave out --lever and --dtype"
    tracker = silent(tracked, graph.torch) if isinstance(tracked, str) else mem_tracker(tracked, graph.torch or "")
    return explain(estimate, modules, tracker)
