"""Every call of malloc that the steps of a network make, one after the other: run under the interposer, in a process of its own.

``python recording.py CASE OUTPUT``: the case as :mod:`measuring` takes it; an .npz with the records of each step. Blocks that libc10 asked
for are tensors' (kind 2).
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from pathlib import Path


def main() -> int:
    """Record the steps."""
    import numpy as np
    import torch

    from validation.process.measuring import STEPS, stepper

    case, output = json.loads(sys.argv[1]), sys.argv[2]
    library = ctypes.CDLL(os.environ["LD_PRELOAD"])
    library.heap_count.restype = ctypes.c_int64
    library.heap_records.restype = ctypes.c_void_p
    lines = [line.split() for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines() if line.endswith("/libc10.so")]
    bounds = [int(n, 16) for line in lines for n in line[0].split("-")]
    library.heap_callers(ctypes.c_uint64(min(bounds)), ctypes.c_uint64(max(bounds)))
    torch.set_num_threads(case.get("threads", 2))
    step = stepper(case)
    kind = np.dtype([("size", "<i8"), ("address", "<u8"), ("aligned", "<i4"), ("thread", "<i2"), ("kind", "<i2")])
    found = {}
    for number in range(1, STEPS + 1):
        library.heap_start()
        step()
        library.heap_stop()
        count = library.heap_count()
        found[f"step{number}"] = np.frombuffer(ctypes.string_at(library.heap_records(), count * kind.itemsize), kind)
    np.savez_compressed(output, allow_pickle=False, **found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
