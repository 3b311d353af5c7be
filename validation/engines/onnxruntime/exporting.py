"""Writes each subject as ONNX files, two shapes each: ``… exporting FOLDER [NAME ...] [--legacy]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from validation.engines.onnxruntime.subjects import Shape, subjects


def main() -> int:
    """Export what is not there yet."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--legacy", action="store_true", help="torch.onnx.export(dynamo=False), whose weights lie in the file")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    for subject in subjects():
        if given.names and subject.name not in given.names:
            continue
        torch.manual_seed(0)
        module = subject.make().eval()
        for shape in (subject.shape, subject.other):
            path = given.folder / f"{subject.name}-{'x'.join(map(str, shape))}{'-legacy' if given.legacy else ''}.onnx"
            if not path.exists():
                export(module, shape, path, legacy=given.legacy)
                print(path.name, flush=True)
    return 0


def export(module: Any, shape: Shape, path: Path, *, legacy: bool) -> None:
    """One file with static sizes."""
    import torch

    torch.onnx.export(module, (torch.zeros(shape),), path, dynamo=not legacy, external_data=not legacy, verbose=False)


if __name__ == "__main__":
    sys.exit(main())
