"""Blocks and plans as CSV: the columns that minimalloc reads and writes (its README: ``id,lower,upper,size`` and ``offset``).

``lower`` is the first moment of a block's life, ``upper`` the first one after it. minimalloc's older files say ``buffer`` or
``buffer_id``, ``begin`` or ``start``, and ``end``, which is the last moment itself; they are read, too (its src/converter.cc).
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from io import StringIO

from memest.errors import UsageError
from memest.memory.planners.blocks import Block, Plan, aligned, plan_of

COLUMNS = ("id", "lower", "upper", "size", "offset")
OLDER = {"buffer": "id", "buffer_id": "id", "begin": "lower", "start": "lower"}


def written(blocks: Sequence[Block], plan: Plan | None = None) -> str:
    """A line a block, with its offset where there is a plan."""
    rows = [[b.id, b.lower, b.upper, b.size] for b in blocks]
    if plan is not None:
        rows = [[*row, offset] for row, offset in zip(rows, plan.offsets, strict=True)]
    lines = [COLUMNS[: 4 if plan is None else 5], *rows]
    return "".join(",".join(map(str, line)) + "\n" for line in lines)


def read(text: str, alignment: int = 1) -> tuple[tuple[Block, ...], Plan | None]:
    """The blocks, numbered in their order with sizes rounded up, each with its own id as its kind, and their plan (None: no offsets).
    UsageError names the line that is wrong."""
    lines = csv.reader(StringIO(text))
    head = [column.strip() for column in next(lines, [])]
    last = "end" in head
    names = ["upper" if column == "end" else OLDER.get(column, column) for column in head]
    if missing := [c for c in COLUMNS[:4] if c not in names]:
        raise UsageError(f"a file of blocks has the columns {', '.join(COLUMNS[:4])}; {', '.join(missing)} is missing")
    blocks: list[Block] = []
    offsets: list[int] = []
    for number, line in enumerate(lines, 2):
        if not line:
            continue
        if len(line) != len(names):
            raise UsageError(f"line {number}: {len(line)} fields under {len(names)} columns")
        given = dict(zip(names, (field.strip() for field in line), strict=True))
        lower, upper, size = (_whole(given, column, number) for column in COLUMNS[1:4])
        block = Block(len(blocks), lower, upper + last, aligned(size, alignment), given["id"])
        if block.upper < block.lower:
            raise UsageError(f"line {number}: the block ends at {block.upper}, before it begins at {block.lower}")
        blocks.append(block)
        offsets.append(_whole(given, "offset", number) if "offset" in given else 0)
    return tuple(blocks), plan_of(blocks, offsets) if "offset" in names else None


def _whole(given: Mapping[str, str], column: str, number: int) -> int:
    text = given[column]
    if not (text.isascii() and text.isdigit() and len(text) < 40):
        raise UsageError(f"line {number}: {column} is a whole number of at least 0, got {text[:40]!r}")
    return int(text)
