"""The process: connections in the loop of one thread, answers in a few others, and an end that loses no request."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from time import monotonic

from memest.errors import UsageError
from memest.serve.connection import Connection
from memest.serve.http import Head, RefusedError, Response, refusal
from memest.serve.service import Route, Service

BACKLOG = 1024
MOST_CONNECTIONS = 4096
MOST_WAITING = 2048  # requests that wait for a thread
MOST_HELD = 256 * 1024 * 1024  # bytes of requests that are not whole
LOOKS = 0.25  # seconds between two looks at deadlines
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


class Server:
    """One service on one address."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.max_body, self.timeout = limits.max_body, limits.timeout
        self.connections: set[Connection] = set()
        self.service = Service(max_batch=limits.max_batch, timeout=limits.timeout, imports=limits.allow_import)
        self._threads = ThreadPoolExecutor(limits.threads, "memest")
        self._waiting = self._held = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = asyncio.Event()

    async def run(self, ready: Callable[[str, int], None]) -> None:
        """Serve until :meth:`stop`; ``ready`` is told the address. UsageError where it cannot be listened on."""
        self._loop = asyncio.get_running_loop()
        limits = self._limits
        try:
            server = await self._loop.create_server(lambda: Connection(self), limits.host, limits.port, backlog=BACKLOG)
        except OSError as e:
            raise UsageError(f"cannot listen on {limits.host}:{limits.port}: {e.strerror or e}") from None
        host, port = server.sockets[0].getsockname()[:2]
        looking = asyncio.create_task(self._look())
        try:
            ready(host, port)
            await self._stopped.wait()
            server.close()
            await self._finished()
        finally:
            looking.cancel()
            server.close()
            for connection in list(self.connections):
                connection.transport.abort()
            self._threads.shutdown(wait=False, cancel_futures=True)

    def stop(self) -> None:
        """Take no more; answer what is under way, and end. From any thread."""
        if self._loop is not None:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._stopped.set)

    async def _finished(self) -> None:
        """What is under way is answered, or its time is over."""
        end = monotonic() + self.timeout
        while any(c.working or c.transport.get_write_buffer_size() for c in self.connections) and monotonic() < end:
            await asyncio.sleep(0.01)

    async def _look(self) -> None:
        """At deadlines, now and then."""
        while True:
            await asyncio.sleep(min(LOOKS, self.timeout / 4))
            now = monotonic()
            for connection in [c for c in self.connections if c.deadline < now]:
                connection.expire()

    def opened(self, connection: Connection) -> None:
        """A client has come; where there are too many, the one that has kept us waiting longest goes."""
        self.connections.add(connection)
        if len(self.connections) > MOST_CONNECTIONS:
            waiting = [c for c in self.connections if c.waits and c is not connection]
            min(waiting or [connection], key=lambda c: c.deadline).transport.abort()

    def room(self, more: int) -> bool:
        """Whether so many bytes more can be held."""
        self._held += more
        return self._held <= MOST_HELD

    def refused(self, response: Response) -> None:
        """Counted, as whoever watches wants to know."""
        self.service.metrics.refused(response.status)
        self.service.metrics.error(response.kind)

    def take(self, head: Head, body: bytes, done: Callable[[Response], None]) -> None:
        """Answer at once what is known or quick, the rest in a thread."""
        metrics, begun = self.service.metrics, monotonic()
        metrics.begins()

        def finish(response: Response) -> None:
            metrics.ends(head.path if head.path in self.service.routes else "", response.status, monotonic() - begun)
            if response.kind:
                metrics.error(response.kind)
            done(response)

        try:
            route = self.service.route(head.method, head.path)
            if self._waiting >= MOST_WAITING:
                raise RefusedError(503, "busy", "too many requests wait already", **{"Retry-After": "1"})
        except RefusedError as e:
            finish(refusal(e))
            return
        known = self.service.respond(route, body) if route.quick else self.service.known(head.path, body)
        if known is not None:
            finish(known)
        else:
            self._hand_on(route, body, finish)

    def _hand_on(self, route: Route, body: bytes, finish: Callable[[Response], None]) -> None:
        loop = self._loop
        assert loop is not None
        self._waiting += 1

        def back(response: Response) -> None:
            self._waiting -= 1
            finish(response)

        def answered(future: Future[Response]) -> None:
            if not future.cancelled():
                with suppress(RuntimeError):  # the loop has ended
                    loop.call_soon_threadsafe(back, future.result())

        self._threads.submit(self.service.respond, route, body).add_done_callback(answered)


def serve(limits: Limits) -> None:
    """Serve in this process, which is then ours alone, until SIGTERM or SIGINT."""
    sys.setswitchinterval(SWITCH)

    async def run() -> None:
        server = Server(limits)
        for sent in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(sent, server.stop)
        await server.run(lambda host, port: print(f"memest serves on http://{host}:{port}", flush=True))

    asyncio.run(run())


@contextmanager
def serving(limits: Limits) -> Iterator[tuple[Server, str, int]]:
    """A server in a thread of this process, with its address, for as long as it is wanted."""
    found: list[tuple[Server, str, int]] = []
    errors: list[BaseException] = []
    begun = threading.Event()

    async def run() -> None:
        server = Server(limits)

        def ready(host: str, port: int) -> None:
            found.append((server, host, port))
            begun.set()

        await server.run(ready)

    def thread() -> None:
        try:
            asyncio.run(run())
        except BaseException as e:
            errors.append(e)
            begun.set()

    running = threading.Thread(target=thread, name="memest serve", daemon=True)
    running.start()
    begun.wait()
    if errors:
        raise errors[0]
    try:
        yield found[0]
    finally:
        found[0][0].stop()
        running.join()
