"""``memest layers``: one row a layer, with what it owns and what of it is kept for backward."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memest.cli import options as o

if TYPE_CHECKING:
    from memest.cli.request import Request


@o.asking()
def run(
    request: Request,
    form: o.FormatOption = None,
    output: o.Output = None,
) -> None:
    """List the layers and what each keeps for backward.

    Output shape, parameters, and activation bytes counted once by storage: in place and shared tensors are not counted twice.

    \b
    Examples:
      memest layers resnet50 --input 3x224x224 --batch 8
      memest layers net.yaml --input 3x64x64 --batch 1 --infer --format markdown

    \b
    Exit codes: 0 done, 2 usage, 3 invalid model.
    """
    from memest.cli.answering import answered
    from memest.cli.output import agreed, show
    from memest.estimate.holdings import layer_table
    from memest.render.reports import layers_report

    form = agreed(form, output)
    _, estimate = answered(request)
    show(layers_report(estimate, layer_table(estimate)), form, output)
