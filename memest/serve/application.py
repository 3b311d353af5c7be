"""The service as an application of ASGI: a request is read within bounds of size and time; what is quick or known is replied to at once,
the rest by threads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from time import monotonic
from typing import Any

from memest.errors import did_you_mean
from memest.serve.reply import RefusedError, Reply, refusal
from memest.serve.service import Route, Service

MOST_HELD = 256 * 1024 * 1024  # bytes of the bodies of all requests under way
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Application:
    """Replies with what ``service`` says, of which ``threads`` compute the long ones. A body has at most ``max_body`` bytes; a request may
    take ``timeout`` seconds to arrive, and as many to be answered."""

    def __init__(self, service: Service, threads: Executor, *, max_body: int, timeout: float) -> None:
        self._service, self._threads, self._max_body, self._timeout = service, threads, max_body, timeout
        self._held = 0

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """One request, counted by what was replied."""
        if scope["type"] != "http":
            return
        metrics, begun, status, path = self._service.metrics, monotonic(), 500, scope["path"]
        body = bytearray()
        metrics.in_flight.inc()
        try:
            try:
                reply = await self._reply(path, self._route(path, scope["method"]), scope, receive, body)
            except RefusedError as e:
                reply = refusal(e)
            finally:
                self._held -= len(body)
            status = reply.status
            await self._send(reply, send, whole=scope["method"] != "HEAD")
        finally:
            metrics.in_flight.dec()
            metrics.took(path if path in self._service.routes else "", status, monotonic() - begun)

    def _route(self, path: str, method: str) -> Route:
        """RefusedError where there is no such path, or not by this method."""
        routes = self._service.routes
        found = routes.get(path)
        if found is None:
            message = f"no path {path[:80]!r}{did_you_mean(path, routes)}; there are {', '.join(routes)}"
            raise RefusedError(404, "path", message)
        allowed = (found.method, "HEAD") if found.method == "GET" else (found.method,)
        if method not in allowed:
            raise RefusedError(405, "method", f"{path} takes {found.method}", Allow=", ".join(allowed))
        return found

    async def _reply(self, path: str, route: Route, scope: Mapping[str, Any], receive: Receive, body: bytearray) -> Reply:
        await self._read(dict(scope["headers"]), receive, body)
        return await self._answer(path, route, bytes(body))

    async def _read(self, headers: Mapping[bytes, bytes], receive: Receive, body: bytearray) -> None:
        """The whole of a request's body. RefusedError where it is too long, does not arrive in time, or there is no room for it."""
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise RefusedError(415, "malformed", "a body is plain JSON, not compressed")
        if int(headers.get(b"content-length", 0)) > self._max_body:
            raise self._too_large()
        task, late = asyncio.current_task(), False
        assert task is not None

        def too_slow(task: asyncio.Task[Any] = task) -> None:
            nonlocal late
            late = True
            task.cancel()

        timer = asyncio.get_running_loop().call_later(self._timeout, too_slow)
        try:
            while not self._take(await receive(), body):
                pass
        except asyncio.CancelledError:
            if not late:
                raise
            message = f"the request did not arrive within {self._timeout:g} s (--timeout)"
            raise RefusedError(408, "slow", message, Connection="close") from None
        finally:
            timer.cancel()

    def _take(self, message: Mapping[str, Any], body: bytearray) -> bool:
        """A part of a body; whether it was the last."""
        if message["type"] == "http.disconnect":
            raise RefusedError(400, "gone", "the client left before its request was whole")
        chunk = message.get("body", b"")
        body += chunk
        self._held += len(chunk)
        if len(body) > self._max_body:
            raise self._too_large()
        if self._held > MOST_HELD:
            raise _busy("busy", "requests under way take all the memory there is for them")
        return not message.get("more_body", False)

    async def _answer(self, path: str, route: Route, body: bytes) -> Reply:
        deadline = self._service.deadline()
        found = self._service.respond(route, body, deadline) if route.quick else self._service.at_once(path, body, deadline)
        if found is not None:
            return found
        answer = asyncio.get_running_loop().run_in_executor(self._threads, self._service.respond, route, body, deadline)
        try:
            return await asyncio.wait_for(answer, self._timeout)
        except asyncio.TimeoutError:
            raise _busy("late", f"no answer within {self._timeout:g} s (--timeout)") from None

    async def _send(self, reply: Reply, send: Send, *, whole: bool) -> None:
        if reply.kind:
            self._service.metrics.error(reply.kind)
        headers = [(b"content-type", reply.content.encode()), (b"content-length", b"%d" % len(reply.body))]
        headers += [(name.lower().encode(), value.encode()) for name, value in reply.headers.items()]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body if whole else b""})

    def _too_large(self) -> RefusedError:
        return RefusedError(413, "too large", f"a body has at most {self._max_body:,} bytes here (--max-body)")


def _busy(kind: str, message: str) -> RefusedError:
    return RefusedError(503, kind, message, **{"Retry-After": "1"})
