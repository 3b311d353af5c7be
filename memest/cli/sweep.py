"""``memest sweep``: the peak over a product of sizes and settings."""

from __future__ import annotations

from typing import Annotated, Optional

from memest.cli import options as o
from memest.cli.words import option


def run(
    model: o.Model,
    axes: Annotated[
        Optional[list[str]],  # noqa: UP045
        option("--axis", metavar="NAME=VALUES", help="batch=1..64, H=W=32..512:32, optimizer=sgd,adam; repeat for each axis."),
    ] = None,
    inputs: o.Inputs = None,
    batch: o.Batch = None,
    train: o.Train = True,
    optimizer: o.Optimizer = "sgd",
    loss: o.Loss = "cross_entropy",
    dtype: o.Dtype = None,
    device: o.Device = "cpu",
    levers: o.Levers = None,
    skip: Annotated[bool, option("--skip-invalid", help="Leave out sizes the network cannot run at, instead of stopping.")] = False,
    memory: Annotated[
        Optional[str],  # noqa: UP045
        option("--memory", metavar="SIZE", help="What the sweep itself may take, such as 8GiB (default: what is available)."),
    ] = None,
    threads: o.Threads = None,
    isa: o.IsaOption = None,
    torch: o.TorchOption = None,
    form: o.FormatOption = None,
    output: o.Output = None,
) -> None:
    """Estimate a whole product of sizes, optimizers, losses, dtypes and modes at once.

    VALUES are numbers joined by commas, or a range: first..last, first..last:step. --input and --batch give the sizes that have no axis.

    \b
    Examples:
      memest sweep resnet50 --axis batch=1..64 --axis H=W=64..512:32 --optimizer adam
      memest sweep unet3d --axis batch=1,2 --axis D=H=W=32..128:16 --axis optimizer=sgd,adam --loss binary_cross_entropy -f csv -o peaks.csv

    \b
    Exit codes: 0 done, 2 usage, 3 invalid model.
    """
    typed = locals()
    from memest.cli.output import agreed, show
    from memest.cli.planning import swept
    from memest.cli.request import requested
    from memest.render.fits import sweep_report

    form = agreed(form, output)
    request = requested(typed)
    graph, found = swept(request, axes or (), skip, memory, form)
    show(sweep_report(found, graph.name), form, output)
