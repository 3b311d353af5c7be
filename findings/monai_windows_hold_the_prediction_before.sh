#!/usr/bin/env bash
# monai: what sliding_window_inference holds while the network runs on a window.
#
# Guess: the predictions of one batch of windows are added to the result, then they go; so beside the result a call holds one batch of
#   predictions, as a single forward does. buffer_steps trades the result's adds for a slab and changes nothing else.
# Seen with monai 1.6.1, torch 2.13.0: the loop's variables keep the batch before until the next has been predicted, so two are there at
#   once at the network's end, and all through its next call one more than a single forward has. With buffer_steps a loop variable looks
#   at that batch besides, so it is there until the first window of the next has been added, through the making of a new slab as well.
# A network whose prediction is large beside its activations (many classes, several windows at once) needs one prediction more than a
#   measured forward says; predict in smaller batches, or delete it in a predictor of your own.
set -euo pipefail
work=$(mktemp -d)
export TMPDIR="$work"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy monai==1.6.1
"$work/venv/bin/python" - 2>"$work/stderr" <<'PYTHON' || { cat "$work/stderr"; exit 1; }
import weakref

import monai
import torch
from monai.inferers import sliding_window_inference

print("monai", monai.__version__, "torch", torch.__version__)
seen = {}
for name, settings in {"plain": {}, "buffered": {"buffer_steps": 1, "buffer_dim": 0}}.items():
    predictions, held, at_zeros = [], [], []
    zeros = torch.zeros

    def watched(*args, **kwargs):
        """How many predictions are there when a slab or a result is made."""
        at_zeros.append(sum(p() is not None for p in predictions))
        return zeros(*args, **kwargs)

    def network(window):
        held.append(sum(p() is not None for p in predictions))
        made = window.new_zeros(len(window), 8, *window.shape[2:])
        predictions.append(weakref.ref(made))
        return made

    torch.zeros = watched
    try:
        with torch.no_grad():
            sliding_window_inference(torch.rand(1, 1, 16, 8), (4, 8), 1, network, overlap=0, **settings)
    finally:
        torch.zeros = zeros
    seen[name] = held, at_zeros
    print(f"  {name}: predictions held when the network is called {held}, when zeros are made {at_zeros}")
if seen != {"plain": ([0, 1, 1, 1], [1, 1]), "buffered": ([0, 1, 1, 1], [1, 1, 1, 2, 2, 2])}:
    raise SystemExit("the behaviour has changed")
PYTHON
