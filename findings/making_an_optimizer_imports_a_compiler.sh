#!/usr/bin/env bash
# torch.optim: what making the first optimizer costs a process.
#
# Guess: nothing to speak of. An optimizer is a Python object with a dictionary; its state appears in the first step.
# Seen with torch 2.13.0, build for CPU: SGD over one parameter of four numbers imports torch._dynamo and some 800 modules with it, and the
#   process's resident set grows by about 70 MiB. Once: a second optimizer costs nothing. So a training process rests that much higher than an
#   inference process of the same network, before its first step.
set -euo pipefail
work=$(mktemp -d)
export TMPDIR="$work"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy
cat > "$work/probe.py" <<'PYTHON'
import sys

import torch


def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


weight = torch.nn.Parameter(torch.zeros(4))
for number in ("first", "second"):
    before, modules = resident(), len(sys.modules)
    torch.optim.SGD([weight], lr=0.1)
    grown = resident() - before
    many, much = len(sys.modules) - modules > 500, grown > 40
    print(f"{number}: {grown:.0f} MiB, {len(sys.modules) - modules} modules", file=sys.stderr)
    print(f"{number}: hundreds of modules {many}, more than 40 MiB {much}, compiler imported {'torch._dynamo' in sys.modules}")
PYTHON
seen=$("$work/venv/bin/python" "$work/probe.py")
echo "torch $("$work/venv/bin/python" -c 'import torch; print(torch.__version__)'), two optimizers made:"
echo "$seen"
[ "$seen" = "first: hundreds of modules True, more than 40 MiB True, compiler imported True
second: hundreds of modules False, more than 40 MiB False, compiler imported True" ]
