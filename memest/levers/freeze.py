"""``freeze``: parameters of named modules are not trained. What autograd then need not keep follows from the operators' rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from memest.errors import UnknownNameError, did_you_mean
from memest.levers.checks import flag, words
from memest.levers.lever import REQUIRED, Lever, Option, Options
from memest.network.graph import Graph, Layer
from memest.ops.table import operator_named
from memest.runtimes.torch.step.recipe import Recipe


def _change(graph: Graph, recipe: Recipe, options: Options) -> tuple[Graph, Recipe]:
    modules: tuple[str, ...] = options["modules"]
    trained = [p.name for p in graph.parameters if not p.buffer]
    for module in modules:
        if not any(inside(name, (module,)) for name in trained):
            raise UnknownNameError(f"freeze: no parameter lies in {module!r}{did_you_mean(module, _modules(trained))}")
    parameters = tuple(replace(p, trainable=p.trainable and not inside(p.name, modules)) for p in graph.parameters)
    layers = graph.layers
    if options["eval"]:
        layers = tuple(_evaluated(layer) if inside(layer.name, modules) else layer for layer in layers)
    return graph.with_(parameters=parameters, layers=layers), recipe


def inside(name: str, modules: tuple[str, ...]) -> bool:
    """True when ``name`` is one of ``modules`` or lies in one, by its dotted path."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def _modules(names: Iterable[str]) -> list[str]:
    """Every dotted prefix of ``names``."""
    parts = [name.split(".") for name in names]
    return list(dict.fromkeys(".".join(path[: n + 1]) for path in parts for n in range(len(path))))


def _evaluated(layer: Layer) -> Layer:
    """``module.eval()``: what would follow the mode of the step does not any more."""
    entry = operator_named(layer.op)
    given = dict(layer.attributes)
    if not any(a.name == "training" for a in entry.attributes) or given.get("training") is not None:
        return layer
    return replace(layer, attributes=tuple({**given, "training": False}.items()))


FREEZE = Lever(
    summary="do not train the parameters of named modules (requires_grad_(False))",
    price="frozen modules do not learn; what lies behind the first trained one is still kept for backward",
    options={
        "modules": Option(default=REQUIRED, check=words, summary="dotted paths of modules or parameters, joined by +"),
        "eval": Option(default=False, check=flag, summary="put the frozen modules in eval mode too (batch norm, dropout)"),
    },
    modes=("train",),
    excludes=(),
    change=_change,
    source="torch.nn.Module.requires_grad_, Module.eval; derivatives.yaml by way of the rows",
)
