"""The lines of the speed table: what is measured, what it is held against, and what is claimed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from memest.memory.planners import PLANNERS
from validation.bench.builds import BASE, THIS, Build
from validation.bench.probes import GRIDS
from validation.bench.table import Claim

CARDED = {"ResNet-50": "resnet50", "ResNet-152": "resnet152"}
TORCHVISION = {"ResNet-50": "resnet50", "DenseNet-121": "densenet121", "MobileNetV2": "mobilenet_v2", "Swin-T": "swin_t"}


@dataclass(frozen=True)
class Probe:
    """A function of :mod:`validation.bench.probes` with its argument; it finds several numbers by name."""

    name: str
    argument: str

    @property
    def title(self) -> str:
        """``network resnet50``."""
        return f"{self.name} {self.argument}"

    def measure(self, build: Build) -> Mapping[str, float]:
        """The numbers of one child process."""
        return build.answer(self.name, self.argument)


@dataclass(frozen=True)
class Command:
    """A whole process, ``python`` with these arguments (``OUT`` stands for a file to write); it finds ``seconds`` of CPU time, the least
    of ``times`` processes."""

    arguments: tuple[str, ...]
    times: int = 1

    @property
    def title(self) -> str:
        """``python -c pass``."""
        return " ".join(("python", *self.arguments))

    def measure(self, build: Build) -> Mapping[str, float]:
        """The seconds of the fastest of the processes."""
        with tempfile.TemporaryDirectory(prefix="memest-bench-") as folder:
            arguments = [str(Path(folder, "out.html")) if a == "OUT" else a for a in self.arguments]
            return {"seconds": min(build.cpu_seconds(*arguments) for _ in range(self.times))}


Source: TypeAlias = Probe | Command
Found: TypeAlias = dict[tuple[str, Source, str], float]


def milliseconds(seconds: float) -> str:
    """``12.3 ms``, or ``0.123 ms``."""
    return f"{1000 * seconds:,.{1 if seconds >= 0.01 else 3}f} ms"


def in_seconds(seconds: float) -> str:
    """``1.23 s``."""
    return f"{seconds:,.2f} s"


def points(seconds: float) -> str:
    """Points a second, from seconds a point."""
    return f"{1e-6 / seconds:,.2f} million/s"


def in_bytes(number: float) -> str:
    """``40 bytes``."""
    return f"{number:,.0f} bytes"


def mebibytes(number: float) -> str:
    """``256 MiB``."""
    return f"{number / 2**20:,.0f} MiB"


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line: the number ``name`` of a ``source``, held against the number ``floor``: the least of all builds where it is ``shared``,
    the same work in each, else that of the build itself. ``most`` is the target: in floors with ``in_floors``, else in seconds or whole
    bytes (a process grows by pages)."""

    what: str
    source: Source
    name: str
    shown: Callable[[float], str]
    floor: tuple[Source, str] | None = None
    shared: bool = False
    most: float | None = None
    in_floors: bool = False

    @property
    def sources(self) -> tuple[Source, ...]:
        """Everything that must be measured for it."""
        return (self.source,) if self.floor is None else (self.source, self.floor[0])

    @property
    def target(self) -> str:
        """The target in words."""
        if self.most is None:
            return ""
        if self.in_floors:
            return f"<= {self.most:g} floors"
        return f"{'>=' if self.shown is points else '<='} {self.shown(self.most)}"

    def value(self, found: Found, build: str) -> float | None:
        """The number of a build; None where it was not measured."""
        return found.get((build, self.source, self.name))

    def floors(self, found: Found, build: str) -> float | None:
        """How many floors the number of a build is."""
        value, floor = self.value(found, build), self._floor(found, build)
        return None if value is None or not floor else value / floor

    def claim(self, found: Found) -> Claim:
        """Whether this build meets the target."""
        value, floors = self.value(found, THIS), self.floors(found, THIS)
        counted = floors if self.in_floors else value
        assert value is not None and counted is not None and self.most is not None
        said = f"{self.shown(value)}, {floors:.2f} floors" if floors is not None else self.shown(value)
        return Claim(self.what, said, self.target, counted <= self.most or (self.shown is in_bytes and round(counted) <= self.most))

    def row(self, found: Found) -> tuple[str, ...]:
        """The line as it is printed."""
        base, this = (self.value(found, build) for build in (BASE, THIS))
        gain = f"{base / this:,.1f}x" if base and this and base > 0 and this > 0 else ""
        values = [
            text for build in (BASE, THIS) for text in (self._shown(self.value(found, build)), self._times(self.floors(found, build)))
        ]
        holds = "" if self.most is None else "yes" if self.claim(found).holds else "NO"
        return (self.what, *values, gain, self._shown(self._floor(found, THIS)), self.target, holds)

    def _floor(self, found: Found, build: str) -> float | None:
        if self.floor is None:
            return None
        builds = (BASE, THIS) if self.shared else (build,)
        return min((found[at] for b in builds if (at := (b, *self.floor)) in found), default=None)

    def _shown(self, value: float | None) -> str:
        return "" if value is None else self.shown(value)

    @staticmethod
    def _times(floors: float | None) -> str:
        return "" if floors is None else f"{floors:,.2f}"


NETWORKS = {title: Probe("network", name) for title, name in TORCHVISION.items()}
NEW_BATCHES = tuple(
    Line(
        what=f"estimate at the next new batch (mean), graph compiled, {title}",
        source=probe,
        name="new batch",
        shown=milliseconds,
        most=1e-4,
    )
    for title, probe in NETWORKS.items()
)
_PYTHON, _IMPORT = Command(("-c", "pass"), times=5), Command(("-c", "import memest"), times=5)
_COMMANDS = {
    "estimate resnet50 --input 3x224x224 --batch 8 --train": (0.20, 5),
    "estimate resnet50 --input 3x224x224 --batch 64 --train --on a100-40gb": (0.50, 5),
    "formula resnet50 --train": (0.45, 3),
    "report unet3d -o OUT": (2.0, 1),
    "advise resnet50 --input 3x224x224 --batch 64 --optimizer adam --budget 2GiB": (2.0, 1),
}


STREWN_BATCHES = tuple(
    Line(what=f"the same at batches at random, {title}", source=probe, name="strewn batch", shown=milliseconds, most=1e-4)
    for title, probe in NETWORKS.items()
)


def _from_torch(title: str, probe: Probe) -> Iterator[Line]:
    floor = (probe, "meta forward")
    for name, what in (("from_torch", "from_torch, nothing remembered"), ("from_torch again", "from_torch, once more")):
        what = f"{what} / one meta forward, {title}"
        yield Line(what=what, source=probe, name=name, shown=milliseconds, floor=floor, shared=True, most=1.5, in_floors=True)


def _compiling(title: str, probe: Probe) -> Iterator[Line]:
    floor = (probe, "play")
    mean, slowest = (f"compiling: {which} of sizes 2 to 4 / one play, {title}" for which in ("the mean", "the slowest"))
    yield Line(what=mean, source=probe, name="sizes 2 to 4", shown=milliseconds, floor=floor, most=5, in_floors=True)
    yield Line(what=slowest, source=probe, name="slowest of sizes 2 to 4", shown=milliseconds, floor=floor)


def _sweeps(grid: str) -> Iterator[Line]:
    source = Probe("sweep", grid)
    floor = (source, "columns")
    yield Line(what=f"sweep, {grid}, graph compiled", source=source, name="again", shown=points, floor=floor, shared=True, most=1e-7)
    yield Line(what=f"sweep, {grid}, graph never asked before", source=source, name="fresh", shown=points, floor=floor, shared=True)


def _memory(grid: str) -> Iterator[Line]:
    source = Probe("memory", grid)
    floor = (source, "columns")
    yield Line(what="sweep, memory of a further point", source=source, name="further point", shown=in_bytes, floor=floor, most=40)
    yield Line(what="sweep, memory beside the columns", source=source, name="beside the columns", shown=mebibytes)


def _card(title: str, name: str) -> Iterator[Line]:
    """Where blocks lie has to be played: what an estimate costs beyond that is claimed, beside a processor's it is shown."""
    source = Probe("card", name)
    beside = {
        "one step played for a processor": ("played", 1.0),
        "the allocator's play in it": ("allocator", 5.0),
        "the same for a processor, graph compiled": ("compiled", None),
    }
    for floor, (number, most) in beside.items():
        what = f"on a card: estimate at a new batch / {floor}, {title}"
        yield Line(what=what, source=source, name="new batch", shown=milliseconds, floor=(source, number), most=most, in_floors=True)
    yield Line(what=f"on a card: first estimate, to steady state, {title}", source=source, name="steady", shown=in_seconds, most=1)
    yield Line(what=f"on a card: the allocator alone, events, {title}", source=source, name="event", shown=points, most=5e-6)


LIVES = {"of a chain": "10", "alive together": "4000"}  # the most events that a tensor lives for


def _planners(which: str, life: str) -> Iterator[Line]:
    source = Probe("planners", life)
    for planner in PLANNERS:
        what = f"planning 2,000 tensors {which}: {planner}"
        yield Line(what=what, source=source, name=planner, shown=milliseconds, most=0.3)


def _cold(command: str, most: float, times: int) -> Line:
    source = Command(("-m", "memest", *command.split()), times)
    title = command.removesuffix(" -o OUT")
    return Line(what=f"cold: memest {title}", source=source, name="seconds", shown=in_seconds, floor=(_IMPORT, "seconds"), most=most)


LINES: tuple[Line, ...] = (
    *(line for network in NETWORKS.items() for line in _from_torch(*network)),
    *(line for network in NETWORKS.items() for line in _compiling(*network)),
    *NEW_BATCHES,
    *STREWN_BATCHES,
    *(line for grid in GRIDS for line in _sweeps(grid)),
    *_memory("crops of every size"),
    *(line for network in CARDED.items() for line in _card(*network)),
    *(line for lives in LIVES.items() for line in _planners(*lives)),
    Line(what="cold: python -c pass", source=_PYTHON, name="seconds", shown=in_seconds),
    Line(what="cold: python -c 'import memest'", source=_IMPORT, name="seconds", shown=in_seconds),
    *(_cold(command, *how) for command, how in _COMMANDS.items()),
)
