"""An ONNX file without what is large in it: the bytes of tensors are stepped over, never read.

A protobuf message is a row of fields, each a tag (number and kind) and a value; messages in messages are values with their length. What is
left out here are the data of tensors beyond some thousand bytes, and what is for people (doc strings, shapes that were inferred).
Source: onnx/onnx.proto; the wire format of protocol buffers.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from memest.errors import FileError

KEPT = 64 * 1024  # bytes of one tensor's data that are read: constants that say sizes, and places, are shorter
MOST_BYTES = 256 * 1024 * 1024  # of what is left
MOST_FIELDS = 2_000_000
MOST_DEPTH = 48
FOREIGN = "is no ONNX file"
VARINT, FIXED64, MESSAGE, FIXED32 = 0, 1, 2, 5


class Kind(NamedTuple):
    """A message: which of its fields are messages that are looked into, which are left out, and which only where they are large."""

    inner: Mapping[int, str] = {}
    dropped: frozenset[int] = frozenset()
    data: frozenset[int] = frozenset()


KINDS = {
    "model": Kind({7: "graph", 25: "function"}, frozenset({6, 20})),
    "graph": Kind({1: "node", 5: "tensor", 15: "sparse"}, frozenset({10, 13, 14, 16})),
    "function": Kind({7: "node"}, frozenset({8, 12, 14})),
    "node": Kind({5: "attribute"}, frozenset({6})),
    "attribute": Kind({5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"}, frozenset({13})),
    "sparse": Kind({1: "tensor", 2: "tensor"}),
    "tensor": Kind({}, frozenset({12}), frozenset({4, 5, 6, 7, 9, 10, 11})),
}


class _Field(NamedTuple):
    """``start`` is where its tag begins, ``value`` where its value does; ``end`` is past it."""

    number: int
    kind: int
    start: int
    value: int
    end: int


class _Skim:
    """Goes through the bytes of one file."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self._data, self._path = data, path
        self._fields = self._kept = 0

    def message(self, kind: str, start: int, end: int, depth: int = 0) -> list[bytes]:
        """The message between two places, as pieces."""
        if depth > MOST_DEPTH:
            raise FileError(f"{self._path}: graphs nested deeper than {MOST_DEPTH // 3}")
        form, pieces = KINDS[kind], []
        for f in self._walk(start, end):
            inner = form.inner.get(f.number)
            if f.number in form.dropped or (f.number in form.data and f.end - f.value > KEPT):
                continue
            if inner is None or f.kind != MESSAGE:
                pieces.append(self._copied(f.start, f.end))
                continue
            within = self.message(inner, f.value, f.end, depth + 1)
            pieces += [_varint(f.number << 3 | MESSAGE), _varint(sum(map(len, within))), *within]
        return pieces

    def _copied(self, start: int, end: int) -> bytes:
        self._kept += end - start
        if self._kept > MOST_BYTES:
            raise FileError(f"{self._path}: more than {MOST_BYTES:,} bytes without its weights")
        return self._data[start:end]

    def _walk(self, start: int, end: int) -> Iterator[_Field]:
        at = start
        while at < end:
            self._fields += 1
            if self._fields > MOST_FIELDS:
                raise FileError(f"{self._path}: more than {MOST_FIELDS:,} fields")
            tag, value = self._number(at, end)
            number, kind = tag >> 3, tag & 7
            if kind == VARINT:
                _, past = self._number(value, end)
            elif kind in (FIXED64, FIXED32):
                past = value + (8 if kind == FIXED64 else 4)
            elif kind == MESSAGE:
                length, value = self._number(value, end)
                past = value + length
            else:
                raise FileError(f"{self._path} {FOREIGN}: it has no protobuf field at byte {at:,}")
            if number == 0:
                raise FileError(f"{self._path} {FOREIGN}: it has no protobuf field at byte {at:,}")
            if past > end:
                raise FileError(f"{self._path} ends too early: a field at byte {at:,} goes on to {past:,} of {end:,} (was it cut off?)")
            yield _Field(number, kind, at, value, past)
            at = past

    def _number(self, at: int, end: int) -> tuple[int, int]:
        """A varint, and where it ends."""
        value = shift = 0
        while at < end and shift < 70:
            byte = self._data[at]
            value |= (byte & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if byte < 0x80:
                return value, at
        raise FileError(f"{self._path} {FOREIGN}: a number in it does not end (byte {at:,})")


def skimmed(path: Path) -> bytes:
    """The file's model without the data of its weights; FileError where it is no protobuf, or cut off."""
    try:
        with path.open("rb") as f:
            if f.seek(0, 2) == 0:
                raise FileError(f"{path} {FOREIGN}: it is empty")
            with mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return b"".join(_Skim(data, path).message("model", 0, len(data)))
    except OSError as e:
        raise FileError(f"{path}: {e.strerror or e}") from None
    except ValueError as e:  # not a plain file
        raise FileError(f"{path}: {e}") from None


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
