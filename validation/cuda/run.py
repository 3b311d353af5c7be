"""A command of an interpreter, run on the stand-in for a card."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import requires
from pathlib import Path
from typing import Any

from validation.cuda.build import build, site_packages
from validation.versions import VISION

ROOT = Path(__file__).parent.parent.parent
PYTHON = "MEMEST_CUDA_PYTHON"  # names an interpreter whose torch is built for CUDA


def properties(card: str) -> dict[str, Any]:
    """cuDNN's device properties of a card: of the catalogue by name, or of a JSON file such as a card itself gave."""
    if card.endswith(".json"):
        return json.loads(Path(card).read_text(encoding="utf-8"))
    from memest.machines.devices import device_named

    device = device_named(card)
    if device is None:
        raise SystemExit(f"card {card} has no description of its device")
    return device.properties()


def environment(python: str, card: str, *, devices: int = 1, usable_bytes: int | None = None) -> dict[str, str]:
    """The environment in which ``python`` meets so many of that card, whose processes may take ``usable_bytes`` of each (default: all)."""
    built = build(python)
    path = Path(tempfile.gettempdir()) / f"{built.name}-{Path(card).stem}.json"
    path.write_text(json.dumps(properties(card)), encoding="utf-8")
    libraries = os.pathsep.join(p for p in (str(built), os.environ.get("LD_LIBRARY_PATH", "")) if p)
    given = {
        "LD_PRELOAD": str(built / "libstandin.so"),
        "LD_LIBRARY_PATH": libraries,
        "CUDA_MODULE_LOADING": "LAZY",
        "MEMEST_STANDIN_CARD": str(path),
        "MEMEST_STANDIN_DEVICES": str(devices),
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
    }
    return {**os.environ, **given} | ({} if usable_bytes is None else {"MEMEST_STANDIN_BYTES": str(usable_bytes)})


def interpreter(given: str | None = None, environ: Mapping[str, str] = os.environ) -> str:
    """The interpreter with torch's CUDA build: the one given, or the environment's, or this one."""
    return given or environ.get(PYTHON) or sys.executable


@contextmanager
def fresh(release: str) -> Iterator[str]:
    """An interpreter in an environment of its own, deleted afterwards, that has torch's CUDA build of that release (several GB),
    torchvision and timm. SystemExit where the package index gives another build."""
    needed = [r for r in requires("memest-cnn") or () if "extra ==" not in r]
    wanted = [f"torch=={release}", f"torchvision=={VISION[release]}", "timm", *needed]
    with tempfile.TemporaryDirectory(prefix="memest-torch-cuda-") as folder:
        python = str(Path(folder) / "bin" / "python")
        print(f"installing {' '.join(wanted[:2])} and timm", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True, capture_output=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-cache-dir", *wanted], check=True, stdout=sys.stderr)
        site_packages(python)
        yield python
