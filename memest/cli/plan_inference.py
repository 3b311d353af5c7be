"""``memest plan-inference``: what each planner takes for one inference call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from memest.cli import options as o
from memest.cli.words import option

if TYPE_CHECKING:
    from memest.cli.request import Request


@o.asking(without=("mode", "optimizer", "loss", "hold_output", "first_step"))
def run(
    request: Request,
    alignment: Annotated[int, option("--alignment", metavar="BYTES", help="What sizes are rounded up to, a power of two.")] = 64,
    planner: Annotated[str, option("--planner", metavar="NAME", help="Whose offsets CSV lists.")] = "greedy_by_size",
    form: o.FormatOption = None,
    output: o.Output = None,
) -> None:
    """Lay one inference call out in memory, by several planners, against no reuse at all.

    Without --runtime the call is ideal: every operator allocates its outputs and nothing else; --on CARD
    is torch's CUDA build there. CSV lists the blocks, a line each, with the events between which they live and their offsets
    (id,lower,upper,size: what minimalloc reads).

    \b
    Examples:
      memest plan-inference unet3d --input 1x128x128x128 --batch 1
      memest plan-inference resnet50 --input 3x224x224 --batch 8 --runtime torch-cpu
      memest plan-inference resnet50 --input 3x224x224 --batch 8 --on a100-40gb
      memest plan-inference unet3d --input 1x64x64x64 --batch 1 --format csv --output blocks.csv

    \b
    Exit codes: 0 done, 2 usage, 3 invalid model.
    """
    from memest.cli.output import agreed, show
    from memest.cli.request import planned
    from memest.planning.inference import planner_named
    from memest.render.planners import inference_report

    form = agreed(form, output)
    chosen = planner_named(planner)
    show(inference_report(planned(request, alignment), chosen), form, output)
