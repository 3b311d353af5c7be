"""The service: answers are the library's, whatever is wrong with a request is refused and disturbs nobody, and it ends in order."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import memest
from memest.cli.app import main
from memest.estimate.question import KEYWORDS, Question
from memest.serve import application, server
from memest.serve.asking import ESTIMATED, WHAT, schema
from memest.serve.graphs import Kept
from memest.serve.server import Limits, Server, serving
from memest.serve.service import Route, Service

TINY = {
    "memest": 1,
    "name": "tiny",
    "inputs": {"x": ["N", 3, "H", "W"]},
    "layers": [{"conv2d": {"out_channels": 4, "kernel_size": 3}}, {"relu": {}}],
}
QUESTIONS: list[dict[str, Any]] = [
    {"model": "resnet18:num_classes=7", "input_shape": [2, 3, 64, 64], "optimizer": "adam"},
    {"model": "resnet18", "input_shape": {"input": [1, 3, 64, 64]}, "mode": "infer", "machine": {"isa": "avx2", "threads": 4}},
    {"model": "unet3d", "input_shape": "2x1x16x16x16", "loss": "binary_cross_entropy", "levers": ["checkpoint:every=2"]},
    {"model": "mobilenet_v2", "input_shape": [[2, 3, 64, 64]], "machine": "rtx-4090", "alloc_conf": "expandable_segments:True"},
    {"graph": TINY, "input_shape": [2, 3, 16, 16], "mode": "infer"},
]
Found = tuple[int, dict[str, str], bytes]


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    with serving(Limits(port=0, max_body=200_000, max_batch=50, timeout=5)) as server:
        yield server.address


@pytest.fixture(scope="module")
def hasty() -> Iterator[Server]:
    with serving(Limits(port=0, max_body=200_000, timeout=0.3)) as server:
        yield server


def sent(address: tuple[str, int], path: str, body: Any = None, method: str | None = None, **headers: str) -> Found:
    connection = http.client.HTTPConnection(*address, timeout=20)
    try:
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection.request(method or ("GET" if data is None else "POST"), path, data, headers)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def raw(address: tuple[str, int], data: bytes) -> bytes:
    with socket.create_connection(address, timeout=20) as s:
        s.sendall(data)
        found = b""
        while more := s.recv(65536):
            found += more
        return found


def kind(found: Found) -> tuple[int, str]:
    return found[0], json.loads(found[2])["error"]["kind"]


def library(question: Mapping[str, Any]) -> dict[str, Any]:
    asked = dict(question)
    graph = memest.model(asked.pop("model")) if "model" in asked else memest.loads(json.dumps(asked.pop("graph")), form="json")
    if isinstance(asked.get("machine"), dict):
        asked["machine"] = memest.Cpu(**asked["machine"])
    plain: dict[str, Any] = json.loads(json.dumps(memest.estimate(graph, **asked).to_dict()))
    return plain


def test_answers_are_the_librarys_alone_in_a_batch_and_again(address: tuple[str, int]) -> None:
    expected = [library(q) for q in QUESTIONS]
    for _ in range(2):
        assert [json.loads(sent(address, "/estimate", q)[2]) for q in QUESTIONS] == expected
    answers = json.loads(sent(address, "/batch", {"questions": QUESTIONS})[2])["answers"]
    assert answers == expected and [list(a) for a in answers] == [list(e) for e in expected]


def test_a_batch_shares_words_and_keeps_errors_apart(address: tuple[str, int]) -> None:
    common = {"model": "resnet18", "fields": ["peak_bytes", "graph"], "mode": "infer"}
    questions = [{"input_shape": [1, 3, 64, 64]}, {"input_shape": [1, 64]}, 5, {"input_shape": [1, 3, 64, 64], "mode": "tarin"}]
    status, _, body = sent(address, "/batch", {"common": common, "questions": questions})
    first, *others = json.loads(body)["answers"]
    assert status == 200
    est = memest.estimate(memest.model("resnet18"), input_shape=(1, 3, 64, 64), mode="infer")
    assert first == {"graph": "resnet18", "peak_bytes": est.peak_bytes}
    assert [other["error"]["kind"] for other in others] == ["usage"] * 3
    assert "did you mean 'train'?" in others[2]["error"]["message"]


def test_fit_is_the_librarys(address: tuple[str, int]) -> None:
    asked = {"model": "resnet18", "budget": "2GiB", "vary": "batch", "sizes": {"H": 64, "W": 64}, "optimizer": "adam"}
    found = json.loads(sent(address, "/fit", asked)[2])
    fit = memest.fit(memest.model("resnet18"), "2GiB", H=64, W=64, optimizer="adam")
    assert (found["sizes"], found["peak_bytes"], found["next_bytes"]) == (fit.sizes, fit.peak_bytes, fit.next_bytes)
    assert kind(sent(address, "/fit", {**asked, "on": "rtx-4090"})) == (422, "usage")
    assert kind(sent(address, "/fit", {**asked, "sizes": {"H": 64, "W": 64, "batch": 2}, "batch": 2})) == (422, "usage")
    assert kind(sent(address, "/fit", {**asked, "sizes": [1]})) == (422, "usage")
    assert kind(sent(address, "/fit", {**asked, "on": 5, "budget": None})) == (422, "usage")


def test_questions_are_described_by_the_fields_of_a_question(address: tuple[str, int]) -> None:
    described = json.loads(sent(address, "/openapi.json")[2])
    properties = described["components"]["schemas"]["Question"]["properties"]
    assert list(properties) == [*WHAT, *ESTIMATED, *KEYWORDS]
    assert {f.name: f.metadata["help"] for f in fields(Question)}.items() <= {
        n: p.get("description") for n, p in properties.items()
    }.items()
    assert properties["levers"]["type"] == "array" and properties["hold_output"] == {
        "type": "boolean", "description": properties["hold_output"]["description"], "default": False,
    }  # fmt: skip
    assert set(described["paths"]) == {"/estimate", "/batch", "/fit", "/models", "/openapi.json", "/metrics", "/healthz"}
    assert schema(ESTIMATED)["additionalProperties"] is False


def test_models_health_and_metrics(address: tuple[str, int]) -> None:
    names = [m["name"] for m in json.loads(sent(address, "/models")[2])["models"]]
    assert "unet3d" in names and sent(address, "/healthz")[0] == 200
    sent(address, "/estimate", QUESTIONS[0])
    sent(address, "/estimate", {"model": "resnet18", "input_shape": [1]})
    status, headers, text = sent(address, "/metrics")
    lines = dict(line.rsplit(" ", 1) for line in text.decode().splitlines() if not line.startswith("#"))
    assert status == 200 and headers["content-type"].startswith("text/plain; version=")
    assert float(lines['memest_requests_total{path="/estimate",status="200"}']) >= 1
    assert float(lines['memest_errors_total{kind="usage"}']) >= 1
    assert lines['memest_request_seconds_bucket{le="+Inf",path="/estimate"}'] == lines['memest_request_seconds_count{path="/estimate"}']
    assert float(lines["memest_in_flight"]) == 1 and float(lines["process_resident_memory_bytes"]) > 2**20


SAID = {"model": "resnet18", "input_shape": [1, 3, 64, 64]}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", (400, "malformed")),
        (b"{", (400, "malformed")),
        (b"\xff\xfe", (400, "malformed")),
        (b"[" * 100_000, (400, "malformed")),
        (b'{"model": "resnet18", "model": "resnet18"}', (400, "malformed")),
        (b"9" * 10_000, (400, "malformed")),
        (b"[]", (422, "usage")),
        (b"{}", (422, "usage")),
        ({**SAID, "graph": TINY}, (422, "usage")),
        ({**SAID, "optimiser": "adam"}, (422, "usage")),
        ({**SAID, "input_shape": {"input": None}}, (422, "usage")),
        ({**SAID, "fields": "peak_bytes"}, (422, "usage")),
        ({**SAID, "fields": ["peak"]}, (422, "usage")),
        ({**SAID, "machine": {"isa": "avx3"}}, (422, "usage")),
        ({**SAID, "machine": {"cores": 3}}, (422, "usage")),
        ({**SAID, "model": 5}, (422, "usage")),
        ({**SAID, "model": "resnet19"}, (422, "unknownname")),
        ({**SAID, "model": "resnet18:width=\u0000"}, (422, "unknownname")),
        ({"graph": {"memest": 1}, "input_shape": [1]}, (422, "file")),
        ({"graph": "memest: 1\na: &a [*a]", "input_shape": [1]}, (422, "file")),
        ({"graph": {**TINY, "layers": [{"conv2dd": {}}]}, "input_shape": [1, 3, 8, 8]}, (422, "graph")),
        ({"graph": {**TINY, "layers": [{"conv2d": {"out_channels": -1, "kernel_size": 1}}]}, "input_shape": [1, 3, 8, 8]}, (422, "shape")),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused_in_one_line(address: tuple[str, int], body: Any, said: tuple[int, str]) -> None:
    found = sent(address, "/estimate", body)
    assert kind(found) == said and "\n" not in json.loads(found[2])["error"]["message"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"optimizer": True}, "got true"),
        ({"keep_grads": 1}, "keep_grads is true or false, got 1"),
        ({"malloc": {}}, "got an object"),
        ({"levers": [{"a": 1}]}, "and among them is an object"),
        ({"levers": {"a": 1}}, "got an object"),
        ({"fields": []}, "an empty list, which asks for nothing"),
        ({"fields": [None]}, "in it is null"),
        ({"fields": False}, "got false"),
    ],
)
def test_messages_are_in_the_words_of_json(address: tuple[str, int], words: dict[str, Any], said: str) -> None:
    assert said in json.loads(sent(address, "/estimate", {**SAID, **words})[2])["error"]["message"]


def test_a_wrong_word_of_a_batch_is_named(address: tuple[str, int]) -> None:
    found = sent(address, "/batch", {"questions": [], "comon": {}})
    assert "no word 'comon'; did you mean 'common'" in json.loads(found[2])["error"]["message"]


def test_settings_of_any_kind_are_answered_or_refused(address: tuple[str, int]) -> None:
    pick = random.Random(5)
    values: list[Any] = [None, True, 0, -1, 2.5, 10**40, "", "adam", [], ["x"], [[1]], {}, {"a": 1}, "\ud800", "a" * 2000]
    for _ in range(300):
        asked = {**SAID, **{pick.choice([*KEYWORDS, "input_shape", "fields", "model"]): pick.choice(values) for _ in range(2)}}
        found = sent(address, "/estimate", asked)
        assert found[0] in (200, 422), (asked, found)


@pytest.mark.parametrize(
    "model", ["net.yaml", "/etc/passwd.json", "torchvision.models:resnet50()", "os:system('true')", "-", "x.py:f()", "a/b"]
)
def test_no_file_is_read_and_no_code_is_run(address: tuple[str, int], model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.yaml").write_text(memest.dumps(memest.model("resnet18")))
    monkeypatch.chdir(tmp_path)
    status, _, body = sent(address, "/estimate", {"model": model, "input_shape": [1, 3, 64, 64]})
    assert status == 422 and "--allow-import" in json.loads(body)["error"]["message"]


def test_files_are_read_where_that_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    memest.save(memest.model("resnet18"), path)
    with serving(Limits(port=0, allow_import=True)) as server:
        status, _, body = sent(server.address, "/estimate", {"model": str(path), "input_shape": [1, 3, 64, 64]})
    assert status == 200 and json.loads(body) == library(SAID)


CHUNKED = b"POST /estimate HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nbad header: 1\r\n\r\n", 400),
        (b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        (b"POST /estimate HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
        (b"POST /estimate HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n", 400),
        (b"POST /estimate HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\n\r\n", 415),
        (b"POST /estimate HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999999\r\n\r\n", 413),
        (b"POST /estimate HTTP/1.1\r\nHost: a\r\nContent-Length: 200001\r\n\r\n" + b"x" * 200_001, 413),
        (CHUNKED + b"0\r\n\r\n", 400),
        (CHUNKED + b"nothing\r\n\r\n", 400),
        (CHUNKED + (b"10000\r\n" + b"x" * 0x10000 + b"\r\n") * 4, 413),
        (b"GET /" + b"a" * 20_000, 400),
    ],
)  # fmt: skip
def test_what_is_no_request_is_refused_and_the_connection_ends(hasty: Server, data: bytes, status: int) -> None:
    assert raw(hasty.address, data).startswith(b"HTTP/1.1 %d " % status)


def test_a_body_in_chunks_is_read(address: tuple[str, int]) -> None:
    body = json.dumps(SAID).encode()
    with socket.create_connection(address, timeout=20) as s:
        s.sendall(CHUNKED + b"5\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (body[:5], len(body) - 5, body[5:]))
        assert s.recv(100).startswith(b"HTTP/1.1 200 OK")


def test_paths_and_methods(address: tuple[str, int]) -> None:
    assert kind(sent(address, "/estimat", {})) == (404, "path")
    status, headers, _ = sent(address, "/estimate")
    assert (status, headers["allow"]) == (405, "POST")
    assert sent(address, "/healthz", method="HEAD")[::2] == (200, b"")
    assert sent(address, "/healthz?now")[0] == 200


def test_a_batch_beyond_the_limit_is_refused(address: tuple[str, int]) -> None:
    assert kind(sent(address, "/batch", {"questions": [SAID] * 51})) == (413, "too large")
    assert kind(sent(address, "/batch", {"questions": SAID})) == (422, "usage")
    assert kind(sent(address, "/batch", {"questions": [], "common": []})) == (422, "usage")


def test_requests_one_after_the_other_on_one_connection(address: tuple[str, int]) -> None:
    body = json.dumps({**SAID, "fields": ["peak_bytes"]}).encode()
    head = b"POST /estimate HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n" % len(body)
    found = raw(address, (head + b"\r\n" + body) * 3 + head + b"Connection: close\r\n\r\n" + body)
    assert found.count(b"HTTP/1.1 200 OK") == found.count(b'{"peak_bytes": ') == 4
    assert found.lower().count(b"connection: close") == 1


def test_a_body_is_not_held_back_behind_its_head(address: tuple[str, int]) -> None:
    connection, took = http.client.HTTPConnection(*address, timeout=20), []
    for _ in range(20):
        begun = time.monotonic()
        connection.request("GET", "/healthz")
        connection.getresponse().read()
        took.append(time.monotonic() - begun)
    connection.close()
    assert min(took[10:]) < 0.03, "Nagle's delay is 40 ms"


def test_leave_to_send_a_body_is_given(address: tuple[str, int]) -> None:
    body = json.dumps(SAID).encode()
    with socket.create_connection(address, timeout=20) as s:
        s.sendall(b"POST /estimate HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body))
        assert s.recv(100).startswith(b"HTTP/1.1 100 ")
        s.sendall(body)
        assert s.recv(100).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("begun", [b"POST /est", b"POST /estimate HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{"])
def test_a_slow_request_is_refused_and_holds_up_nobody(hasty: Server, begun: bytes) -> None:
    with socket.create_connection(hasty.address, timeout=20) as s:
        s.sendall(begun)
        assert sent(hasty.address, "/healthz")[0] == 200
        assert s.recv(100).startswith(b"HTTP/1.1 408 ")


def test_a_second_request_that_is_slow_is_refused(hasty: Server) -> None:
    with socket.create_connection(hasty.address, timeout=20) as s:
        s.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        while not s.recv(1000).endswith(b'{"status": "ok"}'):
            pass
        found = b""
        for byte in b"GET /healthz" * 9:
            s.sendall(bytes([byte]))
            with suppress(TimeoutError):
                s.settimeout(0.02)
                found = s.recv(100)
                break
    assert found.startswith(b"HTTP/1.1 408 ")


def test_a_connection_that_says_nothing_is_closed(hasty: Server) -> None:
    with socket.create_connection(hasty.address, timeout=20) as s:
        assert s.recv(100) == b""


def test_who_sends_on_after_a_refusal_is_left(hasty: Server) -> None:
    begun = time.monotonic()
    with socket.create_connection(hasty.address, timeout=20) as s, pytest.raises(OSError):
        s.sendall(b"POST /estimate HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999999\r\n\r\n")
        while time.monotonic() < begun + 20:
            s.sendall(b"x" * 1000)


@pytest.mark.slow
def test_a_reader_that_does_not_read_is_dropped(hasty: Server) -> None:
    with socket.create_connection(hasty.address, timeout=20) as s:
        s.settimeout(0.1)
        with pytest.raises(OSError):
            for _ in range(100_000):
                s.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n" * 20)
    end = time.monotonic() + 5
    while hasty.server_state.connections and time.monotonic() < end:
        time.sleep(0.01)
    assert not hasty.server_state.connections and not hasty.server_state.tasks


def test_what_takes_too_long_is_given_up(hasty: Server) -> None:
    sizes = [{"model": "densenet121", "input_shape": [n, 3, 64, 64]} for n in range(1, 200)]
    assert kind(sent(hasty.address, "/batch", {"questions": sizes})) == (503, "late")


@pytest.mark.parametrize("runtime", ["torch-cpu", "tensorflow-cpu"])
def test_a_fit_without_end_is_left_at_its_deadline(runtime: str) -> None:
    service = Service(max_batch=1, timeout=0.3)
    asked = {"model": "unet3d", "budget": "900000TiB", "vary": ["batch", "D=H=W"], "runtime": runtime}
    begun = time.monotonic()
    found = service.respond(service.routes["/fit"], json.dumps(asked).encode(), service.deadline())
    assert (found.status, found.kind) == (503, "late") and time.monotonic() - begun < 3


def test_a_request_that_waited_too_long_is_not_begun() -> None:
    service = Service(max_batch=1, timeout=0.0)
    route = Route("POST", lambda body, deadline: pytest.fail("begun"))
    deadline = service.deadline()
    time.sleep(0.001)
    assert service.respond(route, b"{}", deadline).status == 503


def test_the_process_ends_though_a_thread_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr("os._exit", ended.append)
    monkeypatch.setattr(Server, "run", lambda self: self._socket.close())
    monkeypatch.setattr("sys.setswitchinterval", lambda seconds: None)
    server.serve(Limits(port=0))
    assert ended == [0]


def test_more_connections_than_there_may_be_are_refused(hasty: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hasty.config, "limit_concurrency", 2)
    with socket.create_connection(hasty.address, timeout=20):
        assert sent(hasty.address, "/healthz")[0] == 503
    assert sent(hasty.address, "/healthz")[0] == 200


def test_more_held_than_there_may_be_is_refused(address: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(application, "MOST_HELD", 100_000)
    found = sent(address, "/estimate", b" " * 150_000)
    assert kind(found) == (503, "busy") and found[1]["retry-after"] == "1"
    assert sent(address, "/estimate", SAID)[0] == 200


def test_many_clients_at_once_get_their_own_answers(address: tuple[str, int]) -> None:
    def ask(n: int) -> bool:
        question = {"model": ("resnet18", "mobilenet_v2")[n % 2], "input_shape": [n % 7 + 1, 3, 64, 64], "mode": "infer"}
        found = json.loads(sent(address, "/estimate", question)[2])
        return found["input_shapes"] == {"input": question["input_shape"]} and found["graph"] == question["model"]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(60)))


def test_what_is_remembered_is_bounded() -> None:
    kept: Kept[str] = Kept(10)
    for n in range(100):
        kept.keep(n, "x", 3)
    assert kept.total == 9 and kept.get(99) == "x" and kept.get(0) is None
    kept.get(97)
    kept.keep(100, "y", 3)
    assert kept.get(97) == "x" and kept.get(98) is None


@pytest.mark.slow
def test_the_command_ends_in_order_when_it_is_told_to() -> None:
    command = [sys.executable, "-m", "memest", "serve", "--port", "0", "--threads", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1], env=dict(os.environ)) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().rpartition(":")[2])
        answers: list[Found] = []
        batch = {"questions": [{"model": "resnet18", "input_shape": [n, 3, 64, 64]} for n in range(1, 9)]}
        asking = threading.Thread(target=lambda: answers.append(sent(("127.0.0.1", port), "/batch", batch)))
        asking.start()
        time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        asking.join()
        assert process.wait(20) == 0
        assert len(json.loads(answers[0][2])["answers"]) == 8


@pytest.mark.parametrize(
    "arguments", [["--port", "99999"], ["--max-body", "1TiB"], ["--max-body", "much"], ["--host", "300.1.1.1", "--port", "0"]]
)
def test_what_cannot_be_served_is_a_usage_error(arguments: list[str]) -> None:
    assert main(["serve", *arguments]) == 2


def test_a_port_that_is_taken_is_a_usage_error(address: tuple[str, int], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--port", str(address[1])]) == 2
    assert f"cannot listen on 127.0.0.1:{address[1]}: Address already in use" in capsys.readouterr().err


def without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """As if these were not installed."""
    for name in [name for name in sys.modules if name.startswith("memest.serve.")]:
        monkeypatch.delitem(sys.modules, name)
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)


@pytest.mark.parametrize("missing", ["prometheus_client", "uvicorn"])
def test_without_the_extra_it_is_named(missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    without(monkeypatch, missing)
    assert main(["serve", "--port", "0"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert missing in said.err and "pip install uvicorn prometheus-client, or '.[serve]'" in said.err


def test_the_description_needs_no_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    without(monkeypatch, "prometheus_client", "uvicorn")
    assert main(["serve", "--openapi"]) == 0
    assert json.loads(capsys.readouterr().out)["openapi"] == "3.1.0"
