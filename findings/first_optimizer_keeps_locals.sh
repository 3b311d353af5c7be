#!/usr/bin/env bash
# torch on CPU: what the first optimizer of a process keeps alive when Python's garbage collector is off.
#
# Guess: with gc.disable(), as training loops do to avoid pauses, a tensor that only a local variable names is freed when its function
#   returns. That the function also makes an optimizer of other tensors changes nothing.
# Seen with torch 2.13.0: the first optimizer imports torch._dynamo (torch/_compile.py imports it on first use), and that import leaves
#   a reference cycle that holds the frames it ran under, each with its local variables.
#   - The tensor lives on after its function has returned, until garbage is collected: with the collector off, for good.
#   - The second call of the same function frees its tensor at once; so does the first where torch._dynamo was imported before.
#   - A first addition on the meta device does the same, by the same import.
# So the peak of a process's first step can hold tensors that no later step holds, and a weak reference tells more than a name.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy
cat > "$work/probe.py" <<'PYTHON'
import gc
import sys
import weakref

import torch

if sys.argv[1] == "imported":
    import torch._dynamo
gc.collect()
gc.disable()


def optimizer():
    torch.optim.SGD([torch.nn.Parameter(torch.ones(3))], lr=0.1)


def addition():
    torch.empty(3, device="meta") + 1


def alive(work):
    def caller():
        local = torch.empty(25_000_000)
        work()
        return weakref.ref(local)

    return caller()() is not None


work = addition if sys.argv[1] == "meta" else optimizer
print(sys.argv[1], "torch._dynamo" in sys.modules, alive(work), alive(work), "torch._dynamo" in sys.modules)
PYTHON
seen=$(for way in fresh meta imported; do "$work/venv/bin/python" "$work/probe.py" "$way"; done)
echo "imported before, alive after the first call, after the second call, imported after:"
echo "$seen"
[ "$seen" = "fresh False True False True
meta False True False True
imported True False False True" ] || { echo "the behaviour has changed"; exit 1; }
