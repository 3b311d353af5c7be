"""``memest layers``: one row a layer, with what it owns and what of it is kept for backward."""

from __future__ import annotations

from memest.cli import options as o


def run(
    model: o.Model,
    inputs: o.Inputs = None,
    batch: o.Batch = None,
    train: o.Train = True,
    optimizer: o.Optimizer = "sgd",
    loss: o.Loss = "cross_entropy",
    dtype: o.Dtype = None,
    device: o.Device = "cpu",
    levers: o.Levers = None,
    threads: o.Threads = None,
    isa: o.IsaOption = None,
    torch: o.TorchOption = None,
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
    typed = locals()
    from memest.cli.output import agreed, show
    from memest.cli.request import answer, requested
    from memest.estimate.holdings import layer_table
    from memest.render.reports import layers_report

    form = agreed(form, output)
    _, estimate = answer(requested(typed))
    show(layers_report(estimate, layer_table(estimate)), form, output)
