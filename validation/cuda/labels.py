"""Under what a result was measured: the oracle, the card, and the releases that decide."""

from __future__ import annotations

import os
from typing import Any

STAND_IN, CARD = "stand-in", "gpu"


def oracle() -> str:
    """Which of the two this process runs on."""
    return STAND_IN if "MEMEST_STANDIN_CARD" in os.environ else CARD


def labels(card: str) -> dict[str, Any]:
    """The head of a file of results, of this process."""
    import torch

    device = torch.cuda.get_device_properties(0)
    cudnn = torch._C._cudnn.getVersionInt()  # torch.backends.cudnn.version() raises on a card that this cuDNN has no kernels for
    return {
        "oracle": oracle(), "card": card, "device": device.name, "torch": torch.__version__, "cuda": torch.version.cuda, "cudnn": cudnn
    }  # fmt: skip
