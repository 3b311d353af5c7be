"""Speed: this build beside commit ``BASE`` and beside the floor, then memest beside torch's MemTracker and torchinfo, in one run.

Every time is CPU time of the process that did the work, so a busy machine does not decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from validation.bench.builds import BASE, Build, of_commit, this_build
from validation.bench.lines import LINES, Found, Line
from validation.bench.rounds import measured
from validation.bench.table import Claim, print_table

ROUNDS, QUICK_ROUNDS = 3, 1
HEAD = ("CPU time, and memory", BASE, "in floors", "this build", "in floors", "gain", "floor", "target", "holds")


def bench(*, quick: bool = False, only: str = "") -> int:
    """Print the tables of what has ``only`` in its name (everything by default); 1 when a claim fails, else 0. ``quick`` repeats less
    and takes a stored measurement for the truth where there is one."""
    lines = [line for line in LINES if only.lower() in line.what.lower()]
    found = _speed(lines, QUICK_ROUNDS if quick else ROUNDS)
    claims = [line.claim(found) for line in lines if line.most is not None]
    for name, check in _checks(quick, found).items():
        if only.lower() in name.lower():
            print(f"\n{name}")
            others = list(check())
            print_table(("claim", "found", "claimed", "holds"), [c.row for c in others])
            claims += others
    if not (lines or claims):
        raise SystemExit(f"bench: nothing has {only!r} in its name; try a part of {LINES[0].what!r}, or: {', '.join(_checks(quick, {}))}")
    broken = sum(not c.holds for c in claims)
    print(f"\n{len(claims) - broken} of {len(claims)} claims hold")
    return 1 if broken else 0


def _speed(lines: list[Line], rounds: int) -> Found:
    if not lines:
        return {}
    with ExitStack() as stack:
        base = stack.enter_context(of_commit(BASE, Path(__file__).parents[2]))
        if base is None:
            print(f"no git history with commit {BASE} here, so its columns stay empty\n")
        builds: list[Build] = [this_build(), *([base] if base else [])]
        found = measured(builds, lines, rounds)
    print_table(HEAD, [line.row(found) for line in lines])
    return found


def _checks(quick: bool, found: Found) -> dict[str, Callable[[], Iterator[Claim]]]:
    from validation.bench import growth, loaded, sweeps, trackers

    return {
        "beside MemTracker and torchinfo": lambda: trackers.side_by_side(quick, found),
        "sweeps beside estimates one by one": sweeps.equal_to_estimates_made_alone,
        "what the command line loads": loaded.libraries,
        "growth with the layers": growth.linear_in_layers,
        "growth with the input": growth.independent_of_shape,
    }
