"""``memest formula``: the closed form of the peak."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING, Annotated

from memest.cli import options as o
from memest.cli.words import option

if TYPE_CHECKING:
    from memest.cli.request import Request


class Notation(str, Enum):
    """How the formula itself is written."""

    text = "text"
    latex = "latex"
    python = "python"
    javascript = "javascript"


NOTATIONS = {".tex": "latex", ".py": "python", ".js": "javascript"}


@o.asking()
def run(
    request: Request,
    notation: Annotated[Notation, option("--as", help="Text, LaTeX, or the source of a function.")] = Notation.text,
    every: Annotated[bool, option("--all", help="Every moment that could be the peak, not only the one that is.")] = False,
    layers: Annotated[bool, option("--layers", help="A row for each layer too.")] = False,
    form: o.FormatOption = None,
    output: o.Output = None,
) -> None:
    """Write the peak as a formula of the batch and the spatial sizes, in bytes.

    The formula is exact where its conditions hold. On a card (--on) it is that of the bytes requested, before the allocator rounds them
    into blocks; what is allocated, reserved and shown at the sizes given stands beside it, by replay. It is written around the sizes
    given: of a built-in model, without --input, around its usual ones.

    \b
    Examples:
      memest formula resnet50 --train
      memest formula unet3d --input 1x128x128x128 --batch 2 --infer --layers
      memest formula resnet50 --input 3x224x224 --batch 8 --as latex
      memest formula mobilenet_v2 --all --format json
      memest formula resnet50 --on a100-40gb

    \b
    Exit codes: 0 done, 2 usage, 3 invalid model.
    """
    from memest.cli.answering import answered, usual_inputs
    from memest.cli.output import SUFFIXES, agreed, show, write
    from memest.errors import UsageError
    from memest.render.formulas import formula_report

    if notation is Notation.text:
        form = agreed(form, output)
    elif form is not None or layers:
        raise UsageError(f"--as {notation.value} writes the formula alone; leave out {'--layers' if layers else '--format'}")
    elif output is not None and {**SUFFIXES, **NOTATIONS}.get(output.suffix.lower(), notation.value) != notation.value:
        raise UsageError(f"--output {output} is not written as --as {notation.value} does; change one of them")
    if request.inputs is None:
        inputs, batch = usual_inputs(request.model, request.batch)
        request = replace(request, inputs=inputs, batch=batch)
    _, estimate = answered(request)
    formula = estimate.formula()
    if notation is Notation.text:
        show(formula_report(formula, every=every, layers=layers), form, output)
    elif notation is Notation.latex:
        write(formula.latex(all=every), output)
    else:
        write(formula.python() if notation is Notation.python else formula.javascript(), output)
