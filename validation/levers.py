"""The torch side of every lever: what a user would write, applied to the setup that is measured.

``prepare`` comes first: it may change the module and the inputs, before target and optimizer are made from them. ``wrap`` comes after
and may change everything. Levers are applied in the order of memest's table, each on what the ones before it left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from memest.levers.table import Setting, settings
from validation.setup import Setup

Options = Mapping[str, Any]
Change = Callable[[Setup, Options], None]


def nothing(setup: Setup, options: Options) -> None:
    """Leave the setup as it is."""


@dataclass(frozen=True, kw_only=True)
class TorchLever:
    """One row."""

    prepare: Change = nothing
    wrap: Change = nothing


FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


def _channels_last(setup: Setup, options: Options) -> None:
    for layout in FORMATS.values():  # each moves the tensors of its own rank
        setup.module.to(memory_format=layout)
    setup.inputs = [t.contiguous(memory_format=FORMATS.get(t.ndim, torch.contiguous_format)) for t in setup.inputs]


LEVERS: dict[str, TorchLever] = {
    "channels_last": TorchLever(prepare=_channels_last),
}


def chosen(texts: Sequence[str], training: bool) -> tuple[Setting, ...]:
    """The levers written in ``texts``, in the order in which they are applied."""
    return settings(texts, "train" if training else "infer")


def prepare(setup: Setup, levers: Sequence[Setting]) -> None:
    """First half: module and inputs."""
    for s in levers:
        LEVERS[s.name].prepare(setup, dict(s.options))


def wrap(setup: Setup, levers: Sequence[Setting]) -> None:
    """Second half: the step."""
    for s in levers:
        LEVERS[s.name].wrap(setup, dict(s.options))
