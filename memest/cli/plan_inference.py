"""``memest plan-inference``: what each planner takes for one inference call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

from memest.cli import options as o
from memest.cli.words import option

if TYPE_CHECKING:
    from memest.cli.request import Request


@o.asking(without=("mode", "optimizer", "loss", "hold_output", "first_step"))
def run(
    request: Request,
    alignment: Annotated[int, option("--alignment", metavar="BYTES", help="What sizes are rounded up to, a power of two.")] = 64,
    planner: Annotated[str, option("--planner", metavar="NAME", help="Whose offsets CSV lists.")] = "greedy_by_size",
    factor: Annotated[str, option("--factor", metavar="NUMBER", help="Name the smallest change that needs so many times less.")] = "16",
    halo: Annotated[
        Optional[str],  # noqa: UP045 - it is read at run time
        option("--halo", metavar="SIZE", help="What windows drop on each side, 16 or 16x16x8 (default: all that the network sees)."),
    ] = None,
    form: o.FormatOption = None,
    output: o.Output = None,
) -> None:
    """Lay one inference call out in memory, by several planners, against no reuse at all.

    Without --runtime the call is ideal: every operator allocates its outputs and nothing else; --on CARD
    is torch's CUDA build there. CSV lists the blocks, a line each, with the events between which they live and their offsets
    (id,lower,upper,size,offset: what minimalloc reads). Of the ideal call a second table says how far its memory comes down,
    by what and at what price: places shared, another order, other dtypes, windows.

    \b
    Examples:
      memest plan-inference unet3d --input 1x128x128x128 --batch 1
      memest plan-inference unet3d:levels=4 --input 1x160x160x160 --batch 1 --factor 16 --halo 16
      memest plan-inference resnet50 --input 3x224x224 --batch 8 --runtime torch-cpu
      memest plan-inference resnet50 --input 3x224x224 --batch 8 --on a100-40gb
      memest plan-inference unet3d --input 1x64x64x64 --batch 1 --format csv --output blocks.csv

    \b
    Exit codes: 0 done, 2 usage, 3 invalid model.
    """
    from memest.cli.answering import planned
    from memest.cli.output import agreed, show
    from memest.cli.words import said
    from memest.levers.checks import halo_extents, positive_number
    from memest.planning.inference import NULL, planner_named
    from memest.render.planners import inference_report

    form = agreed(form, output)
    chosen = planner_named(planner)
    wanted, windows = said("--factor", factor, positive_number), None if halo is None else said("--halo", halo, halo_extents)
    found = planned(request, alignment)
    reach = found.reach(wanted, windows) if found.estimate.runtime == NULL else None
    show(inference_report(found, chosen, reach), form, output)
