"""Columns on their way out, block by block: CSV, JSON, Parquet and Arrow. No more than a block is held at a time.

``kinds`` are the columns' names with int or str; a block has an array for each of them. Numbers are whole, of any size; Parquet and Arrow
hold those below 2**63.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from memest.errors import UsageError, one_of
from memest.planning.replacing import replacing

Column = NDArray[Any]
Kinds = Mapping[str, type]
Blocks = Iterable[Mapping[str, Column]]
IN_MEMORY = 1 << 20  # characters of a column that wait for the columns before it
READ = 1 << 16
SUFFIXES = {".csv": "csv", ".json": "json", ".parquet": "parquet", ".arrow": "arrow"}


def write(path: str | Path, kinds: Kinds, blocks: Blocks, torch: Mapping[str, Any]) -> None:
    """To a file, as its suffix says, whole or not at all. UsageError for a suffix that says nothing, where pyarrow is needed and not
    installed, and why it cannot be written."""
    path = Path(path)
    form = SUFFIXES.get(path.suffix.lower())
    if form is None:
        raise UsageError(f"{path}: the suffix says how it is written: {', '.join(SUFFIXES)}{one_of(path.suffix, list(SUFFIXES))}")
    if form in ("parquet", "arrow"):
        arrow()
    with replacing(path) as file:
        if form == "csv":
            file.writelines(text.encode() for text in csv_text(kinds, blocks))
        elif form == "json":
            file.writelines(text.encode() for text in json_text(kinds, blocks, {"torch": torch}))
        else:
            write_table(form, file, kinds, blocks, torch)


def csv_text(kinds: Kinds, blocks: Blocks, more: tuple[str, str] = ("", "")) -> Iterator[str]:
    """Comma-separated text with a heading; ``more`` is what heading and rows end in."""
    yield f"{','.join(kinds)}{more[0]}\n"
    end = f"{more[1]}\n"
    for block in blocks:
        rows = map(",".join, zip(*(map(str, block[name].tolist()) for name in kinds), strict=True))
        yield "".join([row + end for row in rows])


def json_text(kinds: Kinds, blocks: Blocks, about: Mapping[str, Any], *, indent: bool = False) -> Iterator[str]:
    """``{**about, "columns": {name: [values]}}``. Columns come one after the other: the later ones wait in files."""
    between, inner, last = (",\n      ", "\n      ", "\n    ") if indent else (", ", "", "")
    with ExitStack() as files:
        waiting = {name: files.enter_context(SpooledTemporaryFile(IN_MEMORY, "w+", encoding="utf-8", newline="")) for name in kinds}
        some = False
        for block in blocks:
            for name, file in waiting.items():
                values = block[name].tolist()
                if values:
                    file.write((between if some else inner) + between.join(map(json.dumps if kinds[name] is str else str, values)))
            some = some or bool(len(next(iter(block.values()))))
        head = json.dumps(about, indent=2 if indent else None, ensure_ascii=not indent)
        yield (head[:-2] + ',\n  "columns": {\n    ' if indent else head[:-1] + ', "columns": {')
        for number, (name, file) in enumerate(waiting.items()):
            yield ((",\n    " if indent else ", ") if number else "") + json.dumps(name) + ": ["
            file.seek(0)
            while text := file.read(READ):
                yield text
            yield (last if some else "") + "]"
        yield "\n  }\n}" if indent else "}}"


def arrow() -> Any:
    """The library that writes tables; UsageError where it is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise UsageError("Parquet and Arrow files need pyarrow; pip install pyarrow, or write .csv or .json") from None
    return pyarrow


def write_table(form: str, file: IO[bytes], kinds: Kinds, blocks: Blocks, torch: Mapping[str, Any]) -> None:
    """A Parquet or Arrow (IPC) file, a record batch for each block; its metadata say which torch the bytes are of, as JSON."""
    pa = arrow()
    schema = pa.schema([(name, pa.string() if kind is str else pa.int64()) for name, kind in kinds.items()], {"torch": json.dumps(torch)})
    with pa.parquet.ParquetWriter(file, schema) if form == "parquet" else pa.ipc.new_file(file, schema) as writer:
        for block in blocks:
            columns = [pa.array(block[name] if kind is str else _in_64_bits(name, block[name])) for name, kind in kinds.items()]
            writer.write_batch(pa.record_batch(columns, schema=schema))


def _in_64_bits(name: str, column: Column) -> Column:
    try:
        return column.astype(np.int64, copy=False)
    except OverflowError:
        raise UsageError(f"{name} goes past 2**63, more than a column of a Parquet or Arrow file holds; write .csv or .json") from None
