#!/usr/bin/env bash
# torch's profiler, memory events on CPU: releases of what was allocated outside of the profile.
#
# Guess: with profile_memory=True every release that happens while the profile runs is a [memory] event of the tensor's own size.
# Seen with torch 2.13.0: the profiler knows only the addresses it saw allocated while some profile ran.
#   - A tensor made before the first profile and freed inside it leaves no event at all.
#   - The table of addresses outlives a profile. A tensor that a profile saw made is reported when a later profile sees it freed.
#   - Freed between profiles, its entry stays: another tensor at that address is then reported with the size of the first.
# So a running sum of one profile's events can end too high, or off by the size of a tensor that is long gone.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy
"$work/venv/bin/python" - 2>"$work/stderr" <<'PYTHON' || { cat "$work/stderr"; exit 1; }
import torch
from torch.profiler import ProfilerActivity, profile


def events(work):
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        work()
    return [e.nbytes() for e in found.profiler.kineto_results.events() if e.name() == "[memory]"]


held = {"before": torch.empty(1_000)}
missing = events(lambda: held.pop("before"))
made = events(lambda: held.update(first=torch.empty(25_000_900)))
address = held["first"].data_ptr()
del held["first"]  # between profiles: nobody looks
held["second"] = torch.empty(25_000_800)
if held["second"].data_ptr() != address:
    raise SystemExit("malloc put the second tensor elsewhere: nothing to see")
freed = events(lambda: held.pop("second"))
print("made before any profile, freed in one:", missing)
print("made in a profile:", made)
print("another tensor of 100,003,200 bytes at that address, freed in a profile:", freed)
if (missing, made, freed) != ([], [100_003_600], [-100_003_600]):
    raise SystemExit("the behaviour has changed")
PYTHON
