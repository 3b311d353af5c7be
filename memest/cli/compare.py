"""``memest compare``: two estimates side by side, and what moved."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Optional

from memest.cli import complete
from memest.cli import options as o
from memest.cli.words import argument, option

if TYPE_CHECKING:
    from memest.cli.request import Request


@o.asking(without=("torch", "cards", "runtime"))
def run(
    request: Request,
    other: Annotated[
        Optional[str],  # noqa: UP045
        argument(metavar="[OTHER]", autocompletion=complete.models, help="The model of b (default: the same)."),
    ] = None,
    versus: o.Versus = None,
    torch: Annotated[
        Optional[list[str]],  # noqa: UP045 - it is read at run time
        option("--torch", metavar="VERSION", help="Whose kernels: 2.9 to 2.14; given twice, the first is a's and the second b's."),
    ] = None,
    runtime: Annotated[
        Optional[list[str]],  # noqa: UP045
        option(
            "--runtime",
            metavar="NAME",
            autocompletion=complete.runtimes,
            help="Who runs it: torch-cpu, torch-cuda, onnxruntime or openvino; given twice, the first is a's and the second b's.",
        ),
    ] = None,
    on: Annotated[
        Optional[list[str]],  # noqa: UP045
        option(
            "--on",
            metavar="CARD",
            autocompletion=complete.machines,
            help="The card it runs on, such as h100-80gb; given twice, the first is a's and the second b's.",
        ),
    ] = None,
    top: Annotated[int, option("--top", min=0, metavar="N", help="How many of the layers that moved most the table lists.")] = 15,
    form: o.FormatOption = None,
    output: o.Output = None,
) -> None:
    """Compare two estimates, category by category and layer by layer.

    The options hold for both sides, a and b; what is different in b is OTHER, --versus SETTING=VALUE, or both.
    Of --torch given twice the second is b's: what an upgrade does, on a card with the cuDNN that each torch ships. So it is with --on and
    --runtime: one network on two cards, or on two engines. Figures that are modelled have their ranges; differences are those of what is
    expected.

    \b
    Examples:
      memest compare resnet50 resnet101 --input 3x224x224 --batch 8
      memest compare unet3d --input 1x64x64x64 --batch 1 --versus optimizer=adam --versus batch=2 --loss binary_cross_entropy
      memest compare resnet18 --input 3x224x224 --batch 8 --versus mode=infer --format csv
      memest compare resnet50 --input 3x224x224 --batch 64 --on a100-40gb --torch 2.11 --torch 2.14
      memest compare resnet50 --input 3x224x224 --batch 64 --on rtx-4090 --on h100-80gb
      memest compare unet3d --input 1x128x128x128 --batch 1 --infer --runtime onnxruntime --runtime openvino

    \b
    Exit codes: 0 done, 2 usage, 3 invalid model.
    """
    from memest.cli.answering import answered
    from memest.cli.output import agreed, show
    from memest.cli.request import changed
    from memest.errors import UsageError
    from memest.planning.compare import compare
    from memest.render.comparison import comparison_report

    form = agreed(form, output)
    for name, given in (("--torch", torch), ("--on", on), ("--runtime", runtime)):
        if given is not None and len(given) > 2:
            raise UsageError(f"{name} is given at most twice: once for both sides, or for a and then for b")
        if given is not None and len(given) == 2 and given[0] == given[1]:
            raise UsageError(f"{name} is {given[0]} for a and for b; give it once, or another for b")
    first_of = {name: given[0] for name, given in (("torch", torch), ("runtime", runtime)) if given}
    request = replace(request, settings={**request.settings, **first_of})
    if on:
        request = replace(request, card=on[0])
    twice = (("torch", torch), ("on", on), ("runtime", runtime))
    versus = [*(versus or ()), *(f"{name}={text}" for name, given in twice for text in (given or ())[1:])]
    if other is None and not versus:
        raise UsageError(
            "nothing to compare with: name a second model, or give --versus, such as --versus optimizer=adam, or --torch, --on or --runtime"
            " twice"
        )
    _, first = answered(request)
    _, second = answered(changed(request, versus, model=other), said=first.notes)
    show(comparison_report(compare(first, second), top), form, output)
