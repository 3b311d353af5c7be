"""``memest plot timeline``: categories stacked over the events of a step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memest.cli import options as o
from memest.cli.plot import Picture

if TYPE_CHECKING:
    from memest.cli.request import Request


@o.asking()
def run(
    request: Request,
    output: Picture = None,
) -> None:
    """Draw what is alive over the events of a step, by category.

    Resident bytes lie at the bottom, phases are shaded, the peak is marked with its layer.

    \b
    Examples:
      memest plot timeline unet3d --input 1x64x64x64 --batch 1 --optimizer adam --loss binary_cross_entropy
      memest plot timeline resnet18 --input 3x224x224 --batch 8 --output timeline.svg

    \b
    Exit codes: 0 done, 2 usage, 3 invalid model.
    """
    from memest.cli.answering import answered
    from memest.cli.plot import draw, form_of
    from memest.render import chart
    from memest.render.plot import timeline

    if output is not None:
        form_of(output)
    _, estimate = answered(request)
    draw(output, lambda **looks: chart.timeline(estimate, **looks), lambda form: timeline.render(estimate, form))
