"""Planners on torchvision's networks: climbing reaches the bound on each; where greedy by size, as published, is more than 1 % above it."""

from __future__ import annotations

import pytest

import memest
from memest.memory.planners import PLANNERS

try:
    import torchvision
except (ImportError, RuntimeError) as e:
    pytest.skip(f"no torchvision for this torch: {e}", allow_module_level=True)

pytestmark = pytest.mark.slow

IMAGE, CLIP = (1, 3, 224, 224), (1, 3, 16, 112, 112)
IMAGES = """
    alexnet convnext_tiny densenet201 efficientnet_b0 efficientnet_v2_l googlenet maxvit_t mnasnet1_0 mobilenet_v3_large
    regnet_y_400mf resnet50 resnext50_32x4d shufflenet_v2_x1_0 squeezenet1_1 swin_t swin_v2_t vgg16_bn vit_b_16
    deeplabv3_resnet50 fcn_resnet50 lraspp_mobilenet_v3_large
"""
SHAPES = {
    **dict.fromkeys(IMAGES.split(), IMAGE),
    "inception_v3": (1, 3, 299, 299),
    **dict.fromkeys(("r3d_18", "mc3_18", "r2plus1d_18"), CLIP),
}
GREEDY_MISSES = {"convnext_tiny", "efficientnet_v2_l", "shufflenet_v2_x1_0", "swin_t", "swin_v2_t", "r2plus1d_18"}


@pytest.mark.parametrize("name", SHAPES)
def test_climbing_reaches_the_bound(name: str) -> None:
    backbone = {"weights_backbone": None} if SHAPES[name] == IMAGE and name.startswith(("deeplab", "fcn", "lraspp")) else {}
    module = torchvision.models.get_model(name, weights=None, **backbone).eval()
    plan = memest.plan_inference(memest.from_torch(module, SHAPES[name]), input_shape=SHAPES[name])
    rows = {r.planner: r.nbytes for r in plan.rows}
    assert rows["hill_climb"] == rows["lower_bound"] == min(rows[p] for p in PLANNERS)
    assert (rows["greedy_by_size"] > 1.01 * rows["lower_bound"]) is (name in GREEDY_MISSES)
    assert plan.reach().ways[0].factor == 1.0
