"""A pickle of plain data, read without trust: containers, texts and numbers, nothing that names or calls anything.

Opcodes are taken one by one, from a list; whatever is not on it is refused by name, so no global is ever looked up and nothing is built
that could run. Bytes, values and nesting are bounded, and what a file says of its own sizes is believed only as far as it has the bytes.
Format: pickletools in CPython (protocols 0 to 5).
"""

from __future__ import annotations

import pickletools
from struct import unpack_from
from typing import Any

from memest.errors import FileError

MAX_BYTES = 1 << 30
MAX_VALUES = 50_000_000
MAX_NESTING = 40  # lists and dicts that are being filled
MAX_DIGITS = 24  # of a number written as text

NAMES = {ord(code.code): code.name for code in pickletools.opcodes}
CALLS = {"GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "REDUCE", "BUILD", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID"}
_CONSTANTS: dict[int, Any] = {0x4E: None, 0x88: True, 0x89: False}  # NONE NEWTRUE NEWFALSE
_FIXED = {0x4B: ("<B", 1), 0x4D: ("<H", 2), 0x4A: ("<i", 4), 0x47: (">d", 8)}  # BININT1 BININT2 BININT BINFLOAT
_TEXTS = {0x8C: ("<B", 1), 0x58: ("<I", 4), 0x8D: ("<Q", 8), 0x55: ("<B", 1), 0x54: ("<i", 4)}  # unicode, and the texts of Python 2


class _Refused(Exception):  # noqa: N818 - it becomes a FileError, with the file's name
    """Why a pickle is not read."""


def unpickled(raw: bytes, source: str) -> Any:
    """What ``raw`` holds; FileError for what is cut short, too much, or more than plain data."""
    if len(raw) > MAX_BYTES:
        raise FileError(f"{source}: more than {MAX_BYTES >> 20} MiB; record fewer entries (max_entries of _record_memory_history)")
    try:
        return _read(raw)
    except _Refused as e:
        raise FileError(f"{source}: {e}") from None
    except (IndexError, KeyError, TypeError, ValueError, AttributeError, UnicodeError, OverflowError) as e:
        raise FileError(f"{source}: not a pickle that torch wrote ({type(e).__name__} while reading it)") from None


def _read(raw: bytes) -> Any:
    stack: list[Any] = []
    below: list[list[Any]] = []
    memo: dict[int, Any] = {}
    at, end, made = 0, len(raw), 0
    while True:
        if at >= end:
            raise _Refused("cut short: a pickle ends with STOP, and this one does not" if end else "empty")
        code = raw[at]
        at += 1
        if code == 0x6A or code == 0x68:  # LONG_BINGET BINGET
            if code == 0x68:
                stack.append(memo[raw[at]])
                at += 1
            else:
                stack.append(memo[_number("<I", raw, at, 4)])
                at += 4
        elif code == 0x94:  # MEMOIZE
            memo[len(memo)] = stack[-1]
        elif code == 0x28:  # MARK
            below.append(stack)
            stack = []
            if len(below) > MAX_NESTING:
                raise _Refused(f"nested deeper than {MAX_NESTING}")
        elif code in _FIXED:
            form, width = _FIXED[code]
            stack.append(_number(form, raw, at, width))
            at += width
        elif code == 0x8A:  # LONG1
            width = raw[at]
            stack.append(int.from_bytes(_bytes(raw, at + 1, width), "little", signed=True))
            at += 1 + width
        elif code in _TEXTS:
            form, width = _TEXTS[code]
            length = _number(form, raw, at, width)
            at += width
            text = _bytes(raw, at, length)
            stack.append(text.decode("utf-8", "surrogatepass") if code in (0x8C, 0x58, 0x8D) else text.decode("latin-1"))
            at += length
        elif code == 0x7D:  # EMPTY_DICT
            stack.append({})
        elif code == 0x5D:  # EMPTY_LIST
            stack.append([])
        elif code == 0x75 or code == 0x64:  # SETITEMS DICT
            items, stack = stack, below.pop()
            pairs = dict(zip(items[::2], items[1::2], strict=True))
            _into(stack, dict).update(pairs) if code == 0x75 else stack.append(pairs)
        elif code == 0x65 or code == 0x6C:  # APPENDS LIST
            items, stack = stack, below.pop()
            _into(stack, list).extend(items) if code == 0x65 else stack.append(items)
        elif code == 0x61:  # APPEND
            item = stack.pop()
            _into(stack, list).append(item)
        elif code == 0x73:  # SETITEM
            value, key = stack.pop(), stack.pop()
            _into(stack, dict)[key] = value
        elif code in _CONSTANTS:
            stack.append(_CONSTANTS[code])
        elif code == 0x71 or code == 0x72:  # BINPUT LONG_BINPUT
            width = 1 if code == 0x71 else 4
            memo[_number("<B" if code == 0x71 else "<I", raw, at, width)] = stack[-1]
            at += width
        elif 0x85 <= code <= 0x87:  # TUPLE1 TUPLE2 TUPLE3
            count = code - 0x84
            stack[-count:] = [tuple(stack[len(stack) - count :])]
        elif code == 0x74:  # TUPLE
            items, stack = stack, below.pop()
            stack.append(tuple(items))
        elif code == 0x29:  # EMPTY_TUPLE
            stack.append(())
        elif code == 0x95:  # FRAME
            if _number("<Q", raw, at, 8) > end - at - 8:
                raise _Refused("cut short: a frame of it says more bytes than there are")
            at += 8
        elif code == 0x80:  # PROTO
            if raw[at] > 5:
                raise _Refused(f"a pickle of protocol {raw[at]}; 0 to 5 are known")
            at += 1
        elif code == 0x2E:  # STOP
            if len(stack) != 1 or below:
                raise _Refused("not one value: the pickle ends in the middle of it")
            return stack[0]
        elif code in (0x49, 0x4C, 0x46, 0x56, 0x53, 0x67, 0x70):  # INT LONG FLOAT UNICODE STRING GET PUT
            at = _line(raw, at, code, stack, memo)
        else:
            name = NAMES.get(code, "")
            if not name:
                raise _Refused(f"not a pickle: byte {at - 1:,} is no opcode")
            what = "names code to run" if name in CALLS else "is no plain data"
            raise _Refused(
                f"refused: opcode {name} at byte {at - 1:,} {what}; a history of torch has dicts, lists, texts and numbers alone"
            )
        made += 1
        if made > MAX_VALUES:
            raise _Refused(f"more than {MAX_VALUES:,} values; record fewer entries (max_entries of _record_memory_history)")


def _bytes(raw: bytes, at: int, width: int) -> bytes:
    if width < 0 or at + width > len(raw):
        raise _Refused("cut short: a text or number of it says more bytes than there are")
    return raw[at : at + width]


def _number(form: str, raw: bytes, at: int, width: int) -> Any:
    if at + width > len(raw):
        raise _Refused("cut short: it ends in the middle of a number")
    return unpack_from(form, raw, at)[0]


def _into(stack: list[Any], kind: type) -> Any:
    """What stands on top, to be filled: a list or a dict as the opcode says."""
    if not stack or type(stack[-1]) is not kind:
        raise _Refused(f"not a pickle that torch wrote: it fills a {kind.__name__} that is none")
    return stack[-1]


def _line(raw: bytes, at: int, code: int, stack: list[Any], memo: dict[int, Any]) -> int:
    """A value of protocol 0, written as a line of text; the place behind it."""
    stop = raw.find(b"\n", at)
    if stop < 0:
        raise _Refused("cut short: it ends in the middle of a line")
    line = raw[at:stop]
    if code == 0x56:  # UNICODE
        stack.append(line.decode("raw-unicode-escape"))
    elif code == 0x53:  # STRING
        if len(line) < 2 or line[:1] not in (b"'", b'"') or line[-1:] != line[:1]:
            raise _Refused("a text without its quotes")
        stack.append(line[1:-1].decode("unicode_escape"))
    elif len(line) > MAX_DIGITS:
        raise _Refused(f"a number of more than {MAX_DIGITS} digits")
    elif code == 0x46:  # FLOAT
        stack.append(float(line))
    elif code == 0x67:  # GET
        stack.append(memo[int(line)])
    elif code == 0x70:  # PUT
        memo[int(line)] = stack[-1]
    else:  # INT LONG; protocol 0 writes bools as 00 and 01
        stack.append({b"00": False, b"01": True}.get(line) if line in (b"00", b"01") else int(line.rstrip(b"L")))
    return stop + 1
