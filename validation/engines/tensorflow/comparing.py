"""Predictions against what was measured: the tensors of a step and their peak for the order that TensorFlow took, the range, the arena, and
the process. Needs no tensorflow."""

from __future__ import annotations

import json
import re
import statistics
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import memest
from memest.errors import MemestError
from memest.network.graph import Graph
from memest.runtimes.tensorflow.kernels import scratchpad
from memest.runtimes.tensorflow.memory import arena_of
from memest.runtimes.tensorflow.nodes import TAPE
from memest.runtimes.tensorflow.runtime import in_order, peak_of
from validation.engines.tensorflow.networks import is_binary
from validation.engines.tensorflow.storing import load

LARGE = 16 << 20  # bytes of an arena from which on it is compared
OPTIMIZER = re.compile(r"^(adam_w|adam|sgd|rm_sprop)_\d+/")
SCOPE = re.compile(r"^[^/]+/")
COLUMNS = (
    "oneDNN",
    "threads",
    "cases",
    "tensors equal",
    "peak equal",
    "in range",
    "arena, median",
    "worst",
    "process, median",
    "worst",
    "in range",
)


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A case: peaks above the step's beginning for the order taken (predicted, measured), the tensors that differ, whether the range of the
    estimate holds the measured peak, the arena's use for that order and the resident peak (zeros: not measured)."""

    network: str
    shape: tuple[int, ...]
    mode: str
    optimizer: str
    onednn: str
    threads: int
    held: bool = False
    peak: tuple[int, int] = (0, 0)
    differing: int = 0
    tensors: int = 0
    first: str = ""
    inside: bool = False
    arena: tuple[int, int] = (0, 0)
    process: tuple[int, int] = (0, 0)
    within: bool = False
    refused: str = ""

    @property
    def equal(self) -> bool:
        """Whether the peak for the order taken is equal to the byte."""
        return not self.refused and self.peak[0] == self.peak[1]

    @property
    def off(self) -> float:
        """The share by which the resident peak is off, where it was measured."""
        return abs(self.process[0] / self.process[1] - 1) if self.process[1] else 1.0

    @property
    def arena_off(self) -> float:
        """The share by which the arena's use is off."""
        return abs(self.arena[0] / self.arena[1] - 1) if self.arena[1] else 0.0

    def __str__(self) -> str:
        shape = "x".join(map(str, self.shape))
        case = f"{self.network} {shape} {self.mode} {self.optimizer} oneDNN {self.onednn} {self.threads or 'all'}{' held out' * self.held}"
        if self.refused:
            return f"refused  {case}  {self.refused}"
        peak = f"peak {self.peak[0]:,} of {self.peak[1]:,}{'' if self.inside else ', out of range'}"
        tensors = f"{self.differing} of {self.tensors:,} tensors differ {self.first}".rstrip() if self.differing else "tensors equal"
        arena = f"  arena {self.arena[0]:,} of {self.arena[1]:,}" if self.arena[1] else ""
        process = f"process {self.process[0] / self.process[1] - 1:+.1%}" if self.process[1] else "its log alone"
        return f"{'equal' if self.equal else 'differs'}  {case}  {tensors}  {peak}{arena}  {process}"


def compare(only: str = "") -> Iterator[Compared]:
    """Every stored case that is wanted."""
    _, configs, records = load()
    graphs: dict[str, Graph] = {}
    for record in records:
        name = f"{record['network']} {'x'.join(map(str, record['shape']))}"
        if only not in name:
            continue
        try:
            if name not in graphs:
                graphs[name] = imported(configs[name], record["shape"])
            yield _compared(graphs[name], record)
        except MemestError as error:
            yield Compared(**_case(record), refused=str(error))


def imported(config: Any, shape: Sequence[int]) -> Graph:
    """A network of Keras's configuration, at a shape with the channels last."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        path.write_text(json.dumps(config), encoding="utf-8")
        return memest.from_keras(path, (shape[0], shape[-1], *shape[1:-1]))


def _case(record: dict[str, Any]) -> dict[str, Any]:
    names = ("network", "mode", "optimizer", "onednn", "threads", "held")
    return {**{k: record[k] for k in names}, "shape": tuple(record["shape"])}


def asked(record: dict[str, Any]) -> dict[str, Any]:
    """The settings of a case."""
    shape = record["shape"]
    optimizer = {"momentum": "sgd:momentum=0.9"}.get(record["optimizer"], record["optimizer"])
    training = {"optimizer": optimizer, "loss": "binary_cross_entropy" if is_binary(record["network"]) else "cross_entropy"}
    return {
        "input_shape": (shape[0], shape[-1], *shape[1:-1]),
        "mode": record["mode"],
        "runtime": "tensorflow-cpu",
        "onednn": record["onednn"],
        "machine": memest.Cpu(threads=record["used"], l3_total_bytes=record["l3"]),
        **(training if record["mode"] == "train" else {}),
    }


def _compared(graph: Graph, record: dict[str, Any]) -> Compared:
    found = memest.estimate(graph, **asked(record))
    layers = layers_of(graph)
    names = map(partial(ours, layers=layers), record["order"])
    stream = in_order(found.played, found.input_shapes, found.sizes, found.recipe, names)
    standing = sum(s.nbytes for s in stream.residents)
    mine = Counter(e.delta for e in stream.events if e.delta > 0 and e.delta != scratchpad(record["used"]))
    real = Counter(nbytes for name, nbytes, dtype in record["tensors"] if not _is_scratchpad(name, nbytes, dtype))
    differing = (mine - real) + (real - mine)
    assert found.allocated.low is not None and found.allocated.high is not None
    assert found.process.bytes is not None and found.process.low is not None and found.process.high is not None
    resident = max((step["VmHWM"] for step in record["steps"]), default=0)
    arenas = [step["arena"]["peak"] for step in record["steps"][1:] if step["arena"]]
    return Compared(
        **_case(record),
        peak=(peak_of(stream) - standing, record["peak"]),
        differing=sum(differing.values()),
        tensors=sum(real.values()),
        first=", ".join(f"{n:,}" for n in sorted(differing, reverse=True)[:3]),
        inside=found.allocated.low <= record["peak"] + standing <= found.allocated.high,
        arena=(arena_of(stream).use, max(arenas)) if arenas and max(arenas) else (0, 0),
        process=(found.process.bytes, resident) if resident else (0, 0),
        within=found.process.low <= resident <= found.process.high,
    )


def layers_of(graph: Graph) -> frozenset[str]:
    """Keras's layers: those of the graph, and what the importer wrote as several."""
    names = [layer.name for layer in graph.layers]
    return frozenset((*names, *(name.partition(".")[0] for name in names)))


def _is_scratchpad(name: str, nbytes: int, dtype: str) -> bool:
    """oneDNN's own, which is no tensor of the graph's; max pooling's workspace is one."""
    return dtype == "DT_UINT8" and "MaxPool" not in name


def ours(name: str, layers: frozenset[str]) -> str:
    """TensorFlow's name of a node without the model's scope, its layer without the number at its end."""
    name = OPTIMIZER.sub(r"\1/", name)
    tape = name.startswith(TAPE)
    rest = name.removeprefix(TAPE)
    found = SCOPE.match(rest)
    if found is None or rest.startswith("compile_loss"):
        return name
    head, slash, tail = rest[found.end() :].partition("/")
    base = re.sub(r"_\d+$", "", head)
    inner = f"{base if base in layers else head}{slash}{tail}"
    if base not in layers and head not in layers:
        return name
    return f"{TAPE}{inner}" if tape else inner


def table(found: list[Compared]) -> str:
    """A row for oneDNN on and off, one thread and all, those held out apart."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|---{'|---:' * (len(COLUMNS) - 1)}|"]
    for onednn in ("on", "off"):
        for threads in (1, 0):
            for held in (False, True):
                of = [c for c in found if (c.onednn, c.threads, c.held) == (onednn, threads, held)]
                if of:
                    lines.append(_row(onednn, f"{'one' if threads else 'all'}{', held out' * held}", of))
    return "\n".join(lines)


def _row(onednn: str, threads: str, of: list[Compared]) -> str:
    ran = [c for c in of if not c.refused]
    arenas = [c.arena_off for c in ran if c.arena[1] >= LARGE]
    processes = [c for c in ran if c.process[1]]
    cells = (
        onednn,
        threads,
        str(len(of)),
        str(sum(not c.differing for c in ran)),
        str(sum(c.equal for c in ran)),
        str(sum(c.inside for c in ran)),
        *_spread(arenas),
        *_spread(c.off for c in processes),
        f"{sum(c.within for c in processes)} of {len(processes)}",
    )
    return f"| {' | '.join(cells)} |"


def _spread(shares: Iterable[float]) -> tuple[str, str]:
    known = list(shares)
    return (f"{statistics.median(known):.1%}", f"{max(known):.1%}") if known else ("", "")


def failures(found: list[Compared]) -> list[str]:
    """What is claimed and does not hold."""
    if not found:
        return ["nothing is stored of tensorflow"]
    alone = [c for c in found if c.threads == 1 and not c.refused]
    ran = [c for c in found if not c.refused]
    processes = [c for c in ran if c.process[1]]
    off = {onednn: [c.off for c in processes if c.onednn == onednn] or [0.0] for onednn in ("on", "off")}
    claims = (
        (sum(c.inside for c in ran) >= 0.95 * len(ran), "fewer than 95 % of the peaks lie in the estimate's range"),
        (sum(c.within for c in processes) >= 0.95 * len(processes), "fewer than 95 % of the resident peaks lie in the estimate's range"),
        (statistics.median(off["on"]) <= 0.04 and max(off["on"]) <= 0.12, "with oneDNN the resident peak is off by more than 4 or 12 %"),
        (statistics.median(off["off"]) <= 0.08, "without oneDNN the resident peak's median error is above 8 %"),
    )
    refused = [str(c) for c in found if c.refused]
    differing = [f"not as in the log: {c}" for c in alone if c.differing or not c.equal]
    return [*refused, *differing, *(text for holds, text in claims if not holds)]
