"""The runtimes by name, each imported when it is asked for; and a step played on the one that its recipe names."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from memest.errors import UsageError, did_you_mean
from memest.machines.target import Target
from memest.machines.versions import Torch, torch_of
from memest.memory.stream import Stream
from memest.network.graph import Graph
from memest.network.tensor import Shape
from memest.runtimes.runtime import Runtime
from memest.runtimes.torch.step.recipe import Recipe

RUNTIMES = {
    "torch-cpu": "memest.runtimes.torch.cpu",
    "torch-cuda": "memest.runtimes.torch.cuda.runtime",
    "onnxruntime": "memest.runtimes.onnxruntime.runtime",
    "openvino": "memest.runtimes.openvino.runtime",
    "tensorflow-cpu": "memest.runtimes.tensorflow.runtime",
    "null": "memest.runtimes.null",
}
DEVICES = {"cpu": "torch-cpu", "cuda": "torch-cuda"}  # what torch's devices are short for


def runtime_named(name: str) -> Runtime:
    """The runtime of a name; UsageError for a name that is none."""
    home = RUNTIMES.get(name)
    if home is not None:
        runtime: Runtime = import_module(home).RUNTIME
        return runtime
    hint = did_you_mean(name, RUNTIMES) or f"; there are {', '.join(RUNTIMES)}"
    raise UsageError(f"unknown runtime {name!r}{hint}")


def play(graph: Graph, input_shapes: Mapping[str, Shape], sizes: Mapping[str, int], recipe: Recipe, *, remember: bool = True) -> Stream:
    """The stream of one step on the runtime of ``recipe.target``; see :meth:`memest.runtimes.runtime.Runtime.play`."""
    return runtime_named(recipe.target.runtime).play(graph, input_shapes, sizes, recipe, remember=remember)


def torch_behind(target: Target, recorded: str | None) -> Torch:
    """Which torch a result on a target speaks of, of a network that was ``recorded`` with a torch; of an engine, which engine."""
    engine = "" if target.engine is None else runtime_named(target.runtime).measured(target)
    return torch_of(target.version, recorded, engine)
