"""Running what is drawn at random, and shrinking what differs: programs are trees of statements."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from validation.streams import Difference

Statement = tuple[Any, ...]
"""A kind, then numbers and inner statements."""
Running = Callable[[Any], Difference | str | None]
"""None for a trial that agrees, why one of both refuses it, or where they differ."""


def inner(s: Statement) -> list[Statement]:
    """Those in it."""
    return [p for p in s[1:] if isinstance(p, tuple)]


def shrink(trial: Any, run: Running) -> Any:
    """A smaller trial that still differs."""
    progress = True
    while progress:
        progress = False
        for program in _smaller(trial.program):
            candidate = replace(trial, program=program)
            if isinstance(run(candidate), Difference):
                trial, progress = candidate, True
                break
    return trial


def _smaller(s: Statement) -> Iterator[Statement]:
    """The statement with something less in it."""
    yield from inner(s) if s[0] != "seq" else ()
    if s[0] == "seq":
        for i in range(1, len(s)):
            if len(s) > 2:
                yield (*s[:i], *s[i + 1 :])
    for i, part in enumerate(s):
        if isinstance(part, tuple):
            for less in _smaller(part):
                yield (*s[:i], less, *s[i + 1 :])


def fuzz_with(run: Running, cases: int, seed: int, drawn: Callable[[int], Any]) -> int:
    """Run ``cases`` of the trials that ``drawn`` draws; the number of differences. Each is printed with its seed, shrunk."""
    differences = done = 0
    refused: Counter[str] = Counter()
    start, number = time.time(), seed
    while done < cases:
        number += 1
        trial = drawn(number)
        found = run(trial)
        if isinstance(found, str):
            refused[found] += 1
            assert sum(refused.values()) <= 10 * cases, refused
            continue
        done += 1
        if found is not None:
            differences += 1
            small = shrink(trial, run)
            print(f"--- seed {number}: {small}\n{run(small)}", flush=True)
        if done % 50 == 0:
            print(f"{done} forwards, {differences} differences, {time.time() - start:.0f} s", file=sys.stderr, flush=True)
    print(f"{cases} forwards, {differences} differences")
    for reason, times in refused.most_common():
        print(f"  {times} more refused by {reason}")
    return differences
