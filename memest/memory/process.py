"""What the driver shows of a process that runs torch on CUDA: what the allocator reserved, the CUDA context, and the kernels loaded so far.

Promises a model, not a measurement: the data beside this file are public reports, each with its source. A context's bytes go with the
threads that can be resident on the card, since the driver keeps a stack of 1 KiB for each of them (``cudaLimitStackSize``); reports of all
cards, divided by these threads, lie within a factor of two. Where a card has reports of its own they say what is expected, and from
``ENOUGH`` on the range as well. Kernels are loaded when they are first used, so that a context grows with the network; eager loading
(``CUDA_MODULE_LOADING=EAGER``) brings all of them at once. Memory that the driver keeps from every program is in no total and not here.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

from memest.errors import UsageError, did_you_mean
from memest.machines.devices import device_named
from memest.machines.gpu import Device, Gpu
from memest.memory.figure import Figure, modelled, unknown
from memest.sizes.units import format_bytes, parse_budget

DATA = Path(__file__).with_name("process.json")
LIBRARIES = ("nccl",)
GIB = 2**30
ENOUGH = 3  # reports of a card, from which on they give its range


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one process held on ``device`` besides what torch's allocator had, give or take the ``unsure`` bytes of the printed figures."""

    device: Device
    nbytes: int
    unsure: int
    source: str

    @property
    def by_thread(self) -> float:
        """Bytes by thread that can be resident."""
        return self.nbytes / _threads(self.device)


def cuda_context(device: Device, *, eager: bool = False, libraries: Collection[str] = ()) -> Figure:
    """Bytes of the context and of what is loaded into it, outside the allocator. ``libraries`` are those that take device memory by
    themselves (:data:`LIBRARIES`); cuDNN's and cuBLAS's kernels are in every report. UsageError for a library that is not known."""
    own = [r for r in reports() if r.device == device]
    told = own if len(own) >= ENOUGH else reports()
    low, expected, high = scaled(told, _threads(device))
    if own:
        expected = round(median(r.nbytes for r in own))
    cards = len({r.device for r in told})
    whose = "this card" if told is own else f"{cards} cards"
    extras = [f"the context and what is loaded into it, by {len(told)} public reports of {whose}"]
    for more, what in _extras(eager, libraries):
        low, expected, high = low + more[0], expected + more[1], high + more[2]
        extras.append(what)
    return modelled(expected, low, high, ", ".join(extras))


def cuda_process(reserved: Figure, device: Device, *, eager: bool = False, libraries: Collection[str] = ()) -> Figure:
    """What nvidia-smi shows of the process: ``reserved`` and :func:`cuda_context`."""
    if reserved.bytes is None or reserved.low is None or reserved.high is None:
        return unknown(f"not counted: {reserved.reason}")
    context = cuda_context(device, eager=eager, libraries=libraries)
    assert context.bytes is not None and context.low is not None and context.high is not None
    reason = (
        f"what is reserved and {format_bytes(context.bytes)} ({format_bytes(context.low)} to {format_bytes(context.high)}) "
        f"besides: {context.reason}; nvidia-smi shows the sum"
    )
    return modelled(reserved.bytes + context.bytes, reserved.low + context.low, reserved.high + context.high, reason)


def allocatable(gpu: Gpu, *, eager: bool = False, libraries: Collection[str] = ()) -> Figure:
    """What ``cudaMalloc`` can hand out on a card that nobody else uses: the total that the CUDA runtime states, less the context. Unknown
    on an accelerator without a description."""
    if gpu.device is None:
        return unknown(f"not known: {gpu.name} is no CUDA device that is described")
    context = cuda_context(gpu.device, eager=eager, libraries=libraries)
    assert context.bytes is not None and context.low is not None and context.high is not None
    expected, low, high = (max(0, gpu.memory_bytes - n) for n in (context.bytes, context.high, context.low))
    return modelled(expected, low, high, f"{format_bytes(gpu.memory_bytes)} less {context.reason}")


def scaled(told: Collection[Report], threads: int) -> tuple[int, int, int]:
    """(low, expected, high) for a card of so many resident threads, by reports of any cards: the least and the most of any report, as far
    as it can be read, and the median of the cards' medians."""
    cards: dict[Device, list[float]] = {}
    for report in told:
        cards.setdefault(report.device, []).append(report.by_thread)
    least = min((r.nbytes - r.unsure) / _threads(r.device) for r in told)
    most = max((r.nbytes + r.unsure) / _threads(r.device) for r in told)
    return round(least * threads), round(median(map(median, cards.values())) * threads), round(most * threads)


@cache
def reports() -> tuple[Report, ...]:
    """Every report of a context that is known."""
    return tuple(_report(row) for row in _read()["contexts"])


def _extras(eager: bool, libraries: Collection[str]) -> list[tuple[tuple[int, int, int], str]]:
    """What else is taken: (low, expected, high), and its name."""
    for name in libraries:
        if name not in LIBRARIES:
            raise UsageError(f"unknown library {name!r}{did_you_mean(name, LIBRARIES) or '; known are ' + ', '.join(LIBRARIES)}")
    found = []
    if eager:
        more = [_bytes(row["eager"]) - _bytes(row["lazy"]) for row in _read()["eager"]]
        found.append((_spread(more), f"all kernels loaded at once, by {len(more)} public reports"))
    if "nccl" in libraries:
        more = []
        for report in map(_report, _read()["nccl"]):
            without = cuda_context(report.device).bytes
            assert without is not None
            more.append(report.nbytes - without)
        found.append((_spread(more), f"NCCL's buffers, by {len(more)} public reports"))
    return found


def _spread(values: list[int]) -> tuple[int, int, int]:
    return min(values), round(median(values)), max(values)


def _threads(device: Device) -> int:
    return device.multiprocessors * device.threads_per_multiprocessor


def _report(row: dict[str, str]) -> Report:
    device = device_named(row["card"])
    assert device is not None
    if "bare" in row:
        return Report(device=device, nbytes=_bytes(row["bare"]), unsure=0, source=row["source"])
    printed = [row["used"], row["allocated"], row["held"]]
    used, allocated, held = map(_bytes, printed)
    unsure = sum(GIB // 200 for text in printed if text.endswith("GiB"))  # half of the last digit of 0.01 GiB
    return Report(device=device, nbytes=used - allocated - held, unsure=unsure, source=row["source"])


def _bytes(text: str) -> int:
    return parse_budget(text)


@cache
def _read() -> Any:
    return json.loads(DATA.read_text(encoding="utf-8"))
