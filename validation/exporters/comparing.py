"""Files that exporters wrote, read and estimated without torch; and where a file says the same as the module, the same bytes.

A graph is the same where its calls are, and the bytes of its weights (exporters leave out biases that are zero): those of torch's module
once norms are folded as exporters fold them, and views and reductions are called what an exporter calls them. A file does not know how long
Python's variables hold a tensor, so of neither do they.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import memest
from memest.errors import MemestError
from memest.network.graph import Graph, default_drops
from memest.runtimes.rewriting import DROPOUTS, Rewriting, drop_identities, fold_norms
from validation.exporters.storing import load
from validation.rows import normalized

MACHINE = memest.Cpu(isa="avx512", threads=1)
COLUMNS = ("exporter", "networks", "not exported", "files", "read", "estimated", "the same calls", "the same bytes")
ALIKE = {
    **dict.fromkeys(("flatten", "view", "unflatten", "_unsafe_view", "unsqueeze", "squeeze"), "reshape"),
    **{f"adaptive_avg_pool{d}d": "mean" for d in (1, 2, 3)},
    **dict.fromkeys(("transpose", "t", "swapaxes"), "permute"),
    **dict.fromkeys(("relu6", "hardtanh"), "clamp"),
    **dict.fromkeys(("mm", "bmm"), "matmul"),
}


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A file: why it was not ``exported``, ``read`` or ``estimated`` (''), whether its calls are the module's, and both peaks (None: other
    calls) with whether all requests are equal."""

    network: str
    exporter: str
    failed: str = ""
    unread: str = ""
    unplayed: str = ""
    same: bool = False
    peaks: tuple[int, int] = (0, 0)
    streams: bool = False

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong with it."""
        return not self.unread and not self.unplayed and (self.streams or not self.same)

    def __str__(self) -> str:
        module = "equal" if self.streams else f"{self.peaks[0]:,} bytes, {self.peaks[1]:,} of the module"
        said = self.failed or self.unread or self.unplayed or (module if self.same else "other calls")
        return f"{self.network} {self.exporter}  {said}"


def compare(only: str = "") -> Iterator[Compared]:
    """Every stored file that is wanted (part of a network's name)."""
    with tempfile.TemporaryDirectory() as folder:
        for record in load()[1]:
            if only in record["network"]:
                module = plain(memest.loads(record["graph"], form="json")) if "graph" in record else None
                for exporter, file in record["files"].items():
                    yield _compared(record["network"], exporter, file, module, Path(folder) / "net.onnx")


def _compared(network: str, exporter: str, file: dict[str, Any], module: Graph | None, path: Path) -> Compared:
    case: dict[str, Any] = {"network": network, "exporter": exporter}
    if "failed" in file:
        return Compared(**case, failed=file["failed"])
    _write(file["text"], path)
    try:
        graph = memest.from_onnx(path)
    except MemestError as e:
        return Compared(**case, unread=str(e))
    try:
        found = memest.estimate(graph, mode="infer", machine=MACHINE)
    except MemestError as e:
        return Compared(**case, unplayed=str(e))
    if module is None or _calls(graph) != _calls(module):
        return Compared(**case)
    wanted = memest.estimate(module, input_shape=[found.input_shapes[i.name] for i in graph.inputs], mode="infer", machine=MACHINE)
    first, second = (normalized([e.delta for e in estimate.events]) for estimate in (found, wanted))
    if first != second and found.standing_bytes != wanted.standing_bytes:
        return Compared(**case)
    return Compared(**case, same=True, peaks=(found.peak_bytes, wanted.peak_bytes), streams=first == second)


def _write(text: str, path: Path) -> None:
    import onnx
    from google.protobuf import text_format

    path.write_bytes(text_format.Parse(text, onnx.ModelProto()).SerializeToString())


def plain(graph: Graph) -> Graph:
    """A module's graph in inference as an exporter has it: norms folded, no dropouts, values that die after their last reader."""
    rewriting = Rewriting(graph.inference or graph)
    drop_identities(rewriting, DROPOUTS)
    fold_norms(rewriting)
    made = rewriting.graph()
    return made.with_(layers=default_drops(made.layers, made.outputs, [p.name for p in made.parameters]))


def _calls(graph: Graph) -> Counter[str]:
    return Counter(ALIKE.get(layer.op, layer.op) for layer in graph.layers)


def table(found: Iterable[Compared]) -> str:
    """A line an exporter."""
    every = list(found)
    lines = [f"| {' | '.join(COLUMNS)} |", "|---|---:|---:|---:|---:|---:|---:|---:|"]
    for exporter in dict.fromkeys(c.exporter for c in every):
        of = [c for c in every if c.exporter == exporter]
        files = [c for c in of if not c.failed]
        read, same = [c for c in files if not c.unread], [c for c in files if c.same]
        counts = (len(of), len(of) - len(files), len(files), len(read), sum(not c.unplayed for c in read), len(same))
        lines.append(f"| {exporter} | {' | '.join(map(str, counts))} | {sum(c.streams for c in same)} |")
    return "\n".join(lines)


def failures(found: Iterable[Compared]) -> list[str]:
    """What does not hold."""
    every = list(found)
    return ["no file of an exporter is stored"] if not every else [str(c) for c in every if not c.sound]
