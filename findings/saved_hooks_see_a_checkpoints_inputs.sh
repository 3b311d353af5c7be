#!/usr/bin/env bash
# torch: what saved_tensors_hooks (save_on_cpu is one) around a checkpointed call get to see.
#
# Guess: torch.utils.checkpoint keeps a segment's inputs in Python, where no hook of saved tensors sees them, and puts hooks of its own
#   inside; so hooks around it see nothing, and save_on_cpu around checkpoints moves nothing.
# Seen with torch 2.13.0: of the checkpointed layers the hooks see nothing, but the segment's tensor inputs are packed, once each, with
#   use_reentrant=True and with use_reentrant=False, and unpacked when the segment runs again. A tensor that the function finds in its
#   closure instead is packed in neither kind, and stays where it is.
# So save_on_cpu around checkpoints offloads what is passed as an argument, and nothing else.
set -euo pipefail
work=$(mktemp -d)
export TMPDIR="$work"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy
"$work/venv/bin/python" - 2>"$work/stderr" <<'PYTHON' || { cat "$work/stderr"; exit 1; }
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

body = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3), nn.Sigmoid())


def seen(call):
    """Shapes that are packed, and those that are unpacked."""
    packed, unpacked = [], []

    def pack(t):
        packed.append(tuple(t.shape))
        return t

    def unpack(t):
        unpacked.append(tuple(t.shape))
        return t

    with saved_tensors_hooks(pack, unpack):
        y = call()
    y.sum().backward()
    return packed, unpacked


x, extra = torch.rand(2, 5, requires_grad=True), torch.rand(11, 5, requires_grad=True)
print("torch", torch.__version__, "(shapes that hooks around a checkpoint pack, and unpack):")
changed = False
for reentrant in (True, False):
    for name, call in {
        "an argument": lambda: checkpoint(body, x, use_reentrant=reentrant),
        "an argument, and one in the closure": lambda: checkpoint(lambda t: body(t) + extra.sum(), x, use_reentrant=reentrant),
    }.items():
        packed, unpacked = seen(call)
        print(f"  use_reentrant={reentrant}, {name}: {packed}, {unpacked}")
        changed |= packed != [(2, 5)] or unpacked != [(2, 5)]
if changed:
    raise SystemExit("the behaviour has changed")
PYTHON
