"""What onnxruntime asks for, takes and holds for each ONNX file of a folder: one JSON line a file and number of threads.

Oracles: an interposer under malloc (``../interposer.c``; the arena off, so that each buffer is a request of its own), the arena's own log
(severity INFO), and the resident peak of a fresh process (``/proc/self/clear_refs``, VmHWM). It needs onnxruntime, numpy and a C compiler.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RUNS = 3
DTYPES = {"float": "float32", "double": "float64", "float16": "float16", "int64": "int64", "int32": "int32", "bool": "bool"}


class Record(ctypes.Structure):
    """A request, or (size -1) what is given back, as the interposer records it."""

    _fields_ = (
        ("size", ctypes.c_int64),
        ("address", ctypes.c_uint64),
        ("aligned", ctypes.c_int32),
        ("thread", ctypes.c_int16),
        ("kind", ctypes.c_int16),
    )


def main() -> int:
    """Measure a folder, each file in processes of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--threads", type=int, nargs="*", default=[1])
    parser.add_argument("--level", default="all", choices=("all", "extended", "basic", "disabled"))
    parser.add_argument("--part", choices=("stream", "arena", "resident"), help="in this process, of one file")
    given = parser.parse_args()
    if given.part:
        result = {"stream": stream, "arena": arena, "resident": resident}[given.part](given.folder, given.threads[0], given.level)
        given.output.write_text(json.dumps(result), encoding="utf-8")
        return 0
    with tempfile.TemporaryDirectory() as scratch, given.output.open("a", encoding="utf-8") as lines:
        library = Path(scratch) / "interposer.so"
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", HERE.parent / "interposer.c", "-o", library, "-ldl", "-lpthread"], check=True)
        for path in sorted(given.folder.glob("*.onnx")):
            for threads in given.threads:
                found = {"case": path.stem, "threads": threads, "level": given.level}
                for part in ("stream", "arena", "resident"):
                    found[part] = _apart(path, threads, given.level, part, library, Path(scratch) / "part.json")
                lines.write(json.dumps(found) + "\n")
                lines.flush()
                print(path.stem, threads, found["stream"] and found["stream"]["peak"], flush=True)
    return 0


def _apart(path: Path, threads: int, level: str, part: str, library: Path, output: Path) -> Any:
    """One part in a process of its own; None where it fails."""
    command = [sys.executable, __file__, str(path), str(output), "--threads", str(threads), "--level", level, "--part", part]
    given = {**os.environ, "LD_PRELOAD": str(library), "MEMEST_INTERPOSER": str(library)} if part == "stream" else dict(os.environ)
    output.unlink(missing_ok=True)
    subprocess.run(command, env=given, check=False, timeout=600, stderr=subprocess.DEVNULL)
    return json.loads(output.read_text(encoding="utf-8")) if output.exists() else None


def _options(threads: int, level: str, severity: int = 3) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = severity
    name = "ORT_DISABLE_ALL" if level == "disabled" else f"ORT_ENABLE_{level.upper()}"
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, name)
    return options


def _session(path: Path, options: Any) -> tuple[Any, dict[str, Any]]:
    import numpy as np
    import onnxruntime as ort

    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feeds = {i.name: np.ones(i.shape, DTYPES[i.type.removeprefix("tensor(").rstrip(")")]) for i in session.get_inputs()}
    return session, feeds


def stream(path: Path, threads: int, level: str) -> dict[str, Any]:
    """The requests of the first run in order (bytes, releases negative), its peak, the second run's, and the pattern's block."""
    library = ctypes.CDLL(os.environ["MEMEST_INTERPOSER"])
    library.heap_records.restype = ctypes.POINTER(Record)
    library.heap_count.restype = ctypes.c_int64
    options = _options(threads, level)
    options.enable_cpu_mem_arena = False
    session, feeds = _session(path, options)
    found: list[list[int]] = []
    for _ in range(2):
        library.heap_start()
        outputs = session.run(None, feeds)
        library.heap_stop()
        records = library.heap_records()
        found.append(_deltas([(r.size, r.address, r.aligned) for r in (records[n] for n in range(library.heap_count()))]))
        del outputs
    first, second = found
    return {"deltas": first, "peak": _peak(first), "second": _peak(second), "block": second[0] if second else 0}


def _deltas(records: list[tuple[int, int, int]]) -> list[int]:
    """Tensors are what is asked for by posix_memalign."""
    alive: dict[int, int] = {}
    deltas = []
    for size, address, aligned in records:
        if size < 0:
            held = alive.pop(address, 0)
            deltas += [-held] if held else []
        elif aligned:
            alive[address] = size
            deltas.append(size)
    return deltas


def _peak(deltas: list[int]) -> int:
    total = most = 0
    for delta in deltas:
        total += delta
        most = max(most, total)
    return most


def arena(path: Path, threads: int, level: str) -> list[list[int]]:
    """The regions that the arena takes when the session is made, and in each run."""
    import onnxruntime as ort

    ort.set_default_logger_severity(1)
    with tempfile.TemporaryFile() as log:
        kept = os.dup(2)
        os.dup2(log.fileno(), 2)
        session, feeds = _session(path, _options(threads, level, 1))
        marks = [os.lseek(log.fileno(), 0, os.SEEK_CUR)]
        for _ in range(RUNS):
            session.run(None, feeds)
            marks.append(os.lseek(log.fileno(), 0, os.SEEK_CUR))
        os.dup2(kept, 2)
        log.seek(0)
        text = log.read()
    parts = [text[a:b].decode(errors="replace") for a, b in zip([0, *marks], marks, strict=False)]
    return [[int(n) for n in re.findall(r"Extended allocation by (\d+)", part)] for part in parts]


def resident(path: Path, threads: int, level: str) -> dict[str, Any]:
    """Bytes of the process: after imports, after loading, and the peak of each run."""
    import numpy as np
    import onnxruntime as ort

    assert np and ort
    imported = _status("VmRSS")
    session, feeds = _session(path, _options(threads, level))
    loaded, runs = _status("VmRSS"), []
    for _ in range(RUNS):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        session.run(None, feeds)
        runs.append(_status("VmHWM"))
    return {"imported": imported, "loaded": loaded, "runs": runs, "mmap_threshold": os.environ.get("MALLOC_MMAP_THRESHOLD_")}


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))


if __name__ == "__main__":
    sys.exit(main())
