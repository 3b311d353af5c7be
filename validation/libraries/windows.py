"""MONAI's own ``sliding_window_inference`` around built-in networks, measured where MONAI is installed
(``python -m validation.libraries.windows``); what was seen is stored, and compared anywhere."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import Any

from memest.sources import models
from validation.libraries.storing import RESULTS

DATA = RESULTS / "windows.json"
IMAGE = "unet2d:base_filters=4,levels=2,inplace=false"
VOLUME = "unet3d:base_filters=4,levels=2"
DEEP = "plain_conv_unet:dims=3,features_per_stage=4-8"
CASES: tuple[tuple[str, tuple[int, ...], str], ...] = (
    (IMAGE, (1, 3, 40, 56), "roi_size=16"),
    (IMAGE, (2, 3, 40, 56), "roi_size=16x24,sw_batch_size=4"),
    (IMAGE, (1, 3, 40, 56), "roi_size=16,overlap=0.5,mode=gaussian"),
    (IMAGE, (3, 3, 33, 47), "roi_size=16,sw_batch_size=5,overlap=0"),
    (IMAGE, (1, 3, 8, 40), "roi_size=16,sw_batch_size=3,mode=gaussian"),
    (VOLUME, (1, 1, 24, 24, 40), "roi_size=16,sw_batch_size=3"),
    (VOLUME, (1, 1, 12, 24, 40), "roi_size=16,sw_batch_size=2,mode=gaussian"),
    (VOLUME, (2, 1, 24, 24, 40), "roi_size=16x16x8,buffer_steps=2,sw_batch_size=2"),
    (VOLUME, (1, 1, 24, 24, 40), "roi_size=16x16x8,buffer_steps=1,buffer_dim=0"),
    (VOLUME, (1, 1, 16, 16, 64), "roi_size=16,buffer_steps=64,overlap=0.9,sw_batch_size=4"),
    (DEEP, (1, 1, 24, 24, 40), "roi_size=16x16x8,buffer_steps=3,buffer_dim=2,mode=gaussian,overlap=0.75x0.5x0.6"),
    (DEEP, (1, 1, 8, 8, 8), "roi_size=16"),
    (DEEP, (1, 1, 16, 16, 16), "roi_size=16,sw_batch_size=4,mode=gaussian,cache_roi_weight_map=true"),
)


def measured() -> dict[str, Any]:
    """Each case as MONAI and torch run it here: bytes that stand before the call, and its peak."""
    from validation.execute import GraphModule
    from validation.protocol import inputs_for, measure_inference

    rows = []
    for network, shape, options in CASES:
        lever = f"sliding_window_inference:{options}"
        seen = measure_inference(GraphModule(models.build(network)), inputs_for([shape]), levers=[lever])
        rows.append({"network": network, "shape": shape, "lever": lever, "standing": seen.standing_bytes, "peak": seen.peak_bytes})
    return {"monai": version("monai"), "torch": version("torch").partition("+")[0], "rows": rows}


def stored() -> dict[str, Any]:
    """What was measured."""
    found: dict[str, Any] = json.loads(DATA.read_text(encoding="utf-8"))
    return found


if __name__ == "__main__":
    DATA.write_text(json.dumps(measured(), indent=1) + "\n", encoding="utf-8")
