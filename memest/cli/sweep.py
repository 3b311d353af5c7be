"""``memest sweep``: the peak over a product of sizes and settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from memest.cli import options as o

if TYPE_CHECKING:
    from memest.cli.request import Request


@o.asking()
def run(
    request: Request,
    axes: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--axis", metavar="NAME=VALUES", help="batch=1..64, H=W=32..512:32, optimizer=sgd,adam; repeat for each axis."),
    ] = None,
    skip: Annotated[bool, typer.Option("--skip-invalid", help="Leave out sizes the network cannot run at, instead of stopping.")] = False,
    memory: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--memory", metavar="SIZE", help="What the sweep itself may take, such as 8GiB (default: what is available)."),
    ] = None,
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
    from memest.cli.output import agreed, show
    from memest.cli.planning import swept
    from memest.render.fits import sweep_report

    form = agreed(form, output)
    graph, found = swept(request, axes or (), skip, memory, form)
    show(sweep_report(found, graph.name), form, output)
