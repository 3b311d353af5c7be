"""``memest plot treemap``: what is alive at the peak, as areas."""

from __future__ import annotations

from memest.cli import options as o
from memest.cli.plot import Picture


def run(
    model: o.Model,
    inputs: o.Inputs = None,
    batch: o.Batch = None,
    train: o.Train = True,
    optimizer: o.Optimizer = "sgd",
    loss: o.Loss = "cross_entropy",
    dtype: o.Dtype = None,
    device: o.Device = "cpu",
    hold_output: o.HoldOutput = False,
    first_step: o.FirstStep = False,
    levers: o.Levers = None,
    threads: o.Threads = None,
    isa: o.IsaOption = None,
    torch: o.TorchOption = None,
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
    typed = locals()
    from memest.cli.plot import draw, form_of
    from memest.cli.request import answer, requested
    from memest.render import chart
    from memest.render.plot import treemap

    if output is not None:
        form_of(output)
    _, estimate = answer(requested(typed))
    draw(output, lambda **looks: chart.treemap(estimate, **looks), lambda form: treemap.render(estimate, form))
