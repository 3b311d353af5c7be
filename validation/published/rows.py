"""The published table, row by row: what was trained, and what torch's ``max_memory_allocated`` said.

mmaction2 prints MiB, mmsegmentation thousands of MiB. Configurations that train the same network on the same input are one run, with all
that was published for it.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

FILE = "cuda_training.csv"
VIDEO = re.compile(r"(\d+) clips x \(3 x T=(\d+) x (\d+)x(\d+)\)")
IMAGE = re.compile(r"(\d+)x(\d+)x(\d+)")
AUXILIARY = re.compile(r"FCNHead\(ch=(\d+),num_convs=(\d+),in=(\d+)\)")
RESNET_WIDTHS = {18: 512, 50: 2048, 101: 2048}


@dataclass(frozen=True, kw_only=True)
class Run:
    """One network, its batch, and the published figures in MiB, which stand for as much as ``rounding`` more or less. ``family`` is
    ``video`` or the backbone's of segmentation (``unet``, ``resnet``)."""

    name: str
    family: str
    build: partial[nn.Module]
    shape: tuple[int, ...]
    published: tuple[float, ...]
    rounding: float
    configurations: tuple[str, ...]

    @cached_property
    def segments(self) -> bool:
        """Whether labels are maps: the network is then called with them, and returns its loss."""
        return self.family != "video"


def runs(folder: Path) -> list[Run]:
    """All that are rebuilt, in the order of the file."""
    found: dict[str, Run] = {}
    with (folder / FILE).open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            for run in _read(row):
                before = found.get(run.name)
                found[run.name] = run if before is None else _joined(before, run)
    return list(found.values())


def left_out(folder: Path) -> list[str]:
    """Configurations that are not rebuilt."""
    with (folder / FILE).open(encoding="utf-8", newline="") as file:
        return [row["config"] for row in csv.DictReader(file) if not list(_read(row))]


def _joined(one: Run, other: Run) -> Run:
    return Run(
        name=one.name,
        family=one.family,
        build=one.build,
        shape=one.shape,
        published=tuple(sorted({*one.published, *other.published})),
        rounding=max(one.rounding, other.rounding),
        configurations=(*one.configurations, *other.configurations),
    )


def _read(row: Mapping[str, str]) -> Iterator[Run]:
    notes = dict(part.partition("=")[::2] for part in row["notes"].split("; "))
    batch, config = int(row["batch_per_gpu"]), row["config"]
    if row["measured_MiB"]:
        measured, rounding = float(row["measured_MiB"]), 1.0
    else:
        measured, rounding = 1000 * float(row["measured_GB"]), 500.0 / 10 ** len(row["measured_GB"].partition(".")[2])
    given: dict[str, Any] = {"published": (measured,), "rounding": rounding, "configurations": (config,)}
    kind, body, head = row["model"].split("|")
    if kind.startswith("Recognizer"):
        name, build, shape = _video(kind, body, batch, row["input"], notes)
        yield Run(name=name, family="video", build=build, shape=shape, **given)
    elif "dice" not in config:
        name, build = _segmentation(body, head, notes)
        sizes = tuple(map(int, IMAGE.fullmatch(row["input"]).groups()))  # type: ignore[union-attr]
        shape = (batch, *sizes)
        title = f"{name}, {batch} images of {sizes[1]}x{sizes[2]}"
        family = "unet" if body == "UNet" else "resnet"
        yield Run(name=title, family=family, build=build, shape=shape, **given)


def _video(kind: str, body: str, batch: int, given: str, notes: Mapping[str, str]) -> tuple[str, partial[nn.Module], tuple[int, ...]]:
    from validation.published.video import C3d, ResNet3d, Tsn

    clips, frames, *size = map(int, VIDEO.fullmatch(given).groups())  # type: ignore[union-attr]
    classes = int(notes["num_classes"])
    if kind == "Recognizer2D":
        channels = int(notes.get("bb.in_channels", 3))
        of = "images" if channels == 3 else f"images of {channels} channels"
        depth = int(notes["bb.depth"])
        build = partial(Tsn, depth, clips, classes, channels)
        return f"TSN-R{depth}, {batch}x{clips} {of}, {classes} classes", build, (batch, clips, channels, *size)
    shape = (batch, clips, 3, frames, *size)
    if body == "C3D":
        return f"C3D, {batch} clips of {frames} frames", partial(C3d, classes), shape
    inflated = "bb.pool1_stride_t" in notes and notes["bb.pool1_stride_t"] == "2"
    build = partial(
        ResNet3d,
        int(notes["bb.depth"]),
        classes,
        kernel=_tuple(notes["bb.conv1_kernel"]),
        stride_t=int(notes["bb.conv1_stride_t"]),
        pool_t=int(notes["bb.pool1_stride_t"]),
        inflate=_tuple(notes["bb.inflate"]),
        pool2=inflated,
    )
    return f"{'I3D' if inflated else 'SlowOnly'}-R{notes['bb.depth']}, {batch} clips of {frames} frames", build, shape


def _segmentation(body: str, head: str, notes: Mapping[str, str]) -> tuple[str, partial[nn.Module]]:
    classes, width, index = int(notes["head.num_classes"]), int(notes["head.channels"]), int(notes["head.in_index"])
    auxiliary = tuple(map(int, AUXILIARY.fullmatch(notes["aux"]).groups()))  # type: ignore[union-attr]
    fcn = (int(notes["head.num_convs"]), notes["head.concat_input"] == "True") if head == "FCNHead" else None
    name = {"FCNHead": "FCN", "PSPHead": "PSPNet", "ASPPHead": "DeepLabv3"}[head]
    depth = 0 if body == "UNet" else int(body.removeprefix("ResNetV1c"))
    title = f"{name}, UNet-S5-D16" if body == "UNet" else f"{name}, ResNet-{depth} V1c"
    return title, partial(segmentor, depth, head, index, width, classes, fcn, auxiliary)


def segmentor(
    depth: int, head: str, index: int, width: int, classes: int, fcn: tuple[int, bool] | None, auxiliary: tuple[int, ...]
) -> nn.Module:
    """The network with its two heads; a ``depth`` of 0 is the U-Net."""
    from validation.published.segmentation import AsppHead, FcnHead, PspHead, ResNetV1c, Segmentor, UNet

    inputs = RESNET_WIDTHS.get(depth, 64)
    if fcn is not None:
        main: Any = FcnHead(inputs, index, width, classes, convolutions=fcn[0], concat=fcn[1])
    else:
        main = (PspHead if head == "PSPHead" else AsppHead)(inputs, index, width, classes)
    channels, number, below = auxiliary
    beside = FcnHead(below, index - 1, channels, classes, convolutions=number, concat=False)
    return Segmentor(ResNetV1c(depth) if depth else UNet(), main, beside)


def _tuple(text: str) -> Any:
    """Nested parentheses of whole numbers."""
    import json

    return _tuples(json.loads(text.replace("(", "[").replace(",)", "]").replace(")", "]")))


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
