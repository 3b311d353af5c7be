"""Three steps, or calls, of the 3-D U-Net in torch, in this process: ``python -m validation.origin.torch_step MODE SIDE BATCH``."""

from __future__ import annotations

import sys

import torch

from validation.networks import UNet3d
from validation.origin.resident import print_steps


def main(mode: str, side: int, batch: int) -> None:
    """Print what the process held."""
    torch.manual_seed(0)
    module = UNet3d().train(mode == "train")
    x = torch.rand(batch, 1, side, side, side)
    y = (torch.rand_like(x) > 0.5).float() if mode == "train" else x
    optimizer = torch.optim.Adam(module.parameters()) if mode == "train" else None  # making one imports a compiler

    def step() -> None:
        if optimizer is None:
            with torch.no_grad():
                module(x)
            return
        optimizer.zero_grad()
        torch.nn.functional.binary_cross_entropy(module(x), y).backward()
        optimizer.step()

    print_steps(step, f"torch {torch.__version__}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
