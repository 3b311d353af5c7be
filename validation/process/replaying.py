"""Random calls of malloc, answered by the C library in a process of its own (``replay.c``) and by the simulation."""

from __future__ import annotations

import json
import os
import random
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from memest.memory.allocators.glibc import MAPPED, Arena

Call = tuple[int, int, int]
Sizes = Literal["small", "middle", "large"]
MALLOC, CALLOC, MEMALIGN, REALLOC, FREE = range(5)
SOURCE = Path(__file__).with_name("replay.c")
STORED = Path(__file__).parents[1] / "results" / "process" / "malloc.json"


def random_calls(seed: int, count: int, sizes: Sizes) -> list[Call]:
    """What to do, with which block, and its bytes."""
    chance = random.Random(seed)
    live: list[int] = []
    found: list[Call] = []
    made = 0
    for _ in range(count):
        if live and chance.random() < (0.49 if len(live) < 400 else 0.6):
            found.append((FREE, live.pop(chance.randrange(len(live)) if chance.random() < 0.7 else -1), 0))
            continue
        what = chance.choice((MALLOC, MALLOC, MALLOC, CALLOC, MEMALIGN, MEMALIGN, REALLOC) if sizes != "large" else (0, 1, 2, 2))
        nbytes = int(2 ** chance.uniform(3, {"small": 12, "middle": 17, "large": 25.5}[sizes]))
        if what == REALLOC and live:
            found.append((REALLOC, chance.choice(live), nbytes))
        elif what != REALLOC:
            found.append((what, made, nbytes))
            live.append(made)
            made += 1
    return found


def simulated(calls: Sequence[Call], arena: Arena) -> list[int]:
    """The addresses that the simulation gives, 0 for a release, and where the heap ends."""
    arena.malloc(24)
    blocks: dict[int, int] = {}
    found = []
    for what, number, nbytes in calls:
        if what == FREE:
            arena.free(blocks.pop(number))
            found.append(0)
            continue
        blocks[number] = (
            arena.malloc(nbytes)
            if what == MALLOC
            else arena.calloc(nbytes)
            if what == CALLOC
            else arena.memalign(64, nbytes)
            if what == MEMALIGN
            else arena.realloc(blocks[number], nbytes)
        )
        found.append(blocks[number])
    return [*found, arena.end]


def compiled(folder: Path) -> Path:
    """The program, built with the C compiler at hand."""
    program = folder / "replay"
    subprocess.run(["cc", "-O1", "-fno-builtin", str(SOURCE), "-o", str(program), "-lpthread"], check=True)
    return program


def answered(calls: Sequence[Call], program: Path, *, in_thread: bool = False) -> list[int]:
    """The addresses that the C library gives, as it is without settings (Dask's import, for one, leaves MALLOC_TRIM_THRESHOLD_)."""
    given = b"".join(struct.pack("3q", *call) for call in calls)
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_") and name != "GLIBC_TUNABLES"}
    done = subprocess.run([str(program), *(["thread"] if in_thread else [])], input=given, stdout=subprocess.PIPE, check=True, env=plain)
    return list(struct.unpack(f"{len(calls) + 1}q", done.stdout))


def differences(real: Sequence[int], ours: Sequence[int], *, in_thread: bool = False) -> list[int]:
    """The numbers of the calls that are answered otherwise. Where mapped blocks lie is the kernel's choice; of a thread's heaps what counts
    is the place in them, and their end is not the data segment's."""
    found = []
    for n, (there, here) in enumerate(zip(real, ours, strict=True)):
        if here >= MAPPED:
            same = there % 4096 == here % 4096
        elif in_thread:
            same = n == len(ours) - 1 or there % (64 << 20) == here % (64 << 20)
        else:
            same = there == here
        if not same:
            found.append(n)
    return found


def main() -> int:
    """Store what the C library answers to a few calls."""
    program = compiled(Path(sys.argv[1]))
    found = []
    for sizes, seed in (("small", 1), ("middle", 2), ("large", 3)):
        calls = random_calls(seed, 400, sizes)  # type: ignore[arg-type]
        real = [there if there < 1 << 40 else MAPPED + there % 4096 for there in answered(calls, program)]
        found.append({"sizes": sizes, "seed": seed, "calls": calls, "answers": real})
    STORED.write_text(json.dumps({"libc": "2.36", "logs": found}, separators=(",", ":")) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
