"""Cases measured, each in a process of its own, by an interpreter that has tensorflow."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from validation.engines.tensorflow.reading import step_of
from validation.engines.tensorflow.storing import load, store

HERE = Path(__file__).parents[3]
STEP = 2  # of which the log is kept


class Case(NamedTuple):
    """A network at a shape (channels last), and how it runs; ``threads`` 0: as TensorFlow chooses. ``held`` ones were kept from sight until
    the rules stood."""

    network: str
    shape: tuple[int, ...]
    mode: str = "train"
    onednn: str = "on"
    threads: int = 1
    optimizer: str = "adam"
    held: bool = False


IMAGES = ("ResNet50", "VGG16", "MobileNetV2", "DenseNet121", "EfficientNetB0")


def _both(*cases: Case) -> Iterator[Case]:
    for case in cases:
        yield case
        yield case._replace(onednn="off")


KINDS = (
    ("bilinear-unet", (2, 64, 64, 3)), ("nearest-unet", (2, 32, 32, 32, 1)), ("vnet", (2, 32, 32, 32, 1)),
    ("attention-unet", (2, 64, 64, 1)), ("cropped-unet", (2, 68, 68, 1)), ("group-norms", (2, 64, 64, 3)),
    ("layer-norms", (2, 16, 16, 16, 2)), ("separable", (2, 64, 64, 3)), ("lines", (2, 128, 4)), ("dilated", (2, 64, 64, 3)),
    ("squeezed", (2, 64, 64, 3)),
)  # fmt: skip
"""Small networks, one for each kind of layers that people write."""


def cases() -> list[Case]:
    """What is measured, the quick ones first."""
    found = [*_both(Case("small", (4, 16, 16, 3)), Case("small", (4, 16, 16, 3), "infer"))]
    found += _both(*(Case("small", (8, 20, 24, 3), optimizer=o) for o in ("sgd", "momentum", "rmsprop")))
    found += _both(Case("unet-4x2", (2, 16, 16, 16, 1)), Case("unet-8x3", (1, 32, 32, 32, 1)), Case("unet-8x3", (2, 64, 64, 1)))
    found += _both(*(Case(n, shape, mode) for n, shape in KINDS for mode in ("train", "infer")))
    found += _both(*(Case(n, (2, 64, 64, 3)) for n in IMAGES))
    found += _both(Case("unet-16x4", (1, 32, 32, 32, 1)), Case("unet-16x4", (1, 64, 64, 64, 1)))
    found += _both(*(Case(n, (4, 128, 128, 3), threads=0, held=True) for n in IMAGES))
    found += _both(*(Case(n, (4, 96, 96, 3), "infer", threads=0) for n in IMAGES))
    found += _both(Case("unet-16x4", (2, 48, 48, 48, 1), threads=0, held=True), Case("unet-16x4", (1, 80, 80, 80, 1), threads=0, held=True))
    found += _both(Case("unet-16x4", (1, 96, 96, 96, 1), "infer", threads=0, held=True))
    found += _both(Case("ResNet50", (8, 160, 128, 3), threads=0, held=True), Case("MobileNetV2", (8, 192, 192, 3), threads=0, held=True))
    found += _both(Case("unet-16x4", (1, 64, 64, 64, 1), threads=0, held=True), Case("unet-8x3", (4, 40, 48, 32, 2), threads=0, held=True))
    found += _both(Case("unet-32x4", (2, 160, 128, 3), threads=0, held=True), Case("unet-8x4", (1, 96, 80, 96, 1), threads=0, held=True))
    return found


def measure(python: str, only: str = "", folder: Path | None = None) -> int:
    """Measure the cases that have no result; the number that failed. Each is kept in ``folder`` until all are stored together."""
    _, _, records = load()
    failed = 0
    with tempfile.TemporaryDirectory() as temporary:
        place = folder or Path(temporary)
        place.mkdir(parents=True, exist_ok=True)
        for case in cases():
            kept = place / f"{_text(case).replace(' ', '_')}.json"
            if only not in _text(case) or kept.exists() or any(_same(r, case) for r in records):
                continue
            try:
                kept.write_text(json.dumps(probed(python, case, place)), encoding="utf-8")
                print(f"measured {_text(case)}", flush=True)
            except (subprocess.CalledProcessError, IndexError) as error:
                failed += 1
                print(f"failed {_text(case)}: {error}", flush=True)
        keep(place)
    return failed


def keep(folder: Path) -> None:
    """What lies in a folder goes into the store."""
    head, configs, records = load()
    for path in sorted(folder.glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        case = Case(**{**found["case"], "shape": tuple(found["case"]["shape"])})
        head = {key: found[key] for key in ("tensorflow", "keras")}
        configs[_model(case)] = found["config"]
        records = [r for r in records if not _same(r, case)]
        records.append({**found["case"], **{k: found[k] for k in ("base", "built", "steps", "l3", "used", "order", "tensors", "peak")}})
    if records:
        store(head, configs, records)


def _text(case: Case) -> str:
    return f"{_model(case)} {case.mode} {case.optimizer} {case.onednn} {case.threads}"


def _model(case: Case) -> str:
    return f"{case.network} {'x'.join(map(str, case.shape))}"


def _same(record: dict[str, Any], case: Case) -> bool:
    return all(record[key] == value for key, value in {**case._asdict(), "shape": list(case.shape)}.items() if key != "held")


def probed(python: str, case: Case, folder: Path) -> dict[str, Any]:
    """What the probe says of a case, and a step of its log."""
    log = folder / f"{_text(case).replace(' ', '_')}.log"
    options = [*_model(case).split(), case.mode, case.optimizer, case.onednn, str(case.threads)]
    done = subprocess.run([python, "-m", f"{__package__}.probe", *options, str(log)], cwd=HERE, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    logged = step_of(log, STEP)
    log.unlink()
    return {**found, **logged, "case": case._asdict()}
