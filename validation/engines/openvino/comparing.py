"""Predictions against what was measured: nodes and pool of each case, and the process. Needs neither torch nor openvino."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import memest
from memest.errors import MemestError
from memest.network.binding import bind
from memest.network.graph import Graph
from memest.runtimes.openvino.lowering import lowered
from memest.runtimes.openvino.rows import told
from memest.runtimes.table import runtime_named
from validation.engines.openvino.measuring import Variant, variant_of
from validation.engines.openvino.storing import load

DTYPES = {"f32": "float32", "bf16": "bfloat16"}
LARGE = 200 << 20  # bytes of a process from which on its figure is claimed
COLUMNS = ("precision", "cases", "networks", "pool equal", "nodes equal", "process median", "worst", "within range")
WHERE = {"onnx": "", "external": "weights beside the file", "ir": "OpenVINO's own form"}
LAYOUTS = {"acb": "last", "acdb": "last", "acdeb": "last"}


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A case: pools and resident peaks (predicted, measured), whether the range holds the latter, and the first node that differs."""

    network: str
    shape: tuple[int, ...]
    variant: Variant
    pool: tuple[int, int] = (0, 0)
    process: tuple[int, int] = (0, 0)
    within: bool = False
    first: str = ""
    refused: str = ""

    @property
    def kind(self) -> str:
        """Its row in the table: the precision, and what is not as usual."""
        v = self.variant
        besides = ("AVX2" * (v.isa == "avx2"), "the legacy exporter" * (v.exporter == "legacy"), WHERE[v.weights])
        return ", ".join([v.precision, *filter(None, besides)])

    @property
    def equal(self) -> bool:
        """Whether the pool is equal to the byte."""
        return not self.refused and self.pool[0] == self.pool[1]

    @property
    def off(self) -> float:
        """The share by which the resident peak is off."""
        return abs(self.process[0] / self.process[1] - 1) if self.process[1] else 1.0

    def __str__(self) -> str:
        case = f"{self.network} {'x'.join(map(str, self.shape))} {' '.join(map(str, self.variant))}"
        if self.refused:
            return f"refused  {case}  {self.refused}"
        pool = f"pool {self.pool[0]:,} of {self.pool[1]:,}"
        return f"{'equal' if self.equal else 'differs'}  {case}  {pool}  process {self.off:.1%} off  {self.first}".rstrip()


def compare(only: str = "") -> Iterator[Compared]:
    """Every stored case that is wanted."""
    _, graphs, records = load()
    read = {name: memest.loads(text) for name, text in graphs.items() if only in name}
    for record in records:
        if record["network"] in read:
            yield _compared(read[record["network"]], record)


def _compared(graph: Graph, record: dict[str, Any]) -> Compared:
    shape, variant = tuple(record["shape"]), variant_of(record)
    dtype = DTYPES[variant.precision]
    case: dict[str, Any] = {"network": record["network"], "variant": variant, "shape": shape}
    asked: dict[str, Any] = {"machine": memest.Cpu(isa=variant.isa, threads=variant.threads), "dtype": dtype, "ov_weights": variant.weights}
    try:
        found = memest.estimate(graph, input_shape=shape, mode="infer", runtime="openvino", **asked)
    except MemestError as error:
        return Compared(**case, refused=str(error))
    assert found.reserved.bytes is not None and found.process.bytes is not None
    assert found.process.low is not None and found.process.high is not None
    return Compared(
        **case,
        pool=(found.reserved.bytes, record["pool"]),
        process=(found.process.bytes, record["peak"]),
        within=found.process.low <= record["peak"] <= found.process.high,
        first=first_difference(graph, shape, dtype, record["nodes"]),
    )


def first_difference(graph: Graph, shape: tuple[int, ...], dtype: str, nodes: list[list[Any]]) -> str:
    """The first node that is not as the plugin tells it, in words; nothing where all are equal."""
    shapes = {graph.inputs[0].name: shape}
    target = runtime_named("null").target(None, None, None)
    found = lowered(graph, shapes, bind(graph.inputs, shapes), target, dtype, remember=True)
    mine = [_told(layer.op, told(layer, "shapes")[0], told(layer, "layout"), told(layer, "dtype")) for layer in found.layers]
    real = [
        _told(kind, tuple(made[0]), LAYOUTS.get(layout, "planar"), DTYPES.get(precision, precision))
        for kind, made, layout, precision, _ in nodes
        if kind not in ("Input", "Output")
    ]
    for n in range(max(len(mine), len(real))):
        a, b = (nodes[n] if n < len(nodes) else "nothing" for nodes in (mine, real))
        if a != b:
            return f"node {n} of {len(real)}: {a} instead of {b}"
    return ""


def _told(kind: str, shape: tuple[int, ...], layout: str, dtype: str) -> str:
    return f"{kind} {'x'.join(map(str, shape))} {layout} {dtype}"


def table(found: list[Compared]) -> str:
    """A row a precision, and one for each thing that is not as usual."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---|---:|---:|---:|---:|---:|---:|---:|"]
    for kind in dict.fromkeys([*DTYPES, *sorted(c.kind for c in found)]):
        of = [c for c in found if c.kind == kind]
        large = [c.off for c in of if c.process[1] >= LARGE] or [0.0]
        names = len({c.network for c in of})
        figures = (
            f"{sum(c.equal for c in of)}",
            f"{sum(not c.first and not c.refused for c in of)}",
            f"{statistics.median(large):.1%}",
            f"{max(large):.1%}",
            f"{sum(c.within for c in of)}",
        )
        lines.append(f"| {kind} | {len(of)} | {names} | {' | '.join(figures)} |")
    return "\n".join(lines)


def failures(found: list[Compared]) -> list[str]:
    """What is claimed and does not hold."""
    if not found:
        return ["nothing is stored of openvino"]
    large = [c.off for c in found if c.process[1] >= LARGE]
    claims = (
        (sum(c.equal for c in found) >= 0.95 * len(found), "fewer than 95 % of the pools are equal"),
        (sum(c.within for c in found) >= 0.95 * len(found), "fewer than 95 % of the ranges hold the resident peak"),
        (not large or statistics.median(large) <= 0.03, "the resident peak's median error is above 3 %"),
        (not large or max(large) <= 0.10, "the resident peak is more than 10 % off"),
    )
    return [text for holds, text in claims if not holds]
