"""The process: uvicorn, which is patient with a client for so long and no longer, threads that answer, and an end that loses no request."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from memest.errors import UsageError
from memest.serve.application import Application
from memest.serve.reply import RefusedError, refusal
from memest.serve.service import Service

MAX_HEAD = 16 * 1024
BACKLOG = 1024
MOST_CONNECTIONS = 960  # that are replied to, further ones with 503; a process may usually have 1,024 files open
SWITCH = 0.0005  # seconds that a thread computes before another may: of the many short ones none waits long


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Where it listens, and what it allows: ``threads`` that answer, bytes of a body, questions of a batch, seconds of a request."""

    host: str = "127.0.0.1"
    port: int = 8642
    threads: int = 2
    max_body: int = 8 * 1024 * 1024
    max_batch: int = 10_000
    timeout: float = 30.0
    allow_import: bool = False


class Timer:
    """Does something once, ``seconds`` after it was started, unless it is stopped before."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, does: Callable[[], None]) -> None:
        self._loop, self._seconds, self._does = loop, seconds, does
        self._runs: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Unless it runs already."""
        if self._runs is None:
            self._runs = self._loop.call_later(self._seconds, self._does)

    def stop(self) -> None:
        """If it runs."""
        if self._runs is not None:
            self._runs.cancel()
            self._runs = None


class Patient(H11Protocol):
    """uvicorn's HTTP/1.1, where a client has ``timeout_keep_alive`` seconds to send the head of a request (or it is refused: 408),
    and to read what was replied. For the body of a request, it has them from the application."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The client is there, and has to ask."""
        transport.set_write_buffer_limits(0)  # writing then pauses whenever the client has not read all
        super().connection_made(transport)
        self._asking = Timer(self.loop, self.timeout_keep_alive, self._not_asked)
        self._reading = Timer(self.loop, self.timeout_keep_alive, transport.abort)
        self._asking.start()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._asking.stop()
        self._reading.stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """More of a request: of a head, if there is no request under way then."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._asking.stop()
        else:
            self._asking.start()

    def pause_writing(self) -> None:
        """The client has to read."""
        super().pause_writing()
        self._reading.start()

    def resume_writing(self) -> None:
        """It has read."""
        self._reading.stop()
        super().resume_writing()

    def _not_asked(self) -> None:
        if not self.transport.is_closing():
            if self.conn.trailing_data[0]:  # a part of a head
                reply = refusal(RefusedError(408, "slow", f"no head of a request within {self.timeout_keep_alive:g} s (--timeout)"))
                head = f"Content-Type: {reply.content}\r\nContent-Length: {len(reply.body)}\r\nConnection: close\r\n\r\n"
                self.transport.write(b"HTTP/1.1 408 Request Timeout\r\n" + head.encode() + reply.body)
            self.transport.close()


class Server(uvicorn.Server):
    """One service on one address. UsageError where it cannot listen there. ``ready`` is called when it listens, to requests and signals."""

    def __init__(self, limits: Limits, ready: Callable[[], None] = lambda: None) -> None:
        self._ready = ready
        self._socket = _listening(limits.host, limits.port)
        self._threads = ThreadPoolExecutor(limits.threads, "memest")
        self.service = Service(max_batch=limits.max_batch, timeout=limits.timeout, imports=limits.allow_import)
        seconds: Any = limits.timeout  # of which uvicorn says that they are whole
        super().__init__(
            uvicorn.Config(
                Application(self.service, self._threads, max_body=limits.max_body, timeout=limits.timeout),
                loop="asyncio",
                http=Patient,
                h11_max_incomplete_event_size=MAX_HEAD,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="error",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                backlog=BACKLOG,
                limit_concurrency=MOST_CONNECTIONS,
                timeout_keep_alive=seconds,
                timeout_graceful_shutdown=seconds,
            )
        )

    @property
    def address(self) -> tuple[str, int]:
        """The host and the port where it listens, also before it runs."""
        host, port = self._socket.getsockname()[:2]
        return host, port

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until :meth:`stop`, or a signal if this is the main thread."""
        try:
            super().run([self._socket])
        finally:
            self._socket.close()
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Called by uvicorn, signals being caught."""
        await super().startup(sockets)
        self._ready()

    def stop(self) -> None:
        """Take no more; answer what is under way, and end; told again, end at once. From any thread."""
        self.force_exit, self.should_exit = self.should_exit, True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """An end in order, which is a success: the signal is not raised again."""
        self.stop()


def serve(limits: Limits) -> None:
    """Serve in this process, which is then ours alone, until SIGTERM or SIGINT; it ends here, whatever its threads still compute."""
    sys.setswitchinterval(SWITCH)

    def ready() -> None:
        host, port = server.address
        print(f"memest serves on http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)

    server = Server(limits, ready)
    server.run()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # an end in order would wait for threads, which nobody waits for any more


@contextmanager
def serving(limits: Limits) -> Iterator[Server]:
    """A server in a thread of this process, for as long as it is wanted."""
    server = Server(limits)
    running = threading.Thread(target=server.run, name="memest serve", daemon=True)
    running.start()
    try:
        yield server
    finally:
        server.stop()
        running.join()


def _listening(host: str, port: int) -> socket.socket:
    try:
        made = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=BACKLOG)
    except OSError as e:
        raise UsageError(f"cannot listen on {host}:{port}: {e.strerror or e}") from None
    # Its protocol has to be named: else asyncio leaves Nagle's delay on, 40 ms for the body behind each head.
    return socket.socket(made.family, made.type, socket.IPPROTO_TCP, made.detach())
