"""A whole step: the network's operations; in training the loss, gradients and the optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from memest.errors import MemestError, UnsupportedError, unforeseen
from memest.network.graph import Graph, Layer
from memest.network.tensor import Shape
from memest.runtimes.rewriting import described, functional
from memest.runtimes.tensorflow.building import convolving, elementwise, normalizing, shaping
from memest.runtimes.tensorflow.building.losses import TABLE as LOSSES
from memest.runtimes.tensorflow.building.losses import loss_of
from memest.runtimes.tensorflow.building.optimizers import updated
from memest.runtimes.tensorflow.building.place import Here, Place, channels_last
from memest.runtimes.tensorflow.nodes import Net
from memest.runtimes.tensorflow.tape import differentiate
from memest.runtimes.torch.step.recipe import Recipe

TABLE: Mapping[str, Callable[[Here], None]] = {**convolving.TABLE, **normalizing.TABLE, **elementwise.TABLE, **shaping.TABLE}


def built(graph: Graph, input_shapes: Mapping[str, Shape], sizes: Mapping[str, int], recipe: Recipe, *, remember: bool) -> Net:
    """The net of one call, or of one training step. UnsupportedError for what has no rule."""
    whole = functional(graph.with_(inference=None) if recipe.training else graph)
    specs = described(whole, input_shapes, sizes, replace(recipe.target, runtime="null", engine=None), remember=remember)
    place = Place(whole, specs, sizes, recipe.training)
    for given in whole.inputs:
        shape = specs[given.name].shape if given.name in specs else tuple(input_shapes[given.name])
        place.give(given.name, place.net.input(given.name, channels_last(shape), given.dtype), len(shape) > 2)
    for layer in whole.layers:
        _layer(place, layer)
    outputs = [place.values[name] for name in whole.outputs]
    if not recipe.training:
        place.net.fetched += [v.name for v in outputs]
        return place.net
    if recipe.loss is None or recipe.optimizer is None or len(outputs) != 1:
        raise UnsupportedError("runtime tensorflow-cpu trains a network of one output with a loss and an optimizer")
    terms = recipe.loss.terms
    if len(terms) != 1 or terms[0].factor is not None or recipe.loss.weights is not None:
        raise UnsupportedError(f"no rule for loss {recipe.loss.name!r} on tensorflow-cpu; there are {', '.join(LOSSES)}")
    seeds = loss_of(place.net, terms[0].op, outputs[0])
    updated(place.net, recipe.optimizer, differentiate(place.net, seeds, place.trainable), place.trainable)
    return place.net


def _layer(place: Place, layer: Layer) -> None:
    where = f"layer {layer.name!r} ({layer.op})"
    found = TABLE.get(layer.op)
    if found is None:
        reason = f"no rule for {layer.op!r} on tensorflow-cpu; memest ops {layer.op} lists the runtimes that have one"
        raise UnsupportedError(reason).at(where)
    try:
        found(place.at(layer))
    except MemestError as e:
        raise e.at(where) from None
    except (ArithmeticError, LookupError, TypeError, ValueError, AssertionError) as e:
        raise unforeseen(e).at(where) from e
