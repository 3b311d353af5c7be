"""Networks of a library, in an environment that has it: each recorded by memest, then measured in training and in inference."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

import memest
from memest.cli.inputs import parse_inputs
from memest.errors import MemestError
from memest.machines.cpu import Cpu
from memest.sizes.asked import TypedShape
from memest.sources.importers.torch.inputs import ModuleCall
from memest.sources.importers.torch.loading import build
from memest.sources.importers.torch.network import from_torch
from memest.sources.typed import structured
from validation.libraries.storing import load, store
from validation.libraries.subjects import LIBRARIES, Subject, subjects
from validation.protocol import Measurement, measure_inference, measure_training
from validation.streams import stream_digest

MODES = ("train", "infer")
AT_ONCE = 10


def measure(library: str, only: str = "", *, again: bool = False) -> None:
    """Measure the networks of a catalogue that have no current result under this torch, or all whose name contains ``only``; graphs are
    recorded anew for all of these. What was stored of others stays, where it is of the same releases."""
    torch.set_num_threads(2)
    head = {
        "release": version(LIBRARIES[library]),
        "torch": torch.__version__,
        "cpu": asdict(Cpu.detect().with_(threads=2)),
    }
    before, records = load(library)
    kept = {r["digest"]: r for r in records if before == {"schema": before["schema"], **head}}
    catalogue = list(subjects(library))
    todo = [s for s in catalogue if only in s.name and (again or s.digest not in kept)]
    for n, subject in enumerate(todo, 1):
        kept[subject.digest] = record(subject)
        print(f"{library}: {n} of {len(todo)}, {subject.name}", file=sys.stderr, flush=True)
        gc.collect()
        if n % AT_ONCE == 0 or n == len(todo):
            store(library, head, [kept[s.digest] for s in catalogue if s.digest in kept])


def record(subject: Subject) -> dict[str, Any]:
    """All that is stored of a network."""
    return {"name": subject.name, "digest": subject.digest, **recorded(subject), **{mode: measured(subject, mode)[0] for mode in MODES}}


def recorded(subject: Subject) -> dict[str, Any]:
    """``graph``: the network's, in both modes, or ``refused``: why there is none."""
    torch.manual_seed(0)
    try:
        graph = from_torch(build(subject.model).train(), example(subject.inputs), name=subject.name, assume=dict(subject.assume))
        return {"graph": json.loads(memest.dumps(graph, form="json"))}
    except MemestError as e:
        return {"refused": str(e)}


def measured(subject: Subject, mode: str) -> tuple[dict[str, Any], Measurement]:
    """What torch took in one step, without releases of what stood before it, in short, and all of it."""
    torch.manual_seed(0)
    module, inputs = Called(build(subject.model), subject.inputs), tensors(subject.inputs)
    if mode == "infer":
        found = measure_inference(module, inputs)
    else:
        found = measure_training(module.train(), inputs, subject.optimizer, subject.loss)
    found = Measurement(found.standing_bytes, [e for e in found.events if not e.old])
    short = {"standing": found.standing_bytes, "peak": found.peak_bytes, "events": len(found.events)}
    return {**short, "stream": stream_digest(e.delta for e in found.events)}, found


class Called(nn.Module):
    """A module called with tensors in a row, by name and in structures where the inputs have names (``images.0=1x32x32``)."""

    def __init__(self, module: nn.Module, inputs: Sequence[str]) -> None:
        super().__init__()
        self.module, self.call = module, ModuleCall(module, example(inputs))

    def forward(self, *given: torch.Tensor) -> Any:
        """The module's result."""
        return self.call(dict(zip(self.call.inputs, given, strict=True)))


def example(inputs: Sequence[str]) -> Any:
    """The inputs as ``from_torch`` takes them."""
    shapes = parse_inputs(inputs)
    return structured(shapes) if "=" in inputs[0] else list(shapes.values())


def tensors(inputs: Sequence[str]) -> list[torch.Tensor]:
    """Random numbers, and zeros where whole numbers are asked for."""
    shapes = parse_inputs(inputs).values()
    return [torch.zeros(s, dtype=getattr(torch, s.dtype)) if isinstance(s, TypedShape) else torch.rand(s) for s in shapes]
