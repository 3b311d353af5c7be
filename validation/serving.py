"""The service under load, by wrk over loopback: mixed questions to networks it knows, alone and in batches; a steady rate; its memory.

``python -m validation serving`` prints what it found beside what is claimed, with the machine's load, for everything on it counts.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from itertools import product
from typing import Any, NamedTuple

from validation.measure import RESULTS, machine_name

STORED = RESULTS / "serving" / "load.json"
RATE, CONNECTIONS = 500, 16
WANTED, SLOWEST_MS = 2_000, 50.0
FIGURES = ["peak_bytes", "standing_bytes", "allocated"]
NETWORKS = {
    "resnet18": ((3, 64, 64), (3, 224, 224)),
    "resnet50": ((3, 64, 64), (3, 224, 224)),
    "mobilenet_v2": ((3, 96, 96),),
    "unet3d": ((1, 32, 32, 32),),
}
KNOWN = [
    {
        "model": model,
        "input_shape": [batch, *shape],
        "mode": mode,
        "optimizer": optimizer,
        "loss": "mse" if model == "unet3d" else "cross_entropy",
    }
    for model, shapes in NETWORKS.items()
    for shape, batch, mode, optimizer in product(shapes, (2, 4, 8, 16), ("train", "infer"), ("sgd", "adam"))
]
"""Questions that are asked over and over, for the whole answer."""
AGAIN = """local asked = {{{bodies}}}
local n = 0
function request() n = n + 1; return wrk.format("POST", "/estimate", nil, asked[(n * 7919) % #asked + 1]) end
function delay() return {delay} end
"""
ANEW = """local models = {{"resnet18", "resnet50", "mobilenet_v2"}}
function init() math.randomseed(os.time()) end
function request()
  local body = string.format('{{"model": "%s", "input_shape": [%d, 3, 224, %d], "optimizer": "%s", "fields": {fields}}}',
    models[math.random(#models)], math.random(2, 100000), 32 * math.random(2, 20), ({{"sgd", "adam"}})[math.random(2)])
  return wrk.format("POST", "/estimate", nil, body)
end
function delay() return {delay} end
"""


class Load(NamedTuple):
    """What one load gave: questions a second, milliseconds that half and 99 of 100 took, and requests that were no answer."""

    what: str
    a_second: float
    half_ms: float
    slowest_ms: float
    errors: int
    resident_bytes: tuple[int, int]


@contextmanager
def served() -> Iterator[int]:
    """The port of a server of its own."""
    command = [sys.executable, "-m", "memest", "serve", "--port", "0", "--threads", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline().rpartition(":")[2])
        process.terminate()
        assert process.wait(60) == 0


def asked(port: int, path: str, body: Any = None) -> bytes:
    """The answer to one request."""
    connection = HTTPConnection("127.0.0.1", port, timeout=300)
    connection.request("GET" if body is None else "POST", path, None if body is None else json.dumps(body))
    answer = connection.getresponse()
    found = answer.read()
    assert answer.status == 200, found[:200]
    return found


def resident_bytes(port: int) -> int:
    """As the service tells it."""
    found = re.search(rb"^process_resident_memory_bytes ([\d.e+]+)", asked(port, "/metrics"), re.MULTILINE)
    assert found is not None
    return int(float(found[1]))


def by_wrk(what: str, port: int, script: str, seconds: int) -> Load:
    """A load of single questions."""
    before = resident_bytes(port)
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", "-s", file.name, f"http://127.0.0.1:{port}"]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    errors = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    assert rate is not None, text
    ms = {share: _ms(text, share) for share in ("50", "99")}
    return Load(what, float(rate[1]), ms["50"], ms["99"], int(errors[1]) if errors else 0, (before, resident_bytes(port)))


def _ms(text: str, share: str) -> float:
    found = re.search(rf"{share}%\s+([\d.]+)(us|ms|s)\b", text)
    assert found is not None, text
    return float(found[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[found[2]]


def in_batches(what: str, port: int, batch: dict[str, Any], times: int) -> Load:
    """A load of whole batches, one after the other."""
    before, took = resident_bytes(port), []
    for _ in range(times):
        begun = time.perf_counter()
        answers = asked(port, "/batch", batch)
        took.append(1000 * (time.perf_counter() - begun))
        assert b'{"error"' not in answers
    count = len(batch["questions"])
    return Load(what, 1000 * count * times / sum(took), sorted(took)[times // 2], max(took), 0, (before, resident_bytes(port)))


def loads(seconds: int, steady: int) -> Iterator[Load]:
    """One after the other: each ``seconds`` long, the steady rate for ``steady`` seconds."""
    bodies = ", ".join(f"[==[{json.dumps(q)}]==]" for q in KNOWN)
    anew = {"fields": json.dumps(FIGURES), "delay": 0}
    sizes = [{"model": "resnet50", "input_shape": [n, 3, 224, 32 * (n % 9 + 2)]} for n in range(2, 5002)]
    with served() as port:
        asked(port, "/batch", {"questions": KNOWN})
        by_wrk("", port, ANEW.format(**anew), 3)
        yield by_wrk("alone, asked before, whole answers", port, AGAIN.format(bodies=bodies, delay=0), seconds)
        yield by_wrk("alone, sizes never asked, figures", port, ANEW.format(**anew), seconds)
        yield in_batches("batches of 1,280, asked before, whole answers", port, {"questions": KNOWN * (1280 // len(KNOWN))}, 5)
        yield in_batches("batches of 5,000, sizes never asked, figures", port, {"common": {"fields": FIGURES}, "questions": sizes}, 1)
        pause = 1000 * CONNECTIONS // RATE
        yield by_wrk(f"alone, {RATE} a second, asked before, whole answers", port, AGAIN.format(bodies=bodies, delay=pause), seconds)
        script = ANEW.format(**{**anew, "delay": pause})
        yield by_wrk(f"alone, {RATE} a second for {steady} s, sizes never asked, figures", port, script, steady)


def print_loads(seconds: int, steady: int, *, store: bool = False) -> int:
    """Print what was found; 1 where a request was no answer."""
    found = []
    for load in loads(seconds, steady):
        grown = (load.resident_bytes[1] - load.resident_bytes[0]) / 2**20
        print(
            f"{load.what:68} {load.a_second:8,.0f}/s  half {load.half_ms:8.2f} ms  99 % {load.slowest_ms:8.2f} ms  "
            f"{load.errors} errors  resident {load.resident_bytes[1] / 2**20:,.0f} MiB ({grown:+,.0f})",
            flush=True,
        )
        found.append(load)
    print(f"wanted: {WANTED:,}/s alone and in batches, 99 % within {SLOWEST_MS:g} ms at {RATE}/s; load of the machine {os.getloadavg()}")
    if store:
        STORED.parent.mkdir(parents=True, exist_ok=True)
        told = {"machine": machine_name(), "load": os.getloadavg(), "loads": [load._asdict() for load in found]}
        STORED.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return int(any(load.errors for load in found))
