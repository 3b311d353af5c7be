"""What a service counts, as Prometheus reads it: requests, questions, errors by kind, how long requests took, how many are under way."""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from memest.sizes.interpreter import Lock

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Counters of one process. Safe in threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._started = time.time()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._errors: Counter[str] = Counter()
        self._questions: Counter[str] = Counter()
        self._took: dict[str, list[int]] = {}
        self._seconds: Counter[str] = Counter()
        self.in_flight = 0

    def begins(self) -> None:
        """A request is under way."""
        with self._lock:
            self.in_flight += 1

    def ends(self, path: str, status: int, seconds: float) -> None:
        """It was answered."""
        with self._lock:
            self.in_flight -= 1
            self._requests[path, status] += 1
            took = self._took.setdefault(path, [0] * (len(SECONDS) + 1))
            took[bisect_left(SECONDS, seconds)] += 1
            self._seconds[path] += seconds  # type: ignore[assignment]

    def refused(self, status: int) -> None:
        """A request was refused before it was one."""
        with self._lock:
            self._requests["", status] += 1

    def questions(self, *, answered: int = 0, known: int = 0) -> None:
        """Questions were answered, so many of them from what was ``known``."""
        with self._lock:
            self._questions["computed"] += answered - known
            self._questions["known"] += known

    def error(self, kind: str) -> None:
        """A request or a question was refused."""
        with self._lock:
            self._errors[kind] += 1

    def text(self, gauges: Mapping[str, int]) -> str:
        """In the text format of Prometheus, with ``gauges`` of others."""
        with self._lock:
            return "".join(f"{line}\n" for line in self._lines(gauges))

    def _lines(self, gauges: Mapping[str, int]) -> Iterator[str]:
        yield from ("# HELP memest_requests_total Requests by path and status.", "# TYPE memest_requests_total counter")
        for (path, status), n in sorted(self._requests.items()):
            yield f'memest_requests_total{{path="{path}",status="{status}"}} {n}'
        yield from ("# HELP memest_questions_total Questions answered, alone or in batches.", "# TYPE memest_questions_total counter")
        for kind in ("computed", "known"):
            yield f'memest_questions_total{{from="{kind}"}} {self._questions[kind]}'
        yield from ("# HELP memest_errors_total Requests and questions refused, by kind.", "# TYPE memest_errors_total counter")
        for kind, n in sorted(self._errors.items()):
            yield f'memest_errors_total{{kind="{kind}"}} {n}'
        yield from ("# HELP memest_request_seconds How long requests took.", "# TYPE memest_request_seconds histogram")
        for path, took in sorted(self._took.items()):
            total = 0
            for end, n in zip((*SECONDS, "+Inf"), took, strict=True):
                total += n
                yield f'memest_request_seconds_bucket{{path="{path}",le="{end}"}} {total}'
            yield f'memest_request_seconds_sum{{path="{path}"}} {self._seconds[path]:.6f}'
            yield f'memest_request_seconds_count{{path="{path}"}} {total}'
        for name, value in {
            "memest_in_flight": self.in_flight,
            **gauges,
            "process_resident_memory_bytes": _resident_bytes(),
            "process_start_time_seconds": self._started,
        }.items():
            yield f"# TYPE {name} gauge"
            yield f"{name} {value}"


def _resident_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0
