"""Asks cuDNN about the convolutions of the built-in and of torchvision's networks, and writes the answers that memest stores.

    python -m validation.cuda.plans geometries            # torch and torchvision: which convolutions there are (no data, no GPU)
    python -m validation.cuda.plans answers 8.0 9.0       # nvidia-cudnn: what the installed release answers for these kinds of card
    python -m validation.cuda.plans check 8.0 --every 50  # stored answers against the installed release
    python -m validation.cuda.plans alike 9.20 9.0 --every 4  # where a sample shows no difference, another release's stand for its own

A release is asked where it is installed; each in an environment of its own. A kind of card is asked as one card: in cuDNN's choice nothing
else of a card counts but, for 9.0, its clocks.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

from memest.libraries.cudnn import library, table
from memest.libraries.cudnn.errata import passed_over, torch_with
from memest.libraries.cudnn.question import DIRECTIONS, Convolution, torch_calls
from memest.libraries.cudnn.table import Geometry, geometry_of
from memest.libraries.cudnn.workspace import Card, Formula, Release, column_name, filled_bytes
from memest.machines.devices import device_named

CARDS = {
    "7.0": "v100-32gb",
    "7.5": "t4",
    "7.5-large": "quadro-rtx-6000",
    "8.0": "a100-40gb",
    "8.6": "rtx-3090",
    "8.9": "rtx-4090",
    "9.0": "h100-80gb",
    "10.0": "b200-180gb",
    "12.0": "rtx-5090",
}
STORED_DTYPES = ("float32", "float16", "bfloat16")
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SCENES, CLIPS, VOLUMES = (1, 2, 4, 8, 16), (1, 2, 4, 8, 16, 32), (1, 2, 4, 8)
CLASSIFICATION = (
    *("alexnet", "vgg11", "vgg13", "vgg16", "vgg19", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d"),
    *("resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2", "densenet121", "densenet161", "densenet169"),
    *("densenet201", "googlenet", "inception_v3", "squeezenet1_0", "squeezenet1_1", "mobilenet_v2", "mobilenet_v3_small"),
    *("mobilenet_v3_large", "shufflenet_v2_x1_0", "mnasnet1_0", "efficientnet_b0", "efficientnet_v2_s", "regnet_y_400mf", "regnet_y_8gf"),
    *("convnext_tiny", "convnext_base", "vit_b_16", "vit_b_32", "vit_l_16", "swin_t", "swin_b", "swin_v2_t", "maxvit_t"),
)
SEGMENTATION = ("deeplabv3_resnet50", "deeplabv3_resnet101", "deeplabv3_mobilenet_v3_large", "fcn_resnet50", "fcn_resnet101")
VIDEO = {"r3d_18": 112, "mc3_18": 112, "r2plus1d_18": 112, "s3d": 224, "mvit_v2_s": 224, "swin3d_t": 224}
UNUSUAL = {"inception_v3": 299}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("geometries", help="write the convolutions")
    answers = commands.add_parser("answers", help="ask, and write the answers")
    answers.add_argument("kinds", nargs="+", choices=CARDS)
    answers.add_argument("--dtypes", nargs="+", default=STORED_DTYPES, choices=STORED_DTYPES)
    check = commands.add_parser("check", help="compare stored answers with the installed release's")
    check.add_argument("kinds", nargs="+", choices=CARDS)
    check.add_argument("--every", type=int, default=1, help="of so many questions ask one")
    check.add_argument("--stored", help="compare with another release's answers: 9.19")
    alike = commands.add_parser("alike", help="store another release's columns as the installed one's where a sample has no difference")
    alike.add_argument("release", help="the other release: 9.20")
    alike.add_argument("kinds", nargs="+", choices=CARDS)
    alike.add_argument("--dtypes", nargs="+", default=STORED_DTYPES, choices=STORED_DTYPES)
    alike.add_argument("--every", type=int, default=1, help="of so many questions ask one")
    asked = parser.parse_args(arguments)
    if asked.command == "geometries":
        return _write_geometries()
    wanted = asked.kinds
    if library.installed() is None:
        print("no cuDNN is installed that could be asked", file=sys.stderr)
        return 1
    if asked.command == "alike":
        return _write_alike(_release(asked.release), wanted, asked.dtypes, asked.every)
    return _write_answers(wanted, asked.dtypes) if asked.command == "answers" else _check(wanted, asked.every, asked.stored)


def geometries() -> dict[Geometry, set[int]]:
    """The convolutions of every network, and the batches they are asked at."""
    found: dict[Geometry, set[int]] = {}
    for batches, module, shape in _networks():
        for question in _convolutions_of(module, shape):
            found.setdefault(geometry_of(question), set()).update(batches)
    return found


def _networks() -> Iterator[tuple[tuple[int, ...], Any, tuple[int, ...]]]:
    import torch
    from torchvision import models

    from validation import networks

    def made(name: str, **keywords: Any) -> Any:
        return models.get_model(name, weights=None, **keywords).to("meta")

    for name in CLASSIFICATION:
        keywords = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        yield IMAGES, made(name, **keywords), (3, UNUSUAL.get(name, 224), UNUSUAL.get(name, 224))
    for name in SEGMENTATION:
        yield SCENES, made(name, weights_backbone=None, aux_loss=True), (3, 520, 520)
    yield SCENES, made("lraspp_mobilenet_v3_large", weights_backbone=None), (3, 520, 520)
    for name, size in VIDEO.items():
        yield CLIPS, made(name), (3, 16, size, size)
    with torch.device("meta"):
        yield VOLUMES, networks.UNet3d(), (1, 144, 144, 144)
        yield (*VOLUMES, 16), networks.UNet2d(), (3, 512, 512)
        yield VOLUMES, networks.VNet(), (1, 128, 128, 64)
        yield VOLUMES, networks.PlainConvUNet(), (1, 128, 128, 128)
        yield VOLUMES, networks.ResidualEncoderUNet(), (1, 128, 128, 128)


def _convolutions_of(module: Any, shape: tuple[int, ...]) -> list[Convolution]:
    import torch
    from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

    found: list[Convolution] = []

    def note(layer: Any, given: Any, _: Any) -> None:
        padding = layer.padding if not isinstance(layer.padding, str) else [(k - 1) // 2 for k in layer.kernel_size]
        transposed = isinstance(layer, _ConvTransposeNd)
        calls = torch_calls(
            tuple(given[0].shape),
            tuple(layer.weight.shape),
            stride=layer.stride,
            padding=padding,
            dilation=layer.dilation,
            transposed=transposed,
            output_padding=layer.output_padding if transposed else (),
            groups=layer.groups,
        )
        found.append(calls.forward)

    for layer in module.modules():
        if isinstance(layer, _ConvNd):
            layer.register_forward_hook(note)
    module.train()(torch.empty(2, *shape, device="meta"))
    return found


def _write_geometries() -> int:
    found = geometries()
    batches = sorted({tuple(sorted(b)) for b in found.values()})
    rows = [[batches.index(tuple(sorted(found[g]))), *map(list, g)] for g in sorted(found)]
    lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
    table.STORED.mkdir(exist_ok=True)
    (table.STORED / "geometries.json").write_text(f'{{"batches": {json.dumps(batches)},\n"geometries": [\n{lines}\n]}}\n', encoding="utf-8")
    print(f"{len(rows)} convolutions")
    return 0


def _write_answers(kinds: Iterable[str], dtypes: Sequence[str]) -> int:
    release = library.installed()
    assert release is not None
    for kind in kinds:
        card = _card(kind)
        for dtype, last in product(dtypes, (False, True)):
            name = column_name(kind, dtype, last)
            if name in table.names(release):
                continue
            column = _column(card, dtype, last)
            if not column["formulas"]:  # an architecture without this dtype
                continue
            same = [r for r in table.releases() if r != release and table.column(r, name) == column]
            size = _write(release, name, same[0] if same else column)
            print(f"{release[0]}.{release[1]} {name}: {size} bytes", flush=True)
    return 0


def _write_alike(other: Release, kinds: Iterable[str], dtypes: Sequence[str], every: int) -> int:
    release = library.installed()
    assert release is not None
    for kind, dtype, last in product(kinds, dtypes, (False, True)):
        name = column_name(kind, dtype, last)
        if name in table.names(release) or name not in table.names(other):
            continue
        agree = _agreement(_card(kind), dtype, last, other, every)
        if agree[True] and not agree[False]:
            _write(release, name, other)
        print(f"{release[0]}.{release[1]} {name}: {agree[True]} the same, {agree[False]} not", flush=True)
    return 0


def _write(release: Release, name: str, column: dict[str, Any] | Release) -> int:
    """A column, or the release that has the same one; the bytes it takes."""
    with ZipFile(table.archive_of(release), "a", ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr(name, json.dumps(column, separators=(",", ":")))
        return archive.getinfo(name).compress_size


def _column(card: Card, dtype: str, channels_last: bool) -> dict[str, Any]:
    formulas: dict[Formula, int] = {}
    rows: list[Any] = []
    release = library.installed()
    assert release is not None
    for questions in _rows(card, release, dtype, channels_last):
        answers = []
        for question in questions:
            answers.append(_answer(card, question))
            if answers[-1] is None:
                break
        if None in answers:
            rows.append(None)
            continue
        found = _formulas(questions, answers)
        indices = [formulas.setdefault(f, len(formulas)) for f in found]
        rows.append(indices[0] if len(set(indices)) == 1 else indices)
    return {"clocks": table.clocks_of(card), "formulas": [list(f) for f in formulas], "answers": rows}


def _rows(card: Card, release: Release, dtype: str, channels_last: bool) -> Iterator[list[Convolution]]:
    """For each stored convolution and direction the questions, one a batch, as the torch asks that a release comes with; none where torch
    does not ask cuDNN."""
    torch = torch_with(release)
    for (x, w, stride, padding, dilation), (_, batches) in table.places().items():
        native = w[1] == 1 and x[0] > 1 and not channels_last and dtype != "float16" and w[0] % x[0] == 0
        spatial = zip(x[1:], w[2:], stride, padding, dilation, strict=True)
        y = (w[0], *((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in spatial))
        for direction in DIRECTIONS:
            question = Convolution(
                direction=direction,
                x=(1, *x),
                w=w,
                y=(1, *y),
                stride=stride,
                padding=padding,
                dilation=dilation,
                dtype=dtype,
                channels_last=channels_last,
            )
            question = replace(question, without=passed_over(torch, release, card, question))
            yield [question.at_batch(batch) for batch in ([] if native else batches)]


def _answer(card: Card, question: Convolution) -> int | None:
    release = library.installed()
    assert release is not None
    return next(iter(library.plans(card, release, question) or ()), None)


def _formulas(questions: list[Convolution], answers: Sequence[int | None]) -> list[Formula]:
    """A formula a batch, as few different ones as can be."""
    fitting = [[f for f in _fitting(q, a)] for q, a in zip(questions, answers, strict=True) if a is not None]
    found: list[Formula | None] = [None] * len(fitting)
    while None in found:
        counted = Counter(f for have, fits in zip(found, fitting, strict=True) if have is None for f in fits)
        best = max(counted, key=lambda f: (counted[f], -f[4], -f[3], -sum(f[:3]), f))
        found = [best if have is None and best in fits else have for have, fits in zip(found, fitting, strict=True)]
    return [f for f in found if f is not None]


def _fitting(question: Convolution, answer: int) -> Iterator[Formula]:
    seen = set()
    for unit in (1, 4, 8):
        x, w, y = (filled_bytes(question, (*copies, unit, 0)) for copies in ((1, 0, 0), (0, 1, 0), (0, 0, 1)))
        if (x, w, y) not in seen:
            seen.add((x, w, y))
            for i, j, k in product(range(3), repeat=3):
                rest = answer - i * x - j * w - k * y
                if rest >= 0:
                    yield i, j, k, unit, rest


def _check(kinds: Iterable[str], every: int, stored: str | None) -> int:
    release = library.installed()
    assert release is not None
    with_release = release if stored is None else _release(stored)
    total: Counter[bool] = Counter()
    for kind in kinds:
        for dtype, last in product(STORED_DTYPES, (False, True)):
            total += _agreement(_card(kind), dtype, last, with_release, every)
        print(f"{kind}: {total[True]} the same, {total[False]} not", flush=True)
    return 1 if total[False] else 0


def _agreement(card: Card, dtype: str, channels_last: bool, stored: Release, every: int) -> Counter[bool]:
    """Of one in ``every`` of a column's stored answers, how many the installed release gives, too, and how many not."""
    release = library.installed()
    assert release is not None
    questions = [q for row in _rows(card, release, dtype, channels_last) for q in row][::every]
    have = ((q, table.stored(card, stored, q)) for q in questions)
    return Counter(answer == _answer(card, q) for q, answer in have if answer is not None)


def _release(text: str) -> Release:
    major, minor = text.split(".")
    return int(major), int(minor)


def _card(kind: str) -> Card:
    device = device_named(CARDS[kind])
    assert device is not None
    return device


if __name__ == "__main__":
    sys.exit(main())
