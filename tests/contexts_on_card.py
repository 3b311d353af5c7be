"""Forwards with contexts of autograd, and what torch's CUDA build does with them: ``data/contexts_on_card.json``.

The data hold what the third training step asks the allocator for (torch 2.14.1 on the stand-in for the CUDA runtime, an H100);
``python -m tests.contexts_on_card`` measures it anew there.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

MEASURED = Path(__file__).with_name("data") / "contexts_on_card.json"
SHAPE = (4, 3, 16, 16)


class Network(nn.Module):
    """``forward_`` with this module's layers; ``prepare`` is done to it first."""

    def __init__(self, forward_: Callable[[Network, Any], Any], prepare: Callable[[Network], None] = lambda _: None) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 10)
        self.forward_ = forward_
        prepare(self)

    def body(self, x: Any) -> Any:
        """Layouts, views and activations that keep their inputs or their results."""
        y = torch.relu(self.norm(self.first(x)))
        z = self.second(y.permute(0, 1, 3, 2)).sigmoid()
        y = z + F.gelu(y.permute(0, 1, 3, 2))
        return (y[:, :, ::2] * z[:, :, 1::2]).sum((2, 3))

    def forward(self, x: Any) -> Any:
        """The forward."""
        return self.head(self.forward_(self, x))


def _under(context: Callable[[], Any]) -> Callable[[Network, Any], Any]:
    def forward(net: Network, x: Any) -> Any:
        with context():
            return net.body(x)

    return forward


def _hooks(pack: Callable[[Any], Any], unpack: Callable[[Any, torch.dtype], Any]) -> Callable[[], Any]:
    return lambda: saved_tensors_hooks(lambda t: (t.dtype, pack(t)), lambda p: unpack(p[1], p[0]))


def _nested(net: Network, x: Any, outer: bool, inner: bool) -> Any:
    def inside(a: Any) -> Any:
        return net.second(a).tanh()

    def outside(a: Any) -> Any:
        return checkpoint(inside, net.norm(a).sigmoid(), use_reentrant=inner) * 2

    return checkpoint(outside, net.first(x), use_reentrant=outer).mean((2, 3))


def _clamped(net: Network) -> None:
    for p in net.parameters():
        p.register_hook(lambda g: g.clamp(-1, 1))


USES: dict[str, Callable[[], Network]] = {
    "save_on_cpu": partial(Network, _under(save_on_cpu)),
    "save_on_cpu, pinned": partial(Network, _under(partial(save_on_cpu, pin_memory=True))),
    "halved": partial(Network, _under(_hooks(lambda t: t.half() if t.dtype == torch.float32 else t, lambda t, d: t.to(d)))),
    "halved on the host": partial(Network, _under(_hooks(lambda t: t.cpu().half(), lambda t, d: t.cuda().to(d)))),
    "halved on the way": partial(Network, _under(_hooks(lambda t: t.to("cpu", torch.half), lambda t, d: t.to("cuda", d)))),
    "cast as it goes": partial(
        Network,
        _under(_hooks(lambda t: t.to("cpu", torch.double, non_blocking=True), lambda t, d: t.to("cuda", d, non_blocking=True))),
    ),
    "cast, then moved": partial(Network, _under(_hooks(lambda t: t.double().cpu(), lambda t, d: t.to("cuda").to(d)))),
    **{
        f"a checkpoint in a checkpoint, reentrant {inner} in {outer}": partial(Network, partial(_nested, outer=outer, inner=inner))
        for outer in (False, True)
        for inner in (False, True)
    },
    "gradients clamped": partial(Network, Network.body, _clamped),
}


def measure() -> dict[str, list[int]]:
    """What torch asks for and gives back, by name."""
    from validation.cuda.recording import start
    from validation.cuda.stepping import Work, third_step

    start()
    found: dict[str, list[int]] = {}
    for name, make in USES.items():
        work = Work(make=make, shape=SHAPE, mode="train", optimizer="sgd", loss="cross_entropy")
        found[name] = [e.delta for e in third_step(work)[1].events]
    return found


if __name__ == "__main__":
    rows = ",\n".join(f" {json.dumps(name)}: {json.dumps(deltas)}" for name, deltas in measure().items())
    MEASURED.write_text(f"{{\n{rows}\n}}\n", encoding="utf-8")
