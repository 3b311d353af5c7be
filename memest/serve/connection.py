"""One client's connection: a request is read within its time, answered by a thread or at once, and the next one is read.

No client can hold up another: a request that does not arrive in time is refused (408), a reader that does not read is dropped, and where
too many connections wait, the one that has waited longest goes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Protocol

from memest.serve.http import CONTINUE, END, MAX_HEAD, Head, RefusedError, Response, head_of, refusal

LINGER = 2.0  # seconds in which what a refused client still sends is read and dropped, so that it can read why


class Host(Protocol):
    """What connections share."""

    max_body: int
    timeout: float
    connections: set[Connection]

    def opened(self, connection: Connection) -> None:
        """A client has come."""

    def take(self, head: Head, body: bytes, done: Callable[[Response], None]) -> None:
        """Answer a request, at once or later, by calling ``done`` in the loop's thread."""

    def refused(self, response: Response) -> None:
        """A request was refused before anybody could be asked."""

    def room(self, more: int) -> bool:
        """Whether ``more`` bytes (less than none: they are free again) of requests under way can be held."""


class Connection(asyncio.Protocol):
    """``deadline`` is when the connection has to have come further; ``working`` says that its request is being answered."""

    transport: asyncio.Transport

    def __init__(self, host: Host) -> None:
        self.host = host
        self.working = self.draining = False
        self.deadline = monotonic() + host.timeout
        self._buffer = bytearray()
        self._head: Head | None = None
        self._number = 0

    @property
    def waits(self) -> bool:
        """Whether the client has something to do: to send, or to read."""
        return not self.working

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The client is there."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.host.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self.host.connections.discard(self)
        self.host.room(-len(self._buffer))
        self._buffer.clear()

    def data_received(self, data: bytes) -> None:
        """More of a request, or of the next ones."""
        if self.draining:
            return
        if not self._buffer and not self.working:
            self.deadline = monotonic() + self.host.timeout
        self._buffer += data
        if not self.host.room(len(data)):
            self._refuse(RefusedError(503, "busy", "requests under way take all the memory there is for them", **{"Retry-After": "1"}))
        elif not self.working:
            self._read()

    def pause_writing(self) -> None:
        """The client does not read as fast as it asks: what it sends has to wait."""
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        """The client has read."""
        self.deadline = monotonic() + self.host.timeout
        if not self.working:
            self.transport.resume_reading()

    def expire(self) -> None:
        """The deadline is over."""
        if self.draining or self.transport.is_closing() or self.transport.get_write_buffer_size():
            self.transport.abort()
        elif self.working:
            self._refuse(RefusedError(503, "late", f"no answer within {self.host.timeout:g} s (--timeout)", **{"Retry-After": "1"}))
        elif self._buffer or self._head:
            self._refuse(RefusedError(408, "slow", f"the request did not arrive within {self.host.timeout:g} s (--timeout)"))
        else:
            self.transport.close()

    def _read(self) -> None:
        """What has arrived, as far as a whole request."""
        try:
            if self._head is None:
                end = self._buffer.find(END, 0, MAX_HEAD)
                if end < 0:
                    if len(self._buffer) >= MAX_HEAD:
                        raise RefusedError(431, "too large", f"a head has at most {MAX_HEAD:,} bytes")
                    return
                self._head = head_of(bytes(self._buffer[:end]), self.host.max_body)
                self._drop(end + len(END))
                if self._head.waits and len(self._buffer) < self._head.length:
                    self.transport.write(CONTINUE)
        except RefusedError as e:
            self._refuse(e)
            return
        if len(self._buffer) >= self._head.length:
            self._ask(self._head)

    def _drop(self, count: int) -> None:
        del self._buffer[:count]
        self.host.room(-count)

    def _ask(self, head: Head) -> None:
        body = bytes(self._buffer[: head.length])
        self._drop(head.length)
        self.working, self._head = True, None
        self.deadline = monotonic() + self.host.timeout
        self._number += 1
        number = self._number
        self.transport.pause_reading()
        self.host.take(head, body, lambda response: self._answer(response, head) if number == self._number else None)

    def _answer(self, response: Response, head: Head) -> None:
        if self.transport.is_closing() or self.draining:
            return
        self.working = False
        self.deadline = monotonic() + self.host.timeout
        self.transport.write(response.written(stays=head.stays, bodyless=head.method == "HEAD"))
        if not head.stays:
            self.transport.close()
            return
        if not self.transport.get_write_buffer_size():
            self.transport.resume_reading()
        if self._buffer:
            self._read()

    def _refuse(self, e: RefusedError) -> None:
        """Answer, and listen no more."""
        response = refusal(e)
        self.host.refused(response)
        self.draining, self._number = True, -1
        self._drop(len(self._buffer))
        self.transport.write(response.written(stays=False))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.transport.resume_reading()
        self.deadline = monotonic() + LINGER
