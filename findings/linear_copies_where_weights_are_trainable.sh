#!/usr/bin/env bash
# torch on CPU: what nn.Linear over the pixels of an image takes in inference, by a flag that inference should not see.
#
# Guess: under torch.no_grad() and torch.inference_mode() it makes no difference to memory whether parameters have requires_grad; calling
#   model.requires_grad_(False) before inference saves nothing.
# Seen with torch 2.13.0 (2.14.1 does the same): tokens that come of flatten(2).transpose(1, 2) do not lie row by row. Where the weight has
#   requires_grad, matmul folds the tokens into one matrix, which copies them whole; where it has not, it multiplies image by image, and
#   copies nothing. The output of 512 channels made 64 takes 8 MiB, the copy 64 MiB: nine times the memory at the peak, also in
#   inference mode. nn.Linear with and without a bias and x @ weight do so; einsum and tensordot copy in either case.
# So model.requires_grad_(False) can divide what inference takes.
set -euo pipefail
work=$(mktemp -d)
export TMPDIR="$work"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy
"$work/venv/bin/python" - 2>"$work/stderr" <<'PYTHON' || { cat "$work/stderr"; exit 1; }
from itertools import accumulate

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

tokens = torch.rand(8, 512, 64, 64).flatten(2).transpose(1, 2)
weight = nn.Parameter(torch.rand(512, 64))
linear, plain = nn.Linear(512, 64), nn.Linear(512, 64, bias=False)
CALLS = {
    "nn.Linear": (lambda: linear(tokens), 9),
    "nn.Linear without a bias": (lambda: plain(tokens), 9),
    "x @ weight": (lambda: tokens @ weight, 9),
    "einsum": (lambda: torch.einsum("bnc,co->bno", tokens, weight), 9),
    "x @ weight, tokens row by row": (lambda dense=tokens.contiguous(): dense @ weight, 1),
}
FROZEN = {"einsum": 9}


def outputs_at_the_peak(work):
    """Bytes at the peak, in outputs."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        result = work()
    sizes = [e.nbytes() for e in found.profiler.kineto_results.events() if e.name() == "[memory]"]
    return max(accumulate(sizes)) / (result.numel() * result.element_size())


print("torch", torch.__version__, "(the peak, in outputs; weights with requires_grad, and without):")
changed = False
for name, (call, known) in CALLS.items():
    seen = []
    for trains in (True, False):
        for t in (weight, *linear.parameters(), *plain.parameters()):
            t.requires_grad_(trains)
        for context in (torch.no_grad, torch.inference_mode):
            with context():
                call()
                seen.append(outputs_at_the_peak(call))
    print(f"  {name}: {seen[0]:g} and {seen[1]:g} in inference mode; {seen[2]:g} and {seen[3]:g}")
    changed |= seen != [known, known, FROZEN.get(name, 1), FROZEN.get(name, 1)]
if changed:
    raise SystemExit("the behaviour has changed")
PYTHON
