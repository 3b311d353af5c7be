"""The service as an application of ASGI, by Starlette: a request is read within bounds of size and time; what is quick or known is
replied to at once, the rest by threads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from time import monotonic

from starlette import routing
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from memest.errors import did_you_mean
from memest.serve.reply import RefusedError, Reply, refusal
from memest.serve.service import Route, Service

MOST_HELD = 256 * 1024 * 1024  # bytes of the bodies of all requests under way


class Application:
    """Replies with what ``service`` says, of which ``threads`` compute the long ones. A body has at most ``max_body`` bytes; a request may
    take ``timeout`` seconds to arrive, and as many to be answered."""

    def __init__(self, service: Service, threads: Executor, *, max_body: int, timeout: float) -> None:
        self._service, self._threads, self._max_body, self._timeout = service, threads, max_body, timeout
        self._held = 0
        self._routed = Starlette(
            routes=[routing.Route(path, self._endpoint(path, route), methods=[route.method]) for path, route in service.routes.items()],
            exception_handlers={RefusedError: self._refused, HTTPException: self._not_routed},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, counted by what was replied."""
        metrics, begun, status = self._service.metrics, monotonic(), 500

        async def noted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            with metrics.in_flight.track_inprogress():
                await self._routed(scope, receive, noted)
        finally:
            metrics.took(scope["path"] if scope["path"] in self._service.routes else "", status, monotonic() - begun)

    def _endpoint(self, path: str, route: Route) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            body = bytearray()
            try:
                await self._read(request, body)
                return self._response(await self._reply(path, route, bytes(body)))
            finally:
                self._held -= len(body)

        return endpoint

    async def _read(self, request: Request, body: bytearray) -> None:
        """The whole of a request's body. RefusedError where it is too long, does not arrive in time, or there is no room for it."""
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise RefusedError(415, "malformed", "a body is plain JSON, not compressed")
        if int(request.headers.get("content-length", 0)) > self._max_body:
            raise self._too_large()
        try:
            await asyncio.wait_for(self._arrives(request, body), self._timeout)
        except asyncio.TimeoutError:
            message = f"the request did not arrive within {self._timeout:g} s (--timeout)"
            raise RefusedError(408, "slow", message, Connection="close") from None
        except ClientDisconnect:
            raise RefusedError(400, "gone", "the client left before its request was whole") from None

    async def _arrives(self, request: Request, body: bytearray) -> None:
        async for chunk in request.stream():
            body += chunk
            self._held += len(chunk)
            if len(body) > self._max_body:
                raise self._too_large()
            if self._held > MOST_HELD:
                raise _busy("busy", "requests under way take all the memory there is for them")

    async def _reply(self, path: str, route: Route, body: bytes) -> Reply:
        deadline = self._service.deadline()
        known = self._service.respond(route, body, deadline) if route.quick else self._service.known(path, body)
        if known is not None:
            return known
        answer = asyncio.get_running_loop().run_in_executor(self._threads, self._service.respond, route, body, deadline)
        try:
            return await asyncio.wait_for(answer, self._timeout)
        except asyncio.TimeoutError:
            raise _busy("late", f"no answer within {self._timeout:g} s (--timeout)") from None

    def _response(self, reply: Reply) -> Response:
        if reply.kind:
            self._service.metrics.error(reply.kind)
        return Response(reply.body, reply.status, reply.headers, media_type=reply.content)

    async def _refused(self, request: Request, e: Exception) -> Response:
        assert isinstance(e, RefusedError)
        return self._response(refusal(e))

    async def _not_routed(self, request: Request, e: Exception) -> Response:
        """No such path, or not by this method."""
        assert isinstance(e, HTTPException)
        path, routes = request.scope["path"], self._service.routes
        if path in routes:
            message = f"{path} takes {routes[path].method}"
            return self._response(refusal(RefusedError(e.status_code, "method", message, **(e.headers or {}))))
        message = f"no path {path[:80]!r}{did_you_mean(path, routes)}; there are {', '.join(routes)}"
        return self._response(refusal(RefusedError(e.status_code, "path", message)))

    def _too_large(self) -> RefusedError:
        return RefusedError(413, "too large", f"a body has at most {self._max_body:,} bytes here (--max-body)")


def _busy(kind: str, message: str) -> RefusedError:
    return RefusedError(503, kind, message, **{"Retry-After": "1"})
