"""``memest plot sizes``: the peak against the side of the input, a line a batch, with capacities."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from memest.cli import options as o
from memest.cli.plot import Picture

Sides = Annotated[str, typer.Option("--sides", metavar="N,N,...", help="What every spatial size of the input is set to.")]
Batches = Annotated[str, typer.Option("--batches", metavar="N,N,...", help="Batch sizes, a line each.")]
Capacity = Annotated[
    Optional[list[str]],  # noqa: UP045 - typer reads it at run time
    typer.Option("--capacity", metavar="[NAME=]SIZE", help="A line to compare with, such as 1.5TB or gpu=40GiB; repeat for several."),
]
ORIGIN = ["192 GB", "384 GB", "1.5 TB", "7.5 TB"]  # servers of the study that memest began with, in DRAM and with persistent memory


def run(
    model: o.Model,
    inputs: o.Inputs = None,
    sides: Sides = "32,64,128,144,200,240,320",
    batches: Batches = "1,2,4,8,16",
    capacity: Capacity = None,
    train: o.Train = True,
    optimizer: o.Optimizer = "sgd",
    loss: o.Loss = "cross_entropy",
    dtype: o.Dtype = None,
    hold_output: o.HoldOutput = False,
    first_step: o.FirstStep = False,
    threads: o.Threads = None,
    isa: o.IsaOption = None,
    torch: o.TorchOption = None,
    form: o.FormatOption = o.Format.text,
    output: Picture = None,
) -> None:
    """Draw the peak against the size of the input and the batch.

    Sides are cubes for volumes and squares for images. A side at which the network cannot run is left out, with the reason. A torch model
    needs --input, the shape it is imported at. In the terminal a table, which --format writes as data.

    \b
    Examples:
      memest plot sizes unet3d:levels=4 --sides 32,64,128 --batches 1,2 --optimizer adam --output sizes.svg
      memest plot sizes resnet50 --sides 64,128,224 --batches 1,8,64 --capacity gpu=40GiB --format csv

    \b
    Exit codes: 0 done, 2 usage, 3 invalid model.
    """
    typed = locals()
    from memest.cli.output import show, write
    from memest.cli.plot import capacities, form_of, numbers
    from memest.cli.request import grow, requested
    from memest.render.plot import sizes as picture
    from memest.render.sizes import sizes_report

    suffix = None if output is None else form_of(output)
    lines = capacities(ORIGIN if capacity is None else capacity)
    request = requested(typed)
    found = grow(request, numbers(sides, "--sides"), numbers(batches, "--batches"))
    if suffix is None:
        show(sizes_report(found, lines), form, None)
    else:
        write(picture.render(found, lines, suffix), output)
