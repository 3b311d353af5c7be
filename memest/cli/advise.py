"""``memest advise``: what to change so that a step fits a budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from memest.cli import options as o
from memest.cli.words import option

if TYPE_CHECKING:
    from memest.cli.request import Request


@o.asking()
def run(
    request: Request,
    budget: o.Budget = None,
    on: o.On = None,
    hardware: o.HardwareFile = None,
    largest_batch: Annotated[bool, option("--largest-batch", help="Also the largest batch that fits, before and after.")] = False,
    every: Annotated[bool, option("--all", help="Every form of every change alone, by the bytes it saves.")] = False,
    form: o.FormatOption = None,
    output: o.Output = None,
) -> int | None:
    """Say what to change so that a step fits.

    The cheapest combination found that fits is built step by step: changes that keep the numbers come first, then those that cost time,
    that change the numbers, that need more machines. Every change is estimated alone, too: of each the gentlest form that is enough.

    --on a CUDA card plays the step for that card and holds the whole process on it (what the allocator reserves, context, kernels) against
    its memory, or against --budget where both are given. On other accelerators, and with --device cpu, it is torch CPU's bytes, and the
    result says what is missing.

    \b
    Examples:
      memest advise resnet18 --budget 150MiB --input 3x64x64 --batch 8 --optimizer adam
      memest advise unet3d --on a100-40gb --input 1x64x64x64 --batch 2 --largest-batch --loss binary_cross_entropy
      memest advise unet3d --budget 64MiB --input 1x64x64x64 --batch 2 --infer --format json

    \b
    Exit codes: 0 it fits, as it is or with changes, 1 nothing fits, 2 usage, 3 invalid model.
    """
    from memest.cli.output import DOES_NOT_FIT, agreed, show
    from memest.cli.planning import advised, place_of
    from memest.render.advice import advice_report

    form = agreed(form, output)
    request = request.run_on(on or ())
    graph, found = advised(request, place_of(on, budget, hardware, request.card), largest_batch)
    show(advice_report(found, graph.name, every=every), form, output)
    return None if found.bytes_fit else DOES_NOT_FIT
