"""Cases measured: exported here by torch's own exporter, run by an interpreter that has openvino."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from memest.machines.cpu import Isa
from validation.engines.openvino import networks
from validation.engines.openvino.storing import load, store

HERE = Path(__file__).parent


class Variant(NamedTuple):
    """How a case is measured: on a processor with AVX2 alone oneDNN is told so (``ONEDNN_MAX_CPU_ISA``); ``exporter`` is torch's default
    one or the legacy one; ``weights`` lie in the ONNX file, beside it, or in OpenVINO's own form."""

    precision: str = "f32"
    threads: int = 1
    isa: Isa = "avx512"
    exporter: str = "dynamo"
    weights: str = "onnx"


USUAL = Variant()
VARIANTS = (USUAL, Variant(precision="bf16"))
MORE = (
    *(Variant(threads=2), Variant(precision="bf16", threads=2)),
    *(Variant(isa="avx2"), Variant(exporter="legacy"), Variant(weights="external"), Variant(weights="ir")),
)
THREADED = ("resnet18", "mobilenet_v2", "densenet121", "unet2d", "unet3d", "vnet", "plain_conv_unet", "fcn_resnet50", "r3d_18", "swin_t")
"""Networks whose first shape is measured in ``MORE`` ways, too."""


def compiled(folder: Path) -> Path:
    """The interposer."""
    library = folder / "interposer.so"
    source = HERE.parent / "interposer.c"
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", str(source), "-o", str(library), "-ldl", "-lpthread"], check=True)
    return library


def exported(python: str, name: str, shape: tuple[int, ...], variant: Variant, folder: Path) -> Path:
    """The case's file, written where there is none."""
    external = variant.weights == "external"
    path = folder / f"{name}_{'x'.join(map(str, shape))}_{variant.exporter}{'_external' if external else ''}.onnx"
    if not path.exists():
        import torch

        dynamo = variant.exporter == "dynamo"
        torch.onnx.export(networks.module(name), (torch.zeros(shape),), str(path), dynamo=dynamo, external_data=external)
    if variant.weights != "ir":
        return path
    own = path.with_suffix(".xml")
    if not own.exists():
        said = "import sys, openvino as ov; ov.save_model(ov.Core().read_model(sys.argv[1]), sys.argv[2], compress_to_fp16=False)"
        subprocess.run([python, "-c", said, str(path), str(own)], check=True)
    return own


def probed(python: str, path: Path, variant: Variant, library: Path | None) -> dict[str, Any]:
    """What the probe says, with or without the interposer."""
    command = [python, str(HERE / "probe.py"), str(path), variant.precision, str(variant.threads), "1", "mmap"]
    told = {"ONEDNN_MAX_CPU_ISA": "AVX2"} if variant.isa == "avx2" else {}
    environment = {**os.environ, **told, **({"LD_PRELOAD": str(library)} if library else {})}
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
            known = {(r["network"], tuple(r["shape"]), variant_of(r)) for r in records}
            more = MORE if name in THREADED and shape == networks.SHAPES[name][0] else ()
            missing = [v for v in (*VARIANTS, *more) if again or (name, shape, v) not in known]
            if only not in name or not missing:
                continue
            try:
                graphs[name] = graphs.get(name) or _graph(name, shape)
                for variant in missing:
                    path = exported(python, name, shape, variant, kept)
                    inner, outer = (probed(python, path, variant, how) for how in (library, None))
                    head = {k: inner[k] for k in ("openvino", "processor")}
                    case = {"network": name, "shape": list(shape)}
                    records = [r for r in records if (r["network"], tuple(r["shape"]), variant_of(r)) != (name, shape, variant)]
                    records.append({**case, **told_of(variant), **_record(inner, outer)})
                    print(f"{name} {'x'.join(map(str, shape))} {' '.join(map(str, variant))}: pool {inner['pool']:,}", flush=True)
                store(head, graphs, records)
            except (subprocess.CalledProcessError, RuntimeError) as error:
                failed += 1
                print(f"{name} {shape}: {getattr(error, 'stderr', None) or error}"[:400], flush=True)
    return failed


def variant_of(record: dict[str, Any]) -> Variant:
    """How a record was measured; what it does not say is as usual."""
    return Variant(**{name: record[name] for name in Variant._fields if name in record})


def told_of(variant: Variant) -> dict[str, Any]:
    """What a record says of that: precision and threads, and what else is not as usual."""
    given = variant._asdict()
    return {name: value for name, value in given.items() if name in ("precision", "threads") or value != getattr(USUAL, name)}


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
