"""``memest import``: any model as a graph file."""

from __future__ import annotations

from typing import Annotated

from memest.cli import options as o
from memest.cli.words import option

SUFFIXES = {".yaml": "yaml", ".yml": "yaml", ".json": "json"}


def run(
    model: o.Model,
    inputs: o.Inputs = None,
    batch: o.Batch = None,
    arguments: o.Arguments = None,
    arguments_file: o.ArgumentsFile = None,
    assume: o.Assumed = None,
    json: Annotated[bool, option("--json", help="JSON instead of YAML (a FILE that ends in .json is JSON too).")] = False,
    output: o.Output = None,
) -> None:
    """Write a model as a graph file (YAML or JSON).

    The file can be read, edited and estimated without torch.

    \b
    Examples:
      memest import torchvision.models:resnet50 --input 3x224x224 --batch 2 --output resnet50.yaml
      memest import "my.nets:UNet(depth=4)" --input 1x1x256x256
      memest import nets/unet.py:UNet --arg conv=torch.nn.Conv3d --args unet.yaml --input 1x1x64x64x64
      memest import unet3d:base_filters=32 --json

    \b
    Exit codes: 0 done, 2 usage, 3 invalid model.
    """
    from memest.cli.inputs import open_with_inputs
    from memest.cli.output import by_suffix, write
    from memest.cli.request import called
    from memest.errors import UsageError
    from memest.network.binding import bind
    from memest.sources import files as schema
    from memest.sources.opening import is_torch, open_model

    model = called(model, arguments or (), arguments_file)
    form = "json" if json else "yaml"
    if output is not None and output.suffix:
        form = by_suffix(output, SUFFIXES, "a graph file is")
    if json and form != "json":
        raise UsageError(f"--output {output} says {form}, --json says json; change one of them")
    examples = None
    if is_torch(model):
        graph, shapes = open_with_inputs(model, inputs, batch, assume=assume or ())
        if graph.step:
            raise UsageError(
                f"{model} is a whole training step, which no file holds: name the network alone; memest estimate takes the step"
            )
        examples = bind(graph.inputs, shapes or {})
    else:
        graph = open_model(model)
    write(schema.dumps(graph, form=form, examples=examples), output)
