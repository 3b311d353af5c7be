"""The CUDA wheels of torch: which CUDA and which cuDNN each one ships, and for which compute capabilities it has kernels.

A kernel built for 8.6 runs on 8.6 and 8.9, none on another generation: what is built for a compute capability runs on those of the same
major number from its minor number on (CUDA C++ Programming Guide, "Binary Compatibility"). PTX, which the driver could compile for later
cards, is left out. The sources stand in the data.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from memest.machines.architectures import Capability, architecture_of, capability_text
from memest.machines.gpu import Device
from memest.machines.versions import Version, text_of

WHEELS = Path(__file__).with_name("wheels.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """One build of a version of torch."""

    torch: Version
    cuda: Version
    cudnn: Version
    capabilities: tuple[Capability, ...]

    def knows(self, capability: Capability) -> bool:
        """Whether it has kernels that run on this compute capability."""
        return any(major == capability[0] and minor <= capability[1] for major, minor in self.capabilities)

    def __str__(self) -> str:
        return f"torch {text_of(self.torch)} for CUDA {text_of(self.cuda)} with cuDNN {text_of(self.cudnn)}"


def wheels(torch: Version) -> tuple[Wheel, ...]:
    """The CUDA wheels of a version of torch, the one that PyPI gives first. KeyError for a version that is not described."""
    return _wheels()[torch]


def wheel_for(torch: Version, device: Device) -> Wheel | None:
    """The wheel of this version of torch for a device: the first that has kernels for it, None where none has."""
    return next((w for w in wheels(torch) if w.knows(device.capability)), None)


def least_capability(cudnn: Version) -> Capability:
    """The least compute capability that a release of cuDNN, 9.0 or later, has kernels for."""
    return max(least for since, least in _cudnn() if since <= cudnn)


def unsupported(device: Device, torch: Version, cudnn: Version | None = None) -> str:
    """One sentence where this torch, in the wheel that PyPI gives and with that wheel's cuDNN or the one given, has no kernels for the
    device: what lacks them and what has them; else ''."""
    first = wheels(torch)[0]
    cudnn = first.cudnn if cudnn is None else cudnn
    lacking = [] if first.knows(device.capability) else [f"torch {text_of(torch)}'s wheel for CUDA {text_of(first.cuda)}"]
    if device.capability < least_capability(cudnn):
        lacking.append(f"cuDNN {text_of(cudnn)}")
    if not lacking:
        return ""
    name = architecture_of(device.capability).name
    other = wheel_for(torch, device)
    has = f"no wheel of torch {text_of(min(_wheels()))} or later has them" if other is None else f"{other} has them"
    verb = "has" if len(lacking) == 1 else "have"
    return f"{' and '.join(lacking)} {verb} no kernels for {device.title} ({name}, {capability_text(device.capability)}); {has}"


@cache
def _read() -> Any:
    return json.loads(WHEELS.read_text(encoding="utf-8"))


@cache
def _wheels() -> dict[Version, tuple[Wheel, ...]]:
    return {
        _pair(torch): tuple(
            Wheel(
                torch=_pair(torch),
                cuda=_pair(row["cuda"]),
                cudnn=_pair(row["cudnn"]),
                capabilities=tuple(map(_pair, row["capabilities"])),
            )
            for row in rows
        )
        for torch, rows in _read()["torch"].items()
    }


@cache
def _cudnn() -> tuple[tuple[Version, Capability], ...]:
    return tuple((_pair(row["from"]), _pair(row["least"])) for row in _read()["cudnn"])


def _pair(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor)
