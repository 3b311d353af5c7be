"""``memest fit``: the largest sizes whose step fits a budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

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
    vary: Annotated[str, option("--vary", metavar="SIZES", help="batch, H, H=W=D; several joined by commas; or patch.")] = "batch",
    step: Annotated[Optional[int], option("--step", min=1, metavar="N", help="Sizes that vary are multiples of N.")] = None,  # noqa: UP045
    form: o.FormatOption = None,
    output: o.Output = None,
) -> int | None:
    """Find the largest batch or size that fits.

    --input gives the sizes that do not vary (a torch model is imported at it). Several sizes that vary give the front: every pair of
    which none can grow without the other shrinking.

    --on a CUDA card plays the step for that card and holds the whole process on it (what the allocator reserves, context, kernels) against
    its memory, or against --budget where both are given. On other accelerators, and with --device cpu, it is torch CPU's bytes, and the
    result says what is missing.

    --vary patch grows all sizes but the batch in the proportions of --input, or of the patch that nnU-Net's plans have.

    \b
    Examples:
      memest fit nnUNetPlans.json --configuration 3d_fullres --on rtx-4090 --vary patch --batch 2
      memest fit resnet50 --budget 24GiB --input 3x224x224 --optimizer adam
      memest fit unet3d --budget 24GiB --vary D=H=W --batch 1 --optimizer adam --loss binary_cross_entropy
      memest fit unet3d --on a100-40gb --vary batch,D=H=W --loss binary_cross_entropy
      memest fit resnet50 --budget 512MiB --input 3x64x64 --infer --format json

    \b
    Exit codes: 0 something fits, 1 nothing fits, 2 usage, 3 invalid model.
    """
    from memest.cli.output import DOES_NOT_FIT, agreed, show
    from memest.cli.planning import fitted, place_of
    from memest.render.fits import fit_report

    form = agreed(form, output)
    request = request.run_on(on or ())
    graph, found = fitted(request, place_of(on, budget, hardware, request.card), vary, step)
    show(fit_report(found, graph.name), form, output)
    return None if found.bytes_fit else DOES_NOT_FIT
