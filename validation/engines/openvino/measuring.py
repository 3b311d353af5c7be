"""Cases measured: exported here by torch's own exporter, run by an interpreter that has openvino."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from validation.engines.openvino import networks
from validation.engines.openvino.storing import load, store

HERE = Path(__file__).parent
VARIANTS = (("f32", 1), ("bf16", 1))
"""Precision and threads of each measurement of a case."""
THREADED = ("resnet18", "mobilenet_v2", "densenet121", "unet2d", "unet3d", "vnet", "plain_conv_unet", "fcn_resnet50", "r3d_18", "swin_t")
"""Networks whose first shape is measured with two threads, too."""


def compiled(folder: Path) -> Path:
    """The interposer."""
    library = folder / "interposer.so"
    source = HERE.parent / "interposer.c"
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", str(source), "-o", str(library), "-ldl", "-lpthread"], check=True)
    return library


def exported(name: str, shape: tuple[int, ...], folder: Path) -> Path:
    """The case's file, written where there is none."""
    path = folder / f"{name}_{'x'.join(map(str, shape))}.onnx"
    if not path.exists():
        import torch

        torch.onnx.export(networks.module(name), (torch.zeros(shape),), str(path), dynamo=True, external_data=False)
    return path


def probed(python: str, path: Path, precision: str, threads: int, library: Path | None) -> dict[str, Any]:
    """What the probe says, with or without the interposer."""
    command = [python, str(HERE / "probe.py"), str(path), precision, str(threads), "1", "mmap"]
    environment = {**os.environ, **({"LD_PRELOAD": str(library)} if library else {})}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(python: str, only: str = "", folder: str | None = None, *, again: bool = False) -> int:
    """Measure the cases that have no result; the number that failed. ``folder`` keeps the exported files."""
    head, graphs, records = load()
    failed = 0
    with tempfile.TemporaryDirectory() as temporary:
        library, kept = compiled(Path(temporary)), Path(folder or temporary)
        for name, shape in networks.cases():
            known = {(r["network"], tuple(r["shape"]), r["precision"], r["threads"]) for r in records}
            threaded = (("f32", 2), ("bf16", 2)) if name in THREADED and shape == networks.SHAPES[name][0] else ()
            missing = [v for v in (*VARIANTS, *threaded) if again or (name, shape, *v) not in known]
            if only not in name or not missing:
                continue
            try:
                path = exported(name, shape, kept)
                graphs[name] = graphs.get(name) or _graph(name, shape)
                for precision, threads in missing:
                    inner = probed(python, path, precision, threads, library)
                    outer = probed(python, path, precision, threads, None)
                    head = {k: inner[k] for k in ("openvino", "processor")}
                    case = {"network": name, "shape": list(shape), "precision": precision, "threads": threads}
                    records = [r for r in records if any(r[key] != value for key, value in case.items())]
                    records.append({**case, **_record(inner, outer)})
                    print(f"{name} {'x'.join(map(str, shape))} {precision} {threads}: pool {inner['pool']:,}", flush=True)
                store(head, graphs, records)
            except (subprocess.CalledProcessError, RuntimeError) as error:
                failed += 1
                print(f"{name} {shape}: {getattr(error, 'stderr', None) or error}"[:400], flush=True)
    return failed


def _record(inner: dict[str, Any], outer: dict[str, Any]) -> dict[str, Any]:
    return {
        "pool": inner["pool"],
        "heap": inner["heap"] - inner["heap_base"],
        "nodes": [[n["type"], n["shapes"], n["layout"], n["precision"], n["primitive"]] for n in inner["nodes"]],
        "base": outer["base"]["VmRSS"],
        "read": outer["read"]["VmHWM"],
        "peak": outer["run"]["VmHWM"],
        "files": outer["run"]["RssFile"],
    }


def _graph(name: str, shape: tuple[int, ...]) -> str:
    import memest

    return memest.dumps(memest.from_torch(networks.module(name), shape))
