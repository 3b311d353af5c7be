"""Networks whose forward makes tensors on the host, and what torch's CUDA build does with them: ``data/on_host.json``.

Each is a weight times the input, then a function of that. The data hold what the third training step asks the allocator for (torch 2.14.1
on the stand-in for the CUDA runtime, a T4), or that torch raises; ``python -m tests.on_host`` measures it anew there.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

MEASURED = Path(__file__).with_name("data") / "on_host.json"
SHAPE = (2, 3, 32, 32)


class Network(nn.Module):
    """``use(x * weight)``, its mean over the image."""

    def __init__(self, use: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 1, 1))
        self.use = use
        self.constant = torch.randn(70_000)
        self.cache: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> Any:
        return self.use(x * self.weight).mean((2, 3))


def number(value: float = 2.0) -> torch.Tensor:
    """A tensor of no dims, on the host."""
    return torch.tensor(value)


def _channels_last(dtype: torch.dtype) -> torch.Tensor:
    return torch.zeros(SHAPE, dtype=dtype).to(memory_format=torch.channels_last)


def _set(y: torch.Tensor) -> torch.Tensor:
    y = y * 1
    y[0] = number(3.0)
    y[1].copy_(torch.ones(y.shape[1:]))
    return y


NUMBERS = ("add", "sub", "mul", "div", "minimum", "maximum")
USES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "on the card": lambda y: y + torch.zeros(100_000, device=y.device)[: y.shape[-1]],
    "moved": lambda y: y + (torch.arange(y.shape[-1] * 1000).float() * 2)[: y.shape[-1]].to(y.device),
    "moved by cuda()": lambda y: y + torch.zeros(y.shape[-1], 500).t().cuda()[0],
    "moved to another's": lambda y: y + torch.arange(y.shape[-1] * 2000)[::2000].to(y),
    "moved and cast": lambda y: y + torch.arange(64_000).view(2000, -1).t().to(y.device, torch.float32, non_blocking=True)[:, 0],
    "expanded": lambda y: torch.arange(32.0).expand(SHAPE).to(y.device) * y,
    "expanded and cast": lambda y: torch.arange(32).expand(SHAPE).to(y.device, torch.float32) * y,
    "channels_last": lambda y: _channels_last(torch.float32).to(y) * y,
    "channels_last and cast": lambda y: _channels_last(torch.float64).to(y) * y,
    "channels_last, not blocking": lambda y: _channels_last(torch.float64).to(y.device, torch.float32, non_blocking=True) * y,
    "of its dtype": lambda y: torch.zeros(32, dtype=y.dtype).to(y.device) * y,
    "drawn": lambda y: torch.rand(32, 1).mul_(2).sub_(1).to(y.device) * y,
    "a grid": lambda y: torch.stack(torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")).sum(0).to(y.device) * y,
    "to the host": lambda y: y.detach().permute(0, 2, 3, 1).cpu().sum() * 2 * y,
    "a part to the host": lambda y: y.detach()[:, :, :, ::2].cpu().sum() * y,
    "cast on the way": lambda y: y.detach()[:, :, :, ::2].to("cpu", torch.float64, non_blocking=True).sum().float() * y,
    "like it, elsewhere": lambda y: torch.zeros_like(y, device="cpu").sum() * y,
    "an index": lambda y: y.detach()[:, :, torch.arange(3)].sum() * y,
    "an index with a gradient": lambda y: y[:, :, torch.arange(3)],
    "two of them": lambda y: y[:, torch.arange(2), torch.arange(3)[:, None]].sum() * y,
    "apart": lambda y: y[torch.arange(2), :, torch.arange(2)].sum() * y,
    "written": _set,
    "numbers": lambda y: y * torch.tensor(2.0) + torch.ones(()),
    "a whole number": lambda y: y * torch.tensor(2),
    "in place": lambda y: y.mul_(number()).add_(number()),
    **{name: lambda y, name=name: getattr(torch, name)(y, number()) for name in NUMBERS},  # type: ignore[misc]
    **{f"{name} to it": lambda y, name=name: getattr(torch, name)(number(), y) for name in NUMBERS},  # type: ignore[misc]
    "compared": lambda y: (y > number()).float() * y,
    "added whole": lambda y: y + torch.zeros(y.shape[-1]),
    "joined": lambda y: torch.cat([y, torch.zeros(SHAPE)]),
    "multiplied": lambda y: torch.matmul(y, torch.eye(32)),
    "selected": lambda y: y.index_select(2, torch.arange(3)),
    "into a number": lambda y: number().add_(y.detach().sum()) * y,
}


def measure() -> dict[str, Any]:
    """What torch does, by name: sizes asked for and given back, or None where it raises."""
    from validation.cuda.recording import start
    from validation.cuda.stepping import Work, third_step

    start()
    found: dict[str, Any] = {}
    for name, use in USES.items():
        work = Work(make=lambda use=use: Network(use), shape=SHAPE, mode="train", optimizer="sgd", loss="cross_entropy")  # type: ignore[misc]
        try:
            found[name] = [e.delta for e in third_step(work)[1].events]
        except RuntimeError as error:
            if "device" not in str(error):
                raise
            found[name] = None
    return found


if __name__ == "__main__":
    rows = ",\n".join(f" {json.dumps(name)}: {json.dumps(deltas)}" for name, deltas in measure().items())
    MEASURED.write_text(f"{{\n{rows}\n}}\n", encoding="utf-8")
