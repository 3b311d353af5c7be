"""``memest explain``: what other tools say of the network, and why it is not what memest says."""

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
    """Lay other estimators' figures beside memest's, and explain the differences.

    torchinfo, torchsummary, accelerate's estimate-memory and DeepSpeed's ZeRO estimates are rebuilt from their sources, so none need be
    installed; torch's own MemTracker runs the module, where MODEL is torch code. Each figure and its items add up to memest's peak, to the
    byte: what the tool counts twice, forgets, or counts though it is gone when the peak is reached.

    \b
    Examples:
      memest explain torchvision.models:resnet18 --input 3x224x224 --batch 8 --optimizer adam
      memest explain nets/unet.py:UNet --input 1x128x128 --batch 2 --infer
      memest explain resnet50 --input 3x224x224 --batch 8 --format json

    \b
    Exit codes: 0 done, 2 usage, 3 invalid model.
    """
    from memest.cli.explaining import explained
    from memest.cli.output import agreed, show
    from memest.render.explanation import explanation_report

    form = agreed(form, output)
    show(explanation_report(explained(request)), form, output)
