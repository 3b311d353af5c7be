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
    y = (torch.rand(batch, 1, side, side, side) > 0.5).float()
    optimizer = torch.optim.Adam(module.parameters())

    def train() -> None:
        optimizer.zero_grad()
        torch.nn.functional.binary_cross_entropy(module(x), y).backward()
        optimizer.step()

    def infer() -> None:
        with torch.no_grad():
            module(x)

    print_steps(train if mode == "train" else infer, f"torch {torch.__version__}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
