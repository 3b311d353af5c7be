"""HTTP/1.1 as far as a service of small JSON requests needs it: heads read strictly and within bounds, bodies of a stated length.

A body without a length (chunked) is refused (411), so that nobody can disagree where a request ends. The standard library's
``http.server`` takes a thread a connection, which slow clients would fill; what serves connections is :mod:`memest.serve.connection`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

MAX_HEAD = 16 * 1024
END = b"\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
JSON, TEXT = b"application/json", b"text/plain; version=0.0.4; charset=utf-8"
_REQUEST = re.compile(rb"([A-Z]{1,16}) (/[\x21-\x7e]*) HTTP/1\.([01])")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")


class RefusedError(Exception):
    """What is wrong with a request, with its status and, as metrics count it, its kind."""

    def __init__(self, status: int, kind: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.kind, self.headers = status, kind, headers


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The head of a request: its method, path (without the query), how long its body is, whether the connection stays, and whether the
    client waits for leave to send the body."""

    method: str
    path: str
    length: int
    stays: bool
    waits: bool


@dataclass(frozen=True, slots=True)
class Response:
    """A status and a body; ``kind`` is the kind of an error (empty: none)."""

    body: bytes
    status: int = 200
    kind: str = ""
    content: bytes = JSON
    headers: Mapping[str, str] = field(default_factory=dict)

    def written(self, *, stays: bool, bodyless: bool = False) -> bytes:
        """As bytes on the wire."""
        more = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        return b"HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n%s%s\r\n%s" % (
            self.status,
            HTTPStatus(self.status).phrase.encode(),
            self.content,
            len(self.body),
            more.encode(),
            b"" if stays else b"Connection: close\r\n",
            b"" if bodyless else self.body,
        )


def error_data(kind: str, message: str) -> dict[str, Any]:
    """What stands for an answer that there is not."""
    return {"error": {"kind": kind, "message": message}}


def refusal(e: RefusedError) -> Response:
    """A refused request, as its answer."""
    return Response(json.dumps(error_data(e.kind, str(e))).encode(), e.status, e.kind, headers=e.headers)


def head_of(raw: bytes, max_body: int) -> Head:
    """The head in ``raw``, its lines without the empty one at the end. RefusedError says what is wrong."""
    first, *lines = raw.split(b"\r\n")
    request = _REQUEST.fullmatch(first)
    if request is None:
        raise RefusedError(400, "malformed", "not a request of HTTP/1.1 with a path")
    fields: dict[bytes, bytes] = {}
    for line in lines:
        found = _FIELD.fullmatch(line)
        if found is None:
            raise RefusedError(400, "malformed", "a header that is none")
        name, value = found[1].lower(), found[2].rstrip(b" \t")
        if name in (b"content-length", b"host") and fields.get(name, value) != value:
            raise RefusedError(400, "malformed", f"{name.decode()} stands twice")
        fields[name] = value
    modern = request[3] == b"1"
    if modern and b"host" not in fields:
        raise RefusedError(400, "malformed", "no host header")
    if b"transfer-encoding" in fields:
        raise RefusedError(411, "malformed", "give the body's length (Content-Length), not chunks")
    if fields.get(b"content-encoding", b"identity").lower() != b"identity":
        raise RefusedError(415, "malformed", "a body is plain JSON, not compressed")
    kept = fields.get(b"connection", b"" if modern else b"close").lower()
    return Head(
        method=request[1].decode(),
        path=request[2].partition(b"?")[0].decode(),
        length=_length(fields.get(b"content-length", b"0"), max_body),
        stays=b"close" not in kept and (modern or b"keep-alive" in kept),
        waits=fields.get(b"expect", b"").lower() == b"100-continue",
    )


def _length(text: bytes, most: int) -> int:
    if not text.isdigit():
        raise RefusedError(400, "malformed", "content-length is a whole number")
    if len(text) > 18 or int(text) > most:
        raise RefusedError(413, "too large", f"a body has at most {most:,} bytes here (--max-body)")
    return int(text)
