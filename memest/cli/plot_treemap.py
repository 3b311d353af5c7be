"""``memest plot treemap``: what is alive at the peak, as areas."""

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
    """Draw what is alive at the peak of a step, as areas by category and owner.

    In the terminal a list of bars: the categories, and the largest owners.

    \b
    Examples:
      memest plot treemap unet3d --input 1x64x64x64 --batch 1 --optimizer adam --loss binary_cross_entropy
      memest plot treemap resnet18 --input 3x224x224 --batch 8 --output treemap.png

    \b
    Exit codes: 0 done, 2 usage, 3 invalid model.
    """
    from memest.cli.answering import answered
    from memest.cli.plot import draw, form_of
    from memest.render import chart
    from memest.render.plot import treemap

    if output is not None:
        form_of(output)
    _, estimate = answered(request)
    draw(output, lambda **looks: chart.treemap(estimate, **looks), lambda form: treemap.render(estimate, form))
