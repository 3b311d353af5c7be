#!/usr/bin/env bash
# cuDNN asked for the workspace of a convolution on a Tesla T4, from a description of the card (no GPU; downloads about 1 GB).
#
# Guess: a forward convolution's memory grows with the batch: input and output in proportion, and the workspace with them or not at all.
#   128 images take more than 80. Another card of the same compute capability runs the same kernels, so it takes the same workspace.
# Seen with cuDNN 9.24.0: ResNet's first convolution (7x7, stride 2, 3 to 64 channels, 224x224) in half, contiguous, plan ranked first:
#   - 64 images take 128,475,664 bytes of workspace, 80 take 160,588,304: more than input and output together.
#   - 81 take 75,392, and so does every larger batch. With input, weight and output 80 images need 313 MB, 128 images 244 MB.
#   - A description that differs in the number of multiprocessors alone, 72 for 40, gets the 75,392 bytes at every batch.
# So a smaller batch is no sure way out of running out of memory, and the compute capability does not name the plan.
set -euo pipefail
work=$(mktemp -d)
export TMPDIR="$work"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir \
  nvidia-cudnn-cu13==9.24.0.43 nvidia-cublas==13.1.1.3 nvidia-cuda-nvrtc==13.0.88
"$work/venv/bin/python" - <<'PYTHON'
import ctypes
import json
import math
from importlib.util import find_spec
from pathlib import Path

library = ctypes.CDLL(str(Path(next(iter(find_spec("nvidia.cudnn").submodule_search_locations))) / "lib" / "libcudnn.so.9"))
INT32, INT64, POINTER, FLOAT = ctypes.c_int, ctypes.c_int64, ctypes.c_void_p, ctypes.c_float
# cudnn_graph.h: what a descriptor describes, and the type an attribute's values have
CONVOLUTION, CONFIG, HEURISTICS, PLAN, FORWARD, GRAPH, TENSOR, DEVICE = 1, 3, 4, 5, 10, 15, 17, 38
DTYPE, INTEGER, REAL, MODE, RANKING, DESCRIPTOR, CHARACTER = 1, 3, 4, 7, 8, 15, 24
IN_FLOAT, IN_HALF, CROSS_CORRELATION, INSTANT = 0, 2, 1, 0


def ok(status):
    if status:
        raise SystemExit(f"cuDNN answers with status {status}")


def described(kind, *attributes, final=True):
    descriptor = POINTER()
    ok(library.cudnnBackendCreateDescriptor(kind, ctypes.byref(descriptor)))
    for number, of, values in attributes:
        ok(library.cudnnBackendSetAttribute(descriptor, number, of, INT64(len(values)), values))
    if final:
        ok(library.cudnnBackendFinalize(descriptor))
    return descriptor


def array(of, *values):
    return (of * len(values))(*[v.value if isinstance(v, POINTER) else v for v in values])


def tensor(name, *shape):
    strides = [math.prod(shape[i + 1 :]) for i in range(4)]
    return described(
        TENSOR,
        (901, DTYPE, array(INT32, IN_HALF)),
        (902, INTEGER, array(INT64, *shape)),
        (903, INTEGER, array(INT64, *strides)),
        (906, INTEGER, array(INT64, ord(name))),
        (900, INTEGER, array(INT64, 32)),  # alignment
    )


def card(multiprocessors):
    """A Tesla T4 after NVIDIA's Turing whitepaper and the CUDA programming guide's table of compute capability 7.5."""
    text = json.dumps({
        "deviceName": "Tesla T4", "deviceVer": 750, "multiProcessorCount": multiprocessors, "smClockRateKHz": 1_590_000,
        "memClockRateKHz": 5_001_000, "totalGlobalMem": 15 << 30, "l2CacheSize": 4 << 20, "maxThreadsPerSM": 1024, "maxCtasPerSM": 16,
        "maxRegistersPerSM": 65_536, "regsPerBlock": 65_536, "maxThreadsPerBlock": 1024, "maxSharedMemoryPerBlock": 48 << 10,
        "maxSharedMemoryPerBlockOptin": 64 << 10, "reservedSharedMemoryPerBlock": 0, "warpSize": 32, "supportCoopLaunch": 1,
        "maxBlockSize": [1024, 1024, 64], "maxGridSize": [2**31 - 1, 65_535, 65_535], "driverVer": 13_000, "isTccDriver": 0,
        "cudaDeviceId": 0, "pciDeviceId": 0,
    }).encode()  # fmt: skip
    return described(DEVICE, (2702, CHARACTER, text))


def workspace(device, batch):
    convolution = described(
        CONVOLUTION,
        (100, DTYPE, array(INT32, IN_FLOAT)),
        (101, MODE, array(INT32, CROSS_CORRELATION)),
        (106, INTEGER, array(INT64, 2)),
        *[(number, INTEGER, array(INT64, each, each)) for number, each in ((102, 1), (103, 2), (104, 3), (105, 3))],
    )
    parts = convolution, tensor("w", 64, 3, 7, 7), tensor("x", batch, 3, 224, 224), tensor("y", batch, 64, 112, 112)
    scales = [(700, REAL, array(FLOAT, 1)), (701, REAL, array(FLOAT, 0))]
    forward = described(FORWARD, *scales, *[(702 + i, DESCRIPTOR, array(POINTER, part)) for i, part in enumerate(parts)])
    graph = described(GRAPH, (801, DESCRIPTOR, array(POINTER, forward)))
    of_card = array(POINTER, device)
    ranked = described(
        HEURISTICS, (201, DESCRIPTOR, array(POINTER, graph)), (200, RANKING, array(INT32, INSTANT)), (204, DESCRIPTOR, of_card)
    )
    first, count, size = array(POINTER, described(CONFIG, final=False)), INT64(), INT64()
    ok(library.cudnnBackendGetAttribute(ranked, 202, DESCRIPTOR, INT64(1), ctypes.byref(count), first))
    plan = described(PLAN, (401, DESCRIPTOR, first), (407, DESCRIPTOR, of_card))
    ok(library.cudnnBackendGetAttribute(plan, 402, INTEGER, INT64(1), ctypes.byref(count), ctypes.byref(size)))
    return size.value


library.cudnnGetVersion.restype = ctypes.c_size_t
print("cuDNN", library.cudnnGetVersion())
seen = {}
for multiprocessors in (40, 72):
    device = card(multiprocessors)
    for batch in (64, 80, 81, 128):
        seen[multiprocessors, batch] = found = workspace(device, batch)
        total = found + 2 * (batch * (3 * 224**2 + 64 * 112**2) + 64 * 3 * 7**2)
        print(f"  {multiprocessors} multiprocessors, {batch} images: workspace {found:,}, with input, weight and output {total:,}")
if list(seen.values()) != [128_475_664, 160_588_304, 75_392, 75_392] + [75_392] * 4:
    raise SystemExit("the behaviour has changed")
PYTHON
