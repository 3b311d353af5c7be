"""A graph that no torch module stands behind, as the modules it would be: each layer with parameters a module of its own."""

from __future__ import annotations

from memest.estimate.estimate import Estimate
from memest.network.modules import Made, ModuleCall, Modules

NO_MODULES = "it hooks the modules of torch code, and this network is a graph: give the code, such as torchvision.models:resnet18"


def modules_of_graph(estimate: Estimate) -> Modules:
    """Parameters belong to the module that their names say; a layer that reads some is a call of it. What else the code of such a network
    would be made of nobody knows, so there are no calls of blocks."""
    played = estimate.played
    tensors = {p.name: p for p in played.parameters if p.gradient_of is None and p.state_of is None}
    own: dict[str, list[str]] = {}
    for name in tensors:
        own.setdefault(_home(name), []).append(name)
    values = estimate.timeline.values
    dtypes = {i.name: i.dtype for i in played.inputs}
    calls = [
        ModuleCall(
            path=next((_home(n) for n in layer.reads if n in tensors), layer.name),
            leaf=True,
            container=False,
            result=tuple(Made(values[n].shape, values[n].dtype) for n in layer.outputs if n in values),
        )
        for layer in played.layers
    ]
    return Modules(
        name=played.name,
        inputs=tuple((name, Made(shape, dtypes[name])) for name, shape in estimate.input_shapes.items()),
        own={path: tuple(names) for path, names in own.items()} | {c.path: () for c in calls if c.path not in own},
        tensors=tensors,
        calls=tuple(calls),
        calls_as_given=None,
        no_calls=NO_MODULES,
    )


def _home(parameter: str) -> str:
    """The path of the module that a parameter's name says."""
    return parameter.rpartition(".")[0]
