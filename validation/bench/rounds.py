"""Builds measured in turn, some rounds: of every number the least counts, and a machine that is busy for a while is so for all."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from validation.bench.builds import THIS, Build, BuildError
from validation.bench.lines import Found, Line


def measured(builds: Sequence[Build], lines: Sequence[Line], rounds: int) -> Found:
    """What the lines' sources find of each build: the least of all rounds, by build, source and name. Where another build than this one
    cannot do what a source asks for, that is said, and its numbers are left out; BuildError when this build cannot."""
    sources = list(dict.fromkeys(source for line in lines for source in line.sources))
    found: Found = {}
    for n, source in enumerate(sources, 1):
        print(f"measuring {n} of {len(sources)}: {source.title}", file=sys.stderr, flush=True)
        able = list(builds)
        for number in range(rounds):
            for build in able[:: 1 if number % 2 == 0 else -1]:
                try:
                    numbers = source.measure(build)
                except BuildError as e:
                    if build.name == THIS:
                        raise
                    print(e)
                    able.remove(build)
                    continue
                for name, value in numbers.items():
                    at = (build.name, source, name)
                    found[at] = min(value, found.get(at, value))
    return found
