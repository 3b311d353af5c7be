"""What the service answers, apart from how it is asked: a method, a path and a body in, a status and a body out. Safe in threads.

An answer is ``memest.estimate(…).to_dict()`` as JSON, whichever way it was asked; the last answers are remembered as they were written.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from time import monotonic, thread_time
from typing import Any

from memest.errors import FileError, MemestError, UsageError, kind_of
from memest.estimate.estimate import estimate
from memest.machines.reading import hardware_named
from memest.planning.fit import fit
from memest.planning.progress import watched
from memest.render.fits import fit_data
from memest.serve.asking import ESTIMATED, VARIED, Asked, check_words, parsed, read
from memest.serve.graphs import Graphs, Kept
from memest.serve.metrics import TEXT, Metrics
from memest.serve.openapi import openapi
from memest.serve.reply import RefusedError, Reply, error_data, in_json, refusal
from memest.sources.models import MODELS

MOST_GRAPHS = 64
MOST_BYTES = 64 * 1024 * 1024  # of answers that are remembered
MOST_REMEMBERED = 256 * 1024  # bytes of one of them
MOST_MANNERS = 4_096  # in which a network was asked about, that are remembered
BRISK = 0.002  # seconds of a processor: an answer that took less needs no thread the next time
SHORT = 4_096  # bytes of a question that is read at once


class Deadline:
    """When work has to stop; long work is stopped where it tells how far it is."""

    def __init__(self, seconds: float) -> None:
        self._at = monotonic() + seconds

    def check(self) -> None:
        """RefusedError when it is over."""
        if monotonic() > self._at:
            raise RefusedError(503, "late", "it takes longer than a request may (--timeout); ask for less at once")

    def tell(self, doing: str, done: int, of: int | None) -> None:
        """A step of long work is done."""
        self.check()

    def finish(self) -> None:
        """The work is done."""


@dataclass(frozen=True, slots=True)
class Route:
    """What a path takes: a method, and who answers; a ``quick`` one needs no thread."""

    method: str
    answer: Callable[[bytes, Deadline], Reply]
    quick: bool = False


class Service:
    """``max_batch`` questions may stand in one request; a request may take ``timeout`` seconds. ``imports``: the code of models may be
    executed, and files of the server be read."""

    def __init__(self, *, max_batch: int, timeout: float, imports: bool = False) -> None:
        self._max_batch, self._timeout = max_batch, timeout
        self._graphs = Graphs(MOST_GRAPHS, imports)
        self._answers: Kept[bytes] = Kept(MOST_BYTES)
        self._took: Kept[list[float]] = Kept(MOST_MANNERS)
        self.metrics = Metrics()
        self.metrics.watch("memest_graphs_known", "Networks that need not be read again.", lambda: self._graphs.count)
        self.metrics.watch("memest_answers_known_bytes", "Answers that are remembered, with what was asked.", lambda: self._answers.total)
        self.routes = {
            "/estimate": Route("POST", self._estimate),
            "/batch": Route("POST", self._batch),
            "/fit": Route("POST", self._fit),
            "/models": Route("GET", lambda body, deadline: _json(models())),
            "/openapi.json": Route("GET", lambda body, deadline: _json(openapi())),
            "/metrics": Route("GET", lambda body, deadline: Reply(self.metrics.text(), content=TEXT), quick=True),
            "/healthz": Route("GET", lambda body, deadline: _json({"status": "ok"}), quick=True),
        }

    def at_once(self, path: str, body: bytes, deadline: Deadline) -> Reply | None:
        """The answer to a request that was asked in these very words before, or that differs from a brisk one in its sizes alone; None
        where it may take long."""
        found = self._answers.get((path, body))
        if found is not None:
            self.metrics.known.inc()
            return Reply(found)
        if path != "/estimate" or len(body) > SHORT:
            return None
        try:
            asked = read(_parsed(body), ESTIMATED, "a question")
        except Exception:
            return None  # why, whoever answers it tells
        took = self._took.get((asked.key[0], asked.manner))
        if took is None or took[0] > BRISK:
            return None
        return self._guarded(lambda: self._single(asked, body), deadline)

    def deadline(self) -> Deadline:
        """Of a request that is there now."""
        return Deadline(self._timeout)

    def respond(self, route: Route, body: bytes, deadline: Deadline) -> Reply:
        """The answer, or why there is none; nothing is raised."""
        return self._guarded(lambda: route.answer(body, deadline), deadline)

    def _guarded(self, answer: Callable[[], Reply], deadline: Deadline) -> Reply:
        try:
            deadline.check()
            with watched(deadline):
                return answer()
        except RefusedError as e:
            return refusal(e)
        except Exception as e:
            status, kind, message = _told(e)
            return refusal(RefusedError(status, kind, message))

    def _estimate(self, body: bytes, deadline: Deadline) -> Reply:
        return self._single(read(_parsed(body), ESTIMATED, "a question"), body)

    def _single(self, asked: Asked, body: bytes) -> Reply:
        return Reply(self._remembered(("/estimate", body), len(body), self._answered(asked)))

    def _batch(self, body: bytes, deadline: Deadline) -> Reply:
        data = _parsed(body)
        if isinstance(data, dict):
            check_words(data, ("questions", "common"), "a batch")
        if not isinstance(data, dict) or not isinstance(data.get("questions"), list):
            raise UsageError("a batch is an object with 'questions', a list, and perhaps 'common', the words that they share")
        questions, common = data["questions"], data.get("common", {})
        if not isinstance(common, dict):
            raise UsageError(f"common is an object, got {kind_of(common)}")
        if len(questions) > self._max_batch:
            raise RefusedError(413, "too large", f"{len(questions):,} questions, and at most {self._max_batch:,} (--max-batch) at once")
        answers = [b'{"answers": [']
        for number, question in enumerate(questions):
            deadline.check()
            if number:
                answers.append(b", ")
            answers.append(self._one_of_many({**common, **question} if isinstance(question, dict) else question))
        answers.append(b"]}")
        return Reply(b"".join(answers))

    def _one_of_many(self, question: Any) -> bytes:
        """Its answer, or its error in the place of one."""
        try:
            return self._answered(read(question, ESTIMATED, "a question"))
        except RefusedError:
            raise
        except Exception as e:
            _, kind, message = _told(e)
            self.metrics.error(kind)
            return json.dumps(error_data(kind, message)).encode()

    def _answered(self, asked: Asked) -> bytes:
        found = self._answers.get(asked.key)
        if found is not None:
            self.metrics.known.inc()
            return found
        names = asked.words.get("fields")
        if names is not None and not isinstance(names, list):
            raise UsageError(f"fields is a list of names, got {kind_of(names)}")
        other = [name for name in names or () if not isinstance(name, str)]
        if other:
            raise UsageError(f"fields is a list of names, and in it is {kind_of(other[0])}")
        if names == []:
            raise UsageError("fields is an empty list, which asks for nothing; leave it out for the whole answer")
        begun = thread_time()
        given = estimate(self._graphs.find(asked), input_shape=asked.words.get("input_shape"), **asked.settings)
        found = json.dumps(given.to_dict(*names or ())).encode()
        self._took.keep((asked.key[0], asked.manner), [0.0])[0] = thread_time() - begun
        self.metrics.computed.inc()
        return self._remembered(asked.key, len(asked.key[1]), found)

    def _remembered(self, key: Hashable, asked: int, found: bytes) -> bytes:
        """``found``, kept where it and what was ``asked`` are not too long."""
        counts = asked + len(found)
        return self._answers.keep(key, found, counts) if counts <= MOST_REMEMBERED else found

    def _fit(self, body: bytes, deadline: Deadline) -> Reply:
        asked = read(_parsed(body), VARIED, "a fit")
        found = _json(self._fitted(asked))
        self.metrics.computed.inc()
        return found

    def _fitted(self, asked: Asked) -> dict[str, Any]:
        words = dict(asked.words)
        budget, on, sizes = words.pop("budget", None), words.pop("on", None), words.pop("sizes", {})
        if (budget is None) == (on is None):
            raise UsageError("a fit has one limit: a budget, or hardware that it is on")
        if on is not None and not isinstance(on, str):
            raise UsageError(f"on is a name such as 'a100-40gb', got {kind_of(on)}")
        if not isinstance(sizes, dict):
            raise UsageError(f"sizes is an object such as {{'H': 224}}, got {kind_of(sizes)}")
        named = words.keys() | asked.settings.keys()
        twice = next((name for name in sizes if name in named), None)
        if twice is not None:
            raise UsageError(f"{twice} stands among the sizes, too; say it once")
        place = hardware_named(on) if on is not None else budget
        return fit_data(fit(self._graphs.find(asked), place, words.pop("vary", "batch"), **words, **sizes, **asked.settings))


def models() -> dict[str, Any]:
    """The built-in models, their options with defaults, and the shape of a usual input without the batch."""
    return {
        "models": [
            {"name": m.name, "description": m.description, "input_shape": m.input_shape, "options": {o.name: o.default for o in m.options}}
            for m in MODELS.values()
        ]
    }


def _parsed(body: bytes) -> Any:
    try:
        return parsed(body)
    except FileError as e:
        raise RefusedError(400, "malformed", str(e)) from None


def _json(data: Mapping[str, Any]) -> Reply:
    return Reply(json.dumps(data).encode())


def _told(e: Exception) -> tuple[int, str, str]:
    """Status, kind and words of an error. What is not ours is a bug: its traceback goes to the server's log, not to the client."""
    if isinstance(e, MemestError):
        return 422, type(e).__name__.removesuffix("Error").lower(), in_json(str(e))
    traceback.print_exception(e, file=sys.stderr)
    return 500, "bug", f"a bug in memest: {type(e).__name__}; please report it"
