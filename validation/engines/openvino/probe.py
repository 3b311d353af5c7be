"""One compiled model measured, in a process of its own: ``python probe.py FILE PRECISION THREADS STREAMS MMAP``, a line of JSON.

Runs where openvino is installed; knows nothing of memest. Under the interposer (LD_PRELOAD) it tells the plugin's nodes and the pool, to
the byte. Without it, what the system shows of the process.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov


class Record(ctypes.Structure):
    """As the interposer writes them."""

    _fields_ = (
        ("size", ctypes.c_int64),
        ("address", ctypes.c_uint64),
        ("aligned", ctypes.c_int32),
        ("thread", ctypes.c_int16),
        ("kind", ctypes.c_int16),
    )


def status() -> dict[str, int]:
    """Bytes resident: now, at most since the last reset, anonymous, of files."""
    found = {}
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name in ("VmRSS", "VmHWM", "RssAnon", "RssFile"):
            found[name] = int(value.split()[0]) * 1024
    return found


def told(node: Any, key: str) -> str:
    """A property of a node of the runtime model."""
    value = node.get_rt_info()[key]
    return str(value.astype(str)) if hasattr(value, "astype") else str(value)


def nodes_of(compiled: Any) -> list[dict[str, Any]]:
    """The nodes in the order in which they run, without those that are constant."""
    found: list[dict[str, Any]] = []
    constant: set[str] = set()
    for op in sorted(compiled.get_runtime_model().get_ordered_ops(), key=lambda o: int(told(o, "execOrder"))):
        reads = [i.get_source_output().get_node().get_friendly_name() for i in op.inputs()]
        kind = told(op, "layerType")
        if kind == "Const" or (reads and all(r in constant for r in reads)):
            constant.add(op.get_friendly_name())
            continue
        shapes = [list(o.get_shape()) for o in op.outputs()]
        layout, precision = told(op, "outputLayouts").split(",")[0], told(op, "outputPrecisions").split(",")[0]
        found.append({"type": kind, "shapes": shapes, "layout": layout, "precision": precision, "primitive": told(op, "primitiveType")})
    return found


def pool_of(compiled: Any, request: Any, heap: ctypes.CDLL) -> int:
    """Bytes of the pool: what a call asks for after ``release_memory`` that it does not ask for otherwise, the largest of it."""
    usual = _asked(request, heap)
    compiled.release_memory()
    again = _asked(request, heap)
    again.subtract(usual)
    return max((size for size, times in again.items() if times > 0 and size % 32 == 0), default=0)


def _asked(request: Any, heap: ctypes.CDLL) -> Counter[int]:
    gc.collect()
    heap.heap_start()
    request.infer()
    heap.heap_stop()
    records = heap.heap_records()
    return Counter(records[n].size for n in range(heap.heap_count()) if records[n].size >= 1024)


def main(path: str, precision: str, threads: str, streams: str, mmap: str) -> dict[str, Any]:
    """What is measured."""
    heap = ctypes.CDLL(None)
    interposed = hasattr(heap, "heap_start")
    core = ov.Core()
    found: dict[str, Any] = {"openvino": ov.__version__.partition("-")[0], "processor": core.get_property("CPU", "FULL_DEVICE_NAME")}
    if interposed:
        heap.heap_in_use.restype = heap.heap_count.restype = ctypes.c_int64
        heap.heap_records.restype = ctypes.POINTER(Record)
        found["heap_base"] = heap.heap_in_use()
    found["base"] = status()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    options = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": int(threads), "NUM_STREAMS": int(streams)}
    core.set_property({"ENABLE_MMAP": mmap == "mmap"})
    model = core.read_model(path)
    found["read"] = status()
    compiled = core.compile_model(model, "CPU", options)
    found["compiled"] = status()
    request = compiled.create_infer_request()
    given = [ov.Tensor(i.element_type, i.shape) for i in compiled.inputs]
    for i, tensor in zip(compiled.inputs, given, strict=True):
        tensor.data[...] = np.ones(tensor.data.shape, tensor.data.dtype)
        request.set_tensor(i, tensor)
    request.infer()
    request.infer()
    found["run"] = status()
    if interposed:
        found["heap"] = heap.heap_in_use()
        found["nodes"] = nodes_of(compiled)
        found["pool"] = pool_of(compiled, request, heap)
    return found


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
