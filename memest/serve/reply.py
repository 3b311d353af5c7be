"""What is replied to a request, apart from how it travels: a status and a body, or why the request is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class RefusedError(Exception):
    """What is wrong with a request, with its status of HTTP and, as metrics count it, its kind."""

    def __init__(self, status: int, kind: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.kind, self.headers = status, kind, headers


@dataclass(frozen=True, slots=True)
class Reply:
    """A status and a body; ``kind`` is the kind of an error (empty: none)."""

    body: bytes
    status: int = 200
    kind: str = ""
    content: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


PYTHON = {
    "True or False": "true or false",
    **{
        f"{verb} {word}": f"{verb} {said}"
        for verb in ("got", "is")
        for word, said in {
            "True": "true",
            "False": "false",
            "None": "null",
            "nan": "NaN",
            "inf": "Infinity",
            "-inf": "-Infinity",
            "a dict": "an object",
        }.items()
    },
}
_PYTHON = re.compile(rf"\b(?:{'|'.join(map(re.escape, PYTHON))})(?=$|[;,])")


def in_json(message: str) -> str:
    """A message of the library about a value, in the words of JSON."""
    return _PYTHON.sub(lambda found: PYTHON[found[0]], message)


def error_data(kind: str, message: str) -> dict[str, Any]:
    """What stands for an answer that there is not."""
    return {"error": {"kind": kind, "message": message}}


def refusal(e: RefusedError) -> Reply:
    """A refused request, as its reply."""
    return Reply(json.dumps(error_data(e.kind, str(e))).encode(), e.status, e.kind, headers=e.headers)
