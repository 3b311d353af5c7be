"""``memest compare``: two estimates side by side, and what moved."""

from __future__ import annotations

from typing import Annotated, Optional

from memest.cli import complete
from memest.cli import options as o
from memest.cli.words import argument, option


def run(
    model: o.Model,
    other: Annotated[
        Optional[str],  # noqa: UP045
        argument(metavar="[OTHER]", autocompletion=complete.models, help="The model of b (default: the same)."),
    ] = None,
    versus: o.Versus = None,
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
    top: Annotated[int, option("--top", min=0, metavar="N", help="How many of the layers that moved most the table lists.")] = 15,
    form: o.FormatOption = None,
    output: o.Output = None,
) -> None:
    """Compare two estimates, category by category and layer by layer.

    The options hold for both sides, a and b; what is different in b is OTHER, --versus SETTING=VALUE, or both.

    \b
    Examples:
      memest compare resnet50 resnet101 --input 3x224x224 --batch 8
      memest compare unet3d --input 1x64x64x64 --batch 1 --versus optimizer=adam --versus batch=2 --loss binary_cross_entropy
      memest compare resnet18 --input 3x224x224 --batch 8 --versus mode=infer --format csv

    \b
    Exit codes: 0 done, 2 usage, 3 invalid model.
    """
    typed = locals()
    from memest.cli.output import agreed, show
    from memest.cli.request import answer, changed, requested
    from memest.errors import UsageError
    from memest.planning.compare import compare
    from memest.render.comparison import comparison_report

    form = agreed(form, output)
    if other is None and not versus:
        raise UsageError("nothing to compare with: name a second model, or give --versus, such as --versus optimizer=adam")
    a = requested(typed)
    b = changed(a, versus or (), model=other)
    _, first = answer(a)
    _, second = answer(b, said=first.notes)
    show(comparison_report(compare(first, second), top), form, output)
