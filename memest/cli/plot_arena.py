"""``memest plot arena``: where a planner lays the blocks of one inference call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from memest.cli import options as o
from memest.cli.plot import Picture
from memest.cli.words import option

if TYPE_CHECKING:
    from memest.cli.request import Request


@o.asking(without=("mode", "optimizer", "loss", "hold_output", "first_step"))
def run(
    request: Request,
    alignment: Annotated[int, option("--alignment", metavar="BYTES", help="What sizes are rounded up to, a power of two.")] = 64,
    planner: Annotated[str, option("--planner", metavar="NAME", help="Whose plan is drawn.")] = "greedy_by_size",
    output: Picture = None,
) -> None:
    """Draw where a planner lays what one inference call allocates.

    Events go to the right, addresses up; each block is a rectangle (see plan-inference for the planners).

    \b
    Examples:
      memest plot arena unet3d --input 1x64x64x64 --batch 1
      memest plot arena resnet18 --input 3x224x224 --batch 8 --planner best_fit --output arena.svg

    \b
    Exit codes: 0 done, 2 usage, 3 invalid model.
    """
    from memest.cli.answering import planned
    from memest.cli.plot import draw, form_of
    from memest.planning.inference import planner_named
    from memest.render import arena_chart
    from memest.render.plot import arena

    if output is not None:
        form_of(output)
    chosen = planner_named(planner)
    found = planned(request, alignment)
    draw(output, lambda **looks: arena_chart.arena(found, chosen, **looks), lambda form: arena.render(found, chosen, form))
