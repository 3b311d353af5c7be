"""From a request to its answer: the model opened with its inputs, the question put to it, what plans called with both."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from memest.cli.inputs import Given, open_with_inputs
from memest.cli.request import Request, cuda_words, is_cuda_card
from memest.errors import GraphError, MemestError, UnsupportedError, UsageError
from memest.estimate.estimate import Estimate, answer
from memest.estimate.question import NAMES, Question
from memest.machines.gpu import Gpu
from memest.machines.versions import torch_of, version_for
from memest.network.graph import Graph
from memest.planning.growth import Growth, growth
from memest.sizes.dims import Expr
from memest.sources.opening import is_torch, open_model

if TYPE_CHECKING:
    from memest.machines.entry import Hardware
    from memest.planning.cluster import ClusterPlan
    from memest.planning.inference import InferencePlan
    from memest.planning.page import PageModel
    from memest.planning.volumes import VolumePlan


def answered(request: Request, said: Collection[str] = ()) -> tuple[Graph, Estimate]:
    """The graph and the estimate that ``request`` asks for; ``said`` are warnings not to be repeated."""
    _ = request.question
    graph, shapes = open_with_inputs(request.model, request.inputs, request.batch, request.mode, assume=request.assume)
    asking = request.question_of(graph)
    warn(asking, graph, said)
    try:
        return graph, answer(graph, asking, shapes)
    except (GraphError, UnsupportedError) as e:
        raise e.at(request.model) from e.__cause__


def elsewhere(request: Request, graph: Graph, estimate: Estimate, place: Hardware) -> Estimate:
    """The estimate that says whether the step fits at ``place``: played for it where it is another card than the one of ``estimate``."""
    played = estimate.machine
    if not isinstance(played, Gpu) or played.name == place.name or not is_cuda_card(place.name):
        return estimate
    return answer(graph, replace(request, card=place.name).question_of(graph), dict(estimate.input_shapes))


def planned(request: Request, alignment: int) -> InferencePlan:
    """The plans of one inference call, on the null runtime where no other is asked for."""
    from memest.planning.inference import plan_inference

    given = {"runtime": "null"} if "device" not in request.settings and request.card is None else {}
    request = replace(request, settings={**given, **request.settings, "mode": "infer"})
    runtime = request.question.runtime
    graph, shapes = open_with_inputs(request.model, request.inputs, request.batch, "infer", runtime, request.assume)
    asking = request.question_of(graph)
    warn(asking, graph)
    try:
        return plan_inference(graph, input_shape=shapes, alignment=alignment, **keywords(asking))
    except (GraphError, UnsupportedError) as e:
        raise e.at(request.model) from e.__cause__


def cut(request: Request, **how: Any) -> VolumePlan:
    """The ways to predict one volume; ``how`` are the other keywords of ``plan_volume``."""
    from memest.planning.volumes import plan_volume

    request = replace(request, settings={**request.settings, "mode": "infer"})
    _ = request.question
    graph, shapes = open_with_inputs(request.model, request.inputs, request.batch, "infer", assume=request.assume)
    asking = request.question_of(graph)
    warn(asking, graph)
    try:
        return plan_volume(graph, input_shape=shapes, **how, **keywords(asking))
    except (GraphError, UnsupportedError) as e:
        raise e.at(request.model) from e.__cause__


def spread(request: Request, volume: str | None, batch: int | None, places: Sequence[Hardware], **how: Any) -> ClusterPlan:
    """The layouts of a global ``batch`` of volumes; ``how`` are the other keywords of ``plan_cluster``. UsageError for what is missing,
    or stands twice."""
    from memest.planning.cluster import plan_cluster
    from memest.planning.exchanges import exchange_named

    if volume is not None and request.inputs:
        raise UsageError("--volume and --input both say what one volume is; give one of them")
    if volume is not None:
        request = replace(request, inputs=[volume])
    if batch is None:
        raise UsageError("say how many volumes a step takes on all ranks: --global-batch 16")
    if len(places) != 1:
        raise UsageError(f"give one kind of node, not {len(places)}: --on server-1.5tb, or --budget 192GiB a node")
    cards = places[0].name if places[0].kind == "accelerator" else next(iter(sorted(cuda_words(request.settings))), None)
    if cards is not None:
        named = f"{cards} is an accelerator" if places[0].kind == "accelerator" else f"--{cards} {request.settings[cards]} is a card's"
        raise UsageError(
            f"memest cluster plans servers' processors, and {named}; of cards ask memest estimate --on h100-80gb --lever ddp:world=8"
        )
    request = replace(request, batch=batch)
    _ = request.question
    try:
        exchange_named(how["exchange"])
    except MemestError as e:
        raise UsageError(str(e)) from None
    graph, shapes = open_with_inputs(request.model, request.inputs, batch, "train", assume=request.assume)
    asking = request.question_of(graph)
    warn(asking, graph)
    if shapes is None or len(shapes) != 1:
        raise UsageError(f"memest cluster takes networks of one input, given as --volume; {graph.name} has {len(graph.inputs)}")
    try:
        one = next(iter(shapes.values()))[1:]
        return plan_cluster(graph, global_batch=batch, input_shape=one, on=places[0], **how, **keywords(asking))
    except UsageError as e:
        text = re.sub(r"\branks_per_(node|socket)\b", r"--ranks-per-\1", str(e))
        raise UsageError(text.replace("plan_cluster", "memest cluster")) from None
    except (GraphError, UnsupportedError) as e:
        raise e.at(request.model) from e.__cause__


def usual_inputs(model: str, batch: int | None) -> tuple[list[str] | None, int | None]:
    """--input and --batch for a built-in model when no shape is given: its usual image, 8 of them, or a volume of 64 cubed, 2 of them."""
    from memest.sources.models import MODELS

    known = MODELS.get(model.partition(":")[0])
    if known is None or is_torch(model):
        return None, batch
    graph = open_model(model)
    if len(graph.inputs) != 1 or len(graph.inputs[0].shape) != len(known.input_shape) + 1:
        return None, batch
    channels = graph.inputs[0].shape[1]
    volume = len(known.input_shape) == 4
    usual = (64, 64, 64) if volume else known.input_shape[1:]
    return ["x".join(map(str, (channels, *usual)))], batch or (2 if volume else 8)


def grow(request: Request, sides: Sequence[int], batches: Sequence[int]) -> Growth:
    """The peaks over ``sides`` and ``batches``. Only a torch model takes inputs: it is imported at them."""
    _ = request.question
    if is_torch(request.model):
        graph, _ = open_with_inputs(request.model, request.inputs, request.batch, request.mode, assume=request.assume)
    elif request.inputs:
        raise UsageError("--input is for torch models, which are imported at it; here --sides and --batches give the shape")
    else:
        graph = open_model(request.model)
    asking = request.question_of(graph)
    warn(asking, graph)
    return growth(graph, sides, batches, **keywords(asking))


def report_model(request: Request, **how: Any) -> PageModel:
    """The data of a live report; ``how`` are the other keywords of ``page_model``. Sizes not given are usual ones."""
    from memest.planning.page import page_model
    from memest.planning.page.grid import shapes_at, usual_sizes

    _ = request.question
    for optimizer in how.get("optimizers", ()):
        _ = replace(request, settings={**request.settings, "optimizer": optimizer}).question
    model, batch = request.model, request.batch
    if is_torch(model) or request.inputs:
        graph, shapes = open_with_inputs(model, request.inputs, batch, request.mode, assume=request.assume)
    else:
        graph = open_model(model)
        sizes = usual_sizes(graph)
        head = next(iter(graph.inputs)).shape[:1]
        if batch is not None:
            sizes |= {d.text: batch for d in head if isinstance(d, Expr)}
        shapes = shapes_at(graph, sizes)
    asking = request.question_of(graph)
    warn(asking, graph)
    if graph.usual is not None and asking.training:
        how = {"optimizers": (asking.optimizer,), **how}
    try:
        return page_model(graph, input_shape=graph_shapes(graph, shapes), **how, **keywords(asking))
    except (GraphError, UnsupportedError) as e:
        raise e.at(model) from e.__cause__


def keywords(asking: Question) -> dict[str, Any]:
    """A question as the keywords of the functions that estimate."""
    return {name: getattr(asking, name) for name in NAMES}


def graph_shapes(graph: Graph, shapes: Given | None) -> Given:
    """The shapes given, or the graph's own where they are numbers."""
    return shapes if shapes is not None else {i.name: tuple(d for d in i.shape if isinstance(d, int)) for i in graph.inputs}


def warn(asking: Question, graph: Graph, said: Collection[str] = ()) -> None:
    """A torch at hand that is not modelled is named on stderr, if not ``said`` yet."""
    warning = torch_of(version_for(asking.torch, graph.torch), graph.torch).warning
    if warning and warning not in said:
        print(f"memest: warning: {warning}", file=sys.stderr)
