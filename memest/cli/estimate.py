"""``memest estimate``: the peak of one step, when it is reached, and what it is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from memest.cli import options as o
from memest.cli.words import option

if TYPE_CHECKING:
    from memest.cli.request import Request


@o.asking(fed=True)
def run(
    request: Request,
    on: o.On = None,
    budget: o.Budget = None,
    hardware: o.HardwareFile = None,
    top: Annotated[int, option("--top", min=0, metavar="N", help="How many of the largest holdings the table lists.")] = 10,
    form: o.FormatOption = None,
    output: o.Output = None,
) -> int | None:
    """Predict the peak memory of one step.

    A training step is zero_grad, forward, loss, backward and the optimizer; an inference call runs under no_grad.
    With --on or --budget the report says whether the peak fits, spills into a slower memory, or does not fit. --on a CUDA card plays the
    step for that card and holds the whole process on it against its memory, with the range it is known to: it may depend. Of several
    cards each is played, and has its own verdict; the tables are of the first. On other accelerators, and with --device cpu, it says
    whether torch CPU's bytes fit.

    \b
    Examples:
      memest estimate unet3d --input 1x240x240x144 --batch 16 --train --optimizer adam --loss binary_cross_entropy
      memest estimate unet3d:base_filters=32,levels=5 --input 1x128x128x128 --batch 2 --infer
      memest estimate resnet50 --input 3x224x224 --batch 8 --dtype bfloat16
      memest estimate net.yaml --input 3x224x224 --batch 8 --optimizer sgd:momentum=0.9 --format json
      memest estimate "torchvision.models:resnet50(num_classes=10)" --input 3x224x224 --batch 8
      memest estimate nets/unet.py:UNet --arg conv=torch.nn.Conv3d --args unet.yaml --input 1x64x64x64 --batch 2
      memest estimate unet3d --input 1x240x240x144 --batch 16 --on server-1.5tb --budget 2TiB --loss binary_cross_entropy
      memest estimate resnet50 --input 3x224x224 --batch 8 --lever channels_last
      memest estimate train.py:step --input x=3x224x224 --input y=int64 --batch 8
      memest estimate train.py:LitModel --input 3x224x224 --input int64 --batch 8
      memest estimate path/to/vit --input pixel_values=3x224x224 --batch 8
      memest estimate nnUNetPlans.json --configuration 3d_fullres --on rtx-4090
      cat net.json | memest estimate - --input left=8x3x64x64 --input right=8x1x64x64

    \b
    Exit codes: 0 done (where a limit is given: it fits or spills), 1 does not fit (as far as expected) on one
    of --on and --budget, 2 usage, 3 invalid model.
    """
    from memest.cli.answering import answered, elsewhere
    from memest.cli.output import DOES_NOT_FIT, agreed, show
    from memest.cli.request import limits
    from memest.render.reports import estimate_report

    form = agreed(form, output)
    places = limits(on, budget, hardware)
    request = request.run_on(on or ())
    graph, estimate = answered(request)
    report = estimate_report(estimate, top)
    if not places:
        show(report, form, output)
        return None
    from memest.render.hardware import with_verdicts

    played = [elsewhere(request, graph, estimate, place) for place in places]
    verdicts = [found.on(place) for found, place in zip(played, places, strict=True)]
    show(with_verdicts(report, verdicts, [estimate_report(found, 0) for found in played]), form, output)
    return None if all(v.bytes_fit for v in verdicts) else DOES_NOT_FIT
