"""How nnU-Net trains and uses the network of a configuration, in the words of a question.

Training: SGD with nesterov momentum and weight decay, Dice and cross entropy over all outputs (the weight of an output is half that of
the one before, the last has none), gradients clipped at a norm of 12; output and loss stay in variables until the step ends. On CUDA
autocast to float16, a gradient scaler and cudnn.benchmark; on a CPU nnU-Net uses none of them.
Prediction: windows of the patch, half of it apart, mirrored along every axis.
Source: nnunetv2 2.8.1, training/nnUNetTrainer/nnUNetTrainer.py (configure_optimizers, _build_loss, train_step),
run/run_training.py (cudnn.benchmark), inference/predict_from_raw_data.py.
"""

from __future__ import annotations

from memest.network.usual import Usual, Way
from memest.sources.plans.configuration import Configuration
from memest.sources.plans.labels import Labels

OPTIMIZER = "sgd:momentum=0.99,nesterov=true,weight_decay=3e-05"
CLIP = "clip:norm=12"
AUTOCAST = "autocast:dtype=float16"
BENCHMARK = (("cudnn_benchmark", True),)


def usual_of(plan: Configuration, labels: Labels, outputs: int) -> Usual:
    """The usual ways of a configuration whose trained network has so many ``outputs``."""
    sizes = tuple(zip(("N", *plan.axes), (plan.batch_size, *plan.patch_size), strict=True))
    settings = (("optimizer", OPTIMIZER), ("loss", _loss(plan, labels, outputs)), ("hold_output", True))
    most = () if plan.median is None else tuple(zip(plan.axes, plan.median, strict=True))
    return Usual(
        train=Way(sizes=sizes, most=most, settings=settings, levers=(CLIP,), cuda_settings=BENCHMARK, cuda_levers=(AUTOCAST,)),
        infer=Way(sizes=_volume(plan), levers=(_windows(plan),), cuda_settings=BENCHMARK, cuda_levers=(AUTOCAST,)),
        call=Way(sizes=(("N", 1), *sizes[1:])),
    )


def _volume(plan: Configuration) -> tuple[tuple[str, int], ...]:
    """An image of the size the planner noted, slice by slice where the network has two axes; one patch where it noted none."""
    return tuple(zip(("N", *plan.axes), (plan.slices, *(plan.median or plan.patch_size)), strict=True))


def _windows(plan: Configuration) -> str:
    """Windows of the patch, mirrored along every axis."""
    mirror = "+".join(str(axis) for axis in range(len(plan.patch_size)))
    return f"sliding_window:size={'x'.join(map(str, plan.patch_size))},mirror={mirror}"


def _loss(plan: Configuration, labels: Labels, outputs: int) -> str:
    options = [f"batch_dice={str(plan.batch_dice).lower()}"]
    if labels.ignore is not None:
        options.append(f"ignore_label={labels.ignore}")
    loss = f"{'dc_and_bce' if labels.regions else 'dc_and_ce'}:{','.join(options)}"
    return loss if outputs == 1 else f"{loss} over {','.join(f'{w:.4g}' for w in weights(outputs))}"


def weights(outputs: int) -> list[float]:
    """Of ``outputs`` from the largest on: 1, 1/2, 1/4, … and none for the last, together 1."""
    halved = [0.5**i for i in range(outputs - 1)]
    return [w / sum(halved) for w in (*halved, 0.0)]
