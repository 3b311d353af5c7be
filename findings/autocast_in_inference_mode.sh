#!/usr/bin/env bash
# torch's autocast on CPU: which casts of weights it keeps, and what that does to the memory of an evaluation.
#
# Guess: torch.inference_mode is torch.no_grad with less bookkeeping, so both cast and hold the same tensors. Autocast casts a weight
#   once and keeps the copy until the autocast region ends, however often the layer is called.
# Seen with torch 2.13.0, a chain of eight 1000x1000 linear layers that one region calls twice (a bfloat16 copy of a weight: 2,000,000):
#   - Under no_grad, as with gradients: eight casts, all eight copies alive at the end, 16,000,000 bytes.
#   - Under inference_mode: sixteen casts, each gone when its layer is done, 2,000,000 bytes at most. Copies that lie in the cache already,
#     made outside of inference_mode in the same region, are not used either.
#   - no_grad with weights that require no gradient (a frozen network): again sixteen and 2,000,000. The cache takes nothing else in.
# So the two ways to turn gradients off differ by half a network in memory, and by every repeated cast in time, the other way round.
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

COPY = 2_000_000
layers = torch.nn.Sequential(*[torch.nn.Linear(1000, 1000, bias=False) for _ in range(8)])
rows = torch.ones(4, 1000)


def casts(first, second):
    """How many copies of weights are made by one pass in each mode, and the most bytes of them at a time."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found, torch.autocast("cpu", torch.bfloat16):
        for mode in (first, second):
            with mode():
                layers(rows)
    sizes = [e.nbytes() for e in found.profiler.kineto_results.events() if e.name() == "[memory]" and abs(e.nbytes()) == COPY]
    return sizes.count(COPY), max(accumulate(sizes))


seen = {f"{a.__name__}, {b.__name__}": casts(a, b) for a, b in (
    (torch.enable_grad, torch.enable_grad),
    (torch.no_grad, torch.no_grad),
    (torch.inference_mode, torch.inference_mode),
    (torch.no_grad, torch.inference_mode),
)}
layers.requires_grad_(False)
seen["frozen, no_grad, no_grad"] = casts(torch.no_grad, torch.no_grad)
print("torch", torch.__version__, "(casts of weights, most bytes of copies at a time):")
for way, what in seen.items():
    print(f"  {way}: {what}")
if list(seen.values()) != [(8, 8 * COPY), (8, 8 * COPY), (16, COPY), (16, 9 * COPY), (16, COPY)]:
    raise SystemExit("the behaviour has changed")
PYTHON
