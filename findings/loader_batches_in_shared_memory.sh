#!/usr/bin/env bash
# torch's DataLoader: how many batches lie in /dev/shm while the loop holds one.
#
# Guess: prefetch_factor batches for each worker, so workers x prefetch_factor, the one in the loop's hands among them.
# Seen with torch 2.13.0: workers x prefetch_factor + 1. The next batch is asked for before the finished one is handed out, so what the loop
#   holds comes on top: twice the guess with one worker and a prefetch_factor of 1. A container's /dev/shm, or a memory limit that counts it,
#   is short by one batch where the guess was ordered.
set -euo pipefail
work=$(mktemp -d)
export TMPDIR="$work"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy
cat > "$work/probe.py" <<'PYTHON'
import os
import time
import warnings

import torch
from torch.utils.data import DataLoader, Dataset

MIB = 1 << 20


class Samples(Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, index):
        return torch.full((2, MIB // 4), float(index))  # 2 MiB a sample


def taken():
    """Bytes in /dev/shm, of the filesystem: torch unlinks its files as soon as both sides have them open."""
    state = os.statvfs("/dev/shm")
    return (state.f_blocks - state.f_bfree) * state.f_frsize


def held(workers, prefetch):
    loader = DataLoader(Samples(), batch_size=2, num_workers=workers, prefetch_factor=prefetch)
    batches = iter(loader)
    batch = next(batches)
    most, quiet = 0, time.monotonic()
    while time.monotonic() - quiet < 3:  # until nothing has come for 3 s
        now = taken() - before
        if now > most:
            most, quiet = now, time.monotonic()
        time.sleep(0.1)
    return round(most / batch.nbytes)


warnings.simplefilter("ignore")
before = taken()
for workers, prefetch in ((1, 1), (1, 2), (2, 2), (2, 4)):
    print(f"{workers} x {prefetch}: {held(workers, prefetch)}")
PYTHON
seen=$("$work/venv/bin/python" "$work/probe.py")
echo "torch $("$work/venv/bin/python" -c 'import torch; print(torch.__version__)'), workers x prefetch_factor: batches in /dev/shm"
echo "$seen"
[ "$seen" = "1 x 1: 2
1 x 2: 3
2 x 2: 5
2 x 4: 9" ]
