#!/usr/bin/env bash
# torch on CPU: what counting, averaging and asking any() of a large tensor takes beside its result.
#
# Guess: a reduction reads its input where it is, converts element by element as it goes, and takes nothing but its result. If one of
#   bfloat16's needs a float32 copy, all do.
# Seen with torch 2.13.0, bytes for each element of the input at the peak:
#   - sum(), mean() and any() convert the whole input first where the type of their result (or dtype=) is another: mask.sum() takes 8
#     bytes for each byte of the mask, an int64 copy; mean(dtype=torch.float64) of float32 8; any() of float32 1.
#   - bfloat16: mean() takes 4, a float32 copy; sum(), norm() and var() take nothing.
#   - count_nonzero() takes nothing, count_nonzero(0) of the same tensor takes 9, a mask and its int64 copy.
# So the count of a float32 tensor's positive values, (x > 0).sum(), takes 2.25 times the tensor; (x > 0).count_nonzero() a quarter.
set -euo pipefail
work=$(mktemp -d)
export TMPDIR="$work"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy
"$work/venv/bin/python" - 2>"$work/stderr" <<'PYTHON' || { cat "$work/stderr"; exit 1; }
from itertools import accumulate

import torch
from torch.profiler import ProfilerActivity, profile

floats = torch.ones(2000, 2000)
mask, halves = floats > 0, floats.bfloat16()
CASES = {
    "float32 sum()": (floats.sum, 0),
    "float32 mean()": (floats.mean, 0),
    "float32 mean(dtype=float64)": (lambda: floats.mean(dtype=torch.float64), 8),
    "float32 any()": (floats.any, 1),
    "float32 count_nonzero()": (floats.count_nonzero, 0),
    "float32 count_nonzero(0)": (lambda: floats.count_nonzero(0), 9),
    "mask any()": (mask.any, 0),
    "mask sum()": (mask.sum, 8),
    "mask count_nonzero()": (mask.count_nonzero, 0),
    "bfloat16 sum()": (halves.sum, 0),
    "bfloat16 norm()": (halves.norm, 0),
    "bfloat16 var()": (halves.var, 0),
    "bfloat16 mean()": (halves.mean, 4),
    "(float32 > 0).sum()": (lambda: (floats > 0).sum(), 9),
    "(float32 > 0).count_nonzero()": (lambda: (floats > 0).count_nonzero(), 1),
}


def bytes_an_element(work):
    """At the peak; results and buffers smaller than a byte an element are left out."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        work()
    sizes = [e.nbytes() for e in found.profiler.kineto_results.events() if e.name() == "[memory]"]
    return max(accumulate(s for s in sizes if abs(s) >= floats.numel()), default=0) / floats.numel()


print("torch", torch.__version__, "(bytes an element of the input at the peak):")
seen = {name: bytes_an_element(work) for name, (work, _) in CASES.items()}
for name, found in seen.items():
    print(f"  {name}: {found:g}")
if seen != {name: known for name, (_, known) in CASES.items()}:
    raise SystemExit("the behaviour has changed")
PYTHON
