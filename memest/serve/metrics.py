"""What a service counts, for Prometheus: requests, questions, errors by kind, how long requests took, how many are under way."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

TEXT = CONTENT_TYPE_LATEST
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Of one service, in a registry of its own. Safe in threads."""

    def __init__(self) -> None:
        self._registry = own = CollectorRegistry()
        ProcessCollector(registry=own)
        self._requests = Counter("memest_requests", "Requests by path and status.", ["path", "status"], registry=own)
        self._seconds = Histogram("memest_request_seconds", "How long requests took.", ["path"], buckets=SECONDS, registry=own)
        self._errors = Counter("memest_errors", "Requests and questions refused, by kind.", ["kind"], registry=own)
        self.in_flight = Gauge("memest_in_flight", "Requests under way.", registry=own)
        questions = Counter("memest_questions", "Questions answered, alone or in batches.", ["from"], registry=own)
        self.computed, self.known = questions.labels("computed"), questions.labels("known")

    def took(self, path: str, status: int, seconds: float) -> None:
        """A request was replied to."""
        self._requests.labels(path, status).inc()
        self._seconds.labels(path).observe(seconds)

    def error(self, kind: str) -> None:
        """A request or a question was refused."""
        self._errors.labels(kind).inc()

    def watch(self, name: str, what: str, value: Callable[[], float]) -> None:
        """Show a ``value`` as it is when somebody looks."""
        Gauge(name, what, registry=self._registry).set_function(value)

    def text(self) -> bytes:
        """In the text format of Prometheus."""
        return generate_latest(self._registry)
