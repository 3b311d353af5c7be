"""torchvision's detectors and its kernels: a step is torch's, event by event, where the counts of that very run are stated."""

from __future__ import annotations

from typing import Any

import pytest

import memest
from memest.errors import UnsupportedError
from memest.machines.cpu import Cpu
from memest.sizes.dims import resolve

torch = pytest.importorskip("torch")

try:
    import torchvision
except (ImportError, RuntimeError) as e:  # its extension is of another torch
    pytest.skip(f"no torchvision for this torch: {e}", allow_module_level=True)

from torch import nn  # noqa: E402

from validation.counts import counts_of  # noqa: E402
from validation.profiling import record  # noqa: E402
from validation.streams import first_difference  # noqa: E402

ONE_STAGE = ("fcos_resnet50_fpn", "retinanet_resnet50_fpn", "ssd300_vgg16", "ssdlite320_mobilenet_v3_large")
TWO_STAGES = ("fasterrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn", "keypointrcnn_resnet50_fpn")


def detector(name: str) -> tuple[Any, list[Any], list[dict[str, Any]]]:
    """A small detector of random weights, two images and their targets."""
    torch.manual_seed(0)
    given: dict[str, Any] = {"weights": None, "weights_backbone": None, "num_classes": 2 if "keypoint" in name else 5}
    if not name.startswith("ssd"):
        given |= {"min_size": 96, "max_size": 128}
    images = [torch.rand(3, 80, 112), torch.rand(3, 96, 100)]
    boxes = torch.tensor([[10.0, 20.0, 70.0, 70.0], [50.0, 30.0, 90.0, 75.0]])
    targets = []
    for image in images:
        target = {"boxes": boxes.clone(), "labels": torch.tensor([1, 1])}
        if "mask" in name:
            target["masks"] = torch.ones(2, *image.shape[1:], dtype=torch.uint8)
        if "keypoint" in name:
            target["keypoints"] = torch.cat([torch.rand(2, 17, 2) * 40 + 30, torch.ones(2, 17, 1)], 2)
        targets.append(target)
    return getattr(torchvision.models.detection, name)(**given), images, targets


def same(graph: Any, mode: str, measured: Any, cpu: Cpu) -> None:
    shapes: dict[str, Any] = {i.name: resolve(i.shape, dict(graph.examples)) for i in graph.inputs}
    predicted = memest.estimate(graph, input_shape=shapes, machine=cpu, **({} if mode == "train" else {"mode": mode}))
    difference = first_difference(predicted.events, measured)
    assert difference is None, f"\n{difference}"


@pytest.mark.slow
@pytest.mark.parametrize("name", [*ONE_STAGE, *TWO_STAGES])
def test_inference_is_that_of_torch(name: str, cpu: Cpu) -> None:
    module, images, _ = detector(name)
    module.eval()
    for part in (module, getattr(module, "roi_heads", module)):
        part.score_thresh = 0.0
        part.detections_per_img = 6
    with torch.no_grad():
        module(images)
        counts = counts_of(lambda: module(images), lines=name in TWO_STAGES)
        measured, _ = record(lambda: module(images))
    same(memest.from_torch(module, [images], mode="infer", assume=counts), "infer", measured, cpu)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*ONE_STAGE, *TWO_STAGES])
def test_a_training_step_is_that_of_torch(name: str, cpu: Cpu) -> None:
    module, images, targets = detector(name)
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=1e-4, momentum=0.9)

    def step(images: Any, targets: Any) -> None:
        optimizer.zero_grad(set_to_none=True)
        sum(module(images, targets).values()).backward()
        optimizer.step()

    step(images, targets)
    drawn, state = torch.get_rng_state(), {k: v.clone() for k, v in module.state_dict().items()}
    counts = counts_of(lambda: module(images, targets))
    module.load_state_dict(state)
    torch.set_rng_state(drawn)
    optimizer.zero_grad(set_to_none=True)
    measured, _ = record(lambda: step(images, targets))
    same(memest.from_step(step, images, targets, assume=counts, cleared=True), "train", measured, cpu)


class Regions(nn.Module):
    """A convolution, and what torchvision makes of boxes in it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x: Any, boxes: Any, scores: Any) -> Any:
        kept = torchvision.ops.batched_nms(boxes, scores, (scores > 2).to(torch.int64), 0.5)
        boxes = torchvision.ops.clip_boxes_to_image(boxes[kept], (16, 16))
        near = torchvision.ops.box_iou(boxes, boxes).amax()
        return torchvision.ops.roi_align(self.conv(x), [boxes, boxes[:1]], 3, 0.5, 2, True) * near


def test_boxes_and_regions_are_those_of_torch(cpu: Cpu) -> None:
    module = Regions()
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 4.1], [8.0, 8.0, 12.0, 12.0]])
    given = [torch.rand(2, 3, 8, 8), boxes, torch.tensor([0.1, 0.2, 0.3])]
    with torch.no_grad():
        module(*given)
        counts = counts_of(lambda: module(*given))
        measured, _ = record(lambda: module(*given))
    assert counts == {"boxes": [2]}
    same(memest.from_torch(module, given, mode="infer", assume=counts), "infer", measured, cpu)
    with pytest.raises(UnsupportedError, match=r"torchvision.ops.nms\(\) depends on values; say how many of 3 .*--assume boxes=N"):
        memest.from_torch(module, given, mode="infer")


def test_more_images_than_are_deformed_at_once(cpu: Cpu) -> None:
    """34 images are two blocks of 17, in groups."""
    module = torchvision.ops.DeformConv2d(4, 8, 3, padding=1, groups=2)
    given = [torch.rand(34, 4, 6, 6), torch.rand(34, 18, 6, 6)]

    def step(x: Any, offset: Any) -> None:
        module(x, offset).sum().backward()

    step(*given)
    module.zero_grad(set_to_none=True)
    measured, _ = record(lambda: step(*given))
    same(memest.from_step(step, *given, cleared=True), "train", measured, cpu)
