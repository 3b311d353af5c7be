"""The NVIDIA devices of the catalogue as their driver describes them: data, each with its source.

Promises: every NVIDIA accelerator of the catalogue has a description, its memory the one the catalogue calls usable. What a compute
capability fixes stands once, in :mod:`memest.machines.architectures`. Boards of one name differ: clocks are those of NVIDIA's own design
(makers of GeForce cards raise them), and where PCIe and SXM boards share a name the title says which one is described. cuDNN chooses by
compute capability, on Turing by whether there are 60 multiprocessors, too (9.24); buffers of reductions go by multiprocessors and threads.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from memest.machines.architectures import architecture_of
from memest.machines.entry import Hardware
from memest.machines.gpu import Device, Gpu
from memest.machines.reading import hardware_named, plain_name

DEVICES = Path(__file__).with_name("devices.json")


@cache
def devices() -> dict[str, Device]:
    """Every described device by its name in the catalogue."""
    found = json.loads(DEVICES.read_text(encoding="utf-8"))["devices"]
    return {name: _device(name, **fields) for name, fields in found.items()}


def device_named(name: str) -> Device | None:
    """The device that the catalogue calls ``name`` (capitals, blanks and underscores do not count); None where it is not described."""
    return devices().get(plain_name(name))


def gpu_of(entry: Hardware) -> Gpu:
    """An accelerator, with its device where it is described."""
    return Gpu(name=entry.name, memory_bytes=entry.usable_bytes, device=device_named(entry.name))


def _device(
    name: str,
    *,
    title: str,
    capability: str,
    multiprocessors: int,
    l2_bytes: int,
    sm_clock_khz: int,
    memory_clock_khz: int,
    source: str,
) -> Device:
    major, _, minor = capability.partition(".")
    return Device(
        title=title,
        capability=(int(major), int(minor)),
        multiprocessors=multiprocessors,
        threads_per_multiprocessor=architecture_of((int(major), int(minor))).threads_per_multiprocessor,
        l2_bytes=l2_bytes,
        sm_clock_khz=sm_clock_khz,
        memory_clock_khz=memory_clock_khz,
        memory_bytes=hardware_named(name).usable_bytes,
        source=source,
    )
