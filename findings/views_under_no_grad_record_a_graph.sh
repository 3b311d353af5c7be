#!/usr/bin/env bash
# torch: what is recorded after a view that was made under torch.no_grad().
#
# Guess: whatever is made under no_grad has requires_grad=False, so what is computed from it outside records nothing and keeps nothing;
#   a view is no exception, it is as good as detach().
# Seen with torch 2.13.0: a view of a tensor that requires a gradient says requires_grad=True, with grad_fn=None. What is computed from it
#   outside has nodes, keeps what they save until the last result goes (here ten results of sigmoid, of which detach() keeps one), and
#   leads nowhere: backward() raises nothing, and no gradient arrives.
# So a feature that is only reshaped or sliced under no_grad costs the memory of training, without training anything; detach() costs none.
set -euo pipefail
work=$(mktemp -d)
export TMPDIR="$work"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy
"$work/venv/bin/python" - 2>"$work/stderr" <<'PYTHON' || { cat "$work/stderr"; exit 1; }
import torch
from torch.profiler import ProfilerActivity, profile

weight = torch.rand(50, 20, requires_grad=True)
size = weight.nbytes


def ten(start):
    """Ten sigmoids one after the other; the results in between have no name of their own."""
    for _ in range(10):
        start = start.sigmoid()
    return start


def kept(start):
    """How many tensors of the size are there when only the last result is held."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as p:
        last = ten(start)
    memory = [e for e in p.profiler.kineto_results.events() if e.name() == "[memory]"]
    return last, sum(e.nbytes() for e in memory) // size


print("torch", torch.__version__)
seen = {}
for name, made in {"view": lambda t: t.view(-1), "slice": lambda t: t[:], "detach": lambda t: t.detach(), "product": lambda t: t * 1}.items():
    with torch.no_grad():
        start = made(weight)
    last, count = kept(start)
    arrives = None
    if last.requires_grad:
        last.sum().backward()
        arrives = weight.grad is not None
    seen[name] = start.requires_grad, start.grad_fn is not None, count, arrives
    print(f"  {name}: requires_grad {start.requires_grad}, tensors kept {count}, a gradient arrives: {arrives}")
expected = {"view": (True, False, 10, False), "slice": (True, False, 10, False)}
expected |= dict.fromkeys(("detach", "product"), (False, False, 1, None))
if seen != expected:
    raise SystemExit("the behaviour has changed")
PYTHON
