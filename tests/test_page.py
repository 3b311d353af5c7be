"""The live report: its data say what the estimate says at every setting, and the file keeps what it promises."""

from __future__ import annotations

import base64
import json
import random
import re
from hashlib import sha256
from html.parser import HTMLParser
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from pages import CPU, NASTY, nasty_graph, page_of

import memest
from memest.cli.app import main
from memest.errors import UnsupportedError, UsageError
from memest.estimate.formulas.javascript import SAFE, function, helpers, magnitude
from memest.network.graph import Graph
from memest.planning.page import PageModel, page_model, read_sizes
from memest.planning.page.grid import MAX_POINTS, axes_of, usual_sizes
from memest.planning.page.model import OPTIMIZERS
from memest.planning.page.reading import Read, Reading
from memest.render.page import render
from memest.shown import visible
from memest.sizes.conditions import Conditions
from memest.sizes.dims import Opaque, parse, symbol

SMALL = "unet3d:base_filters=4,levels=3"
STOPS = {"optimizers": ("sgd", "adam"), "dtypes": ("float32", "bfloat16"), "batches": (1, 2, 5), "sizes": {"": (16, 32), "W": (8, 24)}}
WHOLE = {"unet3d": (2, 1, 64, 64, 64), "resnet50": (2, 3, 224, 224), "mobilenet_v2": (2, 3, 96, 96)}


@pytest.fixture(scope="module")
def small() -> tuple[Graph, PageModel]:
    """A small 3D U-Net over batches that run differently (1 and more) and sides of several powers of two."""
    graph = memest.model(SMALL)
    return graph, page_of(graph, 2, 1, 16, 16, 16, **STOPS)


def settings(model: PageModel) -> int:
    """How many settings the sliders have together."""
    count = 1
    for axis in model.axes:
        count *= len(axis.values)
    return count


def estimated(graph: Graph, data: Any, choice: int, setting: int) -> memest.Estimate:
    """The estimate for a choice and a setting of a page."""
    sizes = Reading(data).sizes_at(setting)
    chosen = data["choices"][choice]
    shape = [tuple(d if isinstance(d, int) else d.evaluate(sizes) for d in i.shape) for i in graph.inputs]
    optimizer = {"optimizer": chosen["optimizer"]} if chosen["optimizer"] else {}
    return memest.estimate(graph, input_shape=shape, mode=chosen["mode"], dtype=chosen["dtype"], machine=CPU, **optimizer)


def check(graph: Graph, model: PageModel, count: int, seed: int) -> None:
    """The page's bytes, categories and place of the peak are the estimate's at random settings."""
    data = json.loads(json.dumps(model.data))
    reading, rng = Reading(data), random.Random(seed)
    every = list(product(range(len(data["choices"])), range(settings(model))))
    for choice, setting in rng.sample(every, min(count, len(every))):
        truth = estimated(graph, data, choice, setting)
        moment = truth.moment
        assert reading.at(choice, setting) == Read(
            peak_bytes=truth.peak_bytes,
            standing_bytes=truth.standing_bytes,
            by_category=truth.by_category(),
            where=(moment.phase, moment.layer, moment.op),
        ), (choice, reading.sizes_at(setting))


def test_the_data_say_what_the_estimate_says(small: tuple[Graph, PageModel]) -> None:
    check(*small, count=25, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_the_data_say_what_the_estimate_says_of_whole_networks(name: str) -> None:
    graph = memest.model(name)
    check(graph, page_of(graph, *WHOLE[name], optimizers=OPTIMIZERS), count=20, seed=1)


def test_a_batch_of_one_is_a_piece_of_its_own(small: tuple[Graph, PageModel]) -> None:
    _, model = small
    programs = model.data["choices"][0]["programs"]
    conditions = [model.data["programs"][p]["conditions"] for p in dict.fromkeys(programs)]
    assert len(conditions) > 1 and any("N == 1" in c for c in conditions)


def test_optimizers_share_forward_and_backward(small: tuple[Graph, PageModel]) -> None:
    _, model = small
    sgd, adam = (model.data["programs"][model.data["choices"][i]["programs"][-1]]["segments"] for i in (0, 1))
    assert sgd[0] == adam[0] and sgd != adam


def test_a_size_the_network_cannot_run_at_is_refused_with_the_reason() -> None:
    graph = memest.model(SMALL)
    model = page_of(graph, 2, 1, 16, 16, 16, batches=(2,), sizes={"": (16,), "D": (10, 16)})
    reading = Reading(model.data)
    refused = [s for s in range(settings(model)) if reading.sizes_at(s)["D"] == 10]
    for setting in refused:
        with pytest.raises(UsageError) as caught:
            reading.at(0, setting)
        with pytest.raises(memest.MemestError) as truth:
            estimated(graph, model.data, 0, setting)
        assert str(truth.value) == f"{caught.value}; use multiples of 4: D=8 or 12"
    assert refused


def test_the_page_it_opens_with_must_run() -> None:
    with pytest.raises(memest.MemestError):
        page_of(memest.model(SMALL), 2, 1, 10, 16, 16)


def test_numbers_beyond_doubles_are_bigints(small: tuple[Graph, PageModel]) -> None:
    _, model = small
    assert not model.big and model.data["largest"] < SAFE
    huge = page_of(nasty_graph(), 1, 3, 2**26, 2**26, batches=(1,), sizes={"": (2**26,)})
    page = render(huge)
    assert huge.big and _data(page)["big"] and "0n" in page
    assert _data(page)["forms"][0][0] == str(huge.data["forms"][0][0])


# the grid -----------------------------------------------------------------------------------------------------------------


def test_sliders_stop_where_the_network_can_run() -> None:
    model = page_of(memest.model("unet3d"), 1, 1, 48, 48, 48, mode="infer", batches=(1,), sizes={"H": (48,), "W": (48,)})
    depth = next(a for a in model.axes if a.symbol == "D")
    assert depth.first == 48 and all(v % 16 == 0 for v in depth.values) and len(depth.values) > 3
    assert all(p >= 0 for choice in model.data["choices"] for p in choice["programs"])
    assert model.data["choices"][0]["mode"] == "infer"


def test_wrong_sizes_are_usage_errors() -> None:
    graph = memest.model("resnet18")
    conditions = Conditions(least={})
    start = usual_sizes(graph)
    with pytest.raises(UsageError, match="did you mean 'H'"):
        axes_of(graph, start, conditions, sizes={"HH": (2,)})
    with pytest.raises(UsageError, match="name fewer"):
        axes_of(graph, start, conditions, sizes={"": tuple(range(1, MAX_POINTS))})
    for text in ("", "0", "a", "1,,2", "-1", "1.5", "9" * 12):
        with pytest.raises(UsageError):
            read_sizes([text], "--sizes")
    assert read_sizes(["64,32", "H=8"], "--sizes") == {"": (32, 64), "H": (8,)}


# formulas -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["N*H//2", "(N + 7)//8*H", "max(N, H - 3)%5", "min(N*H, 7) - N", "0 - H//3", "(N - H)//4", "(N - H)%4"])
@pytest.mark.parametrize("big", [False, True])
def test_javascript_is_written_from_the_same_expressions(text: str, big: bool) -> None:
    e = parse(text)
    written = function("f", [e], ("N", "H"), big=big)
    assert "N" not in written.replace("function", "") and "H" not in written
    assert bool(re.search(r"\dn\b", written)) is big
    for n, h in product((1, 5, 12), repeat=2):
        value = e.evaluate({"N": n, "H": h})  # type: ignore[union-attr]
        assert magnitude(e, {"N": 12, "H": 12}) >= abs(value)
    assert "floorDivide" in helpers(big=big)


def test_a_kernel_has_no_formula() -> None:
    kernel = Opaque("convolution", lambda n: n, (symbol("N"),))
    with pytest.raises(UnsupportedError, match="no formula"):
        function("f", [kernel], ("N",), big=False)


# the file -----------------------------------------------------------------------------------------------------------------


class _Parts(HTMLParser):
    """Scripts, styles, addresses, ids and labels of a page."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.title = ""
        self._in = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in = tag
        if tag in ("script", "style"):
            self.scripts.append((dict(attrs) | {"tag": tag}, ""))

    def handle_data(self, data: str) -> None:
        if self._in in ("script", "style"):
            attributes, text = self.scripts[-1]
            self.scripts[-1] = attributes, text + data
        if self._in == "title":
            self.title += data

    def handle_endtag(self, tag: str) -> None:
        self._in = ""


def _data(page: str) -> Any:
    return json.loads(next(text for a, text in _Parts(page).scripts if a.get("type") == "application/json"))


def test_the_page_asks_the_network_for_nothing(small: tuple[Graph, PageModel]) -> None:
    parts = _Parts(render(small[1], hardware=memest.hardware()))
    for tag, attributes in parts.tags:
        for name in ("src", "href", "action", "poster", "srcset", "background"):
            assert (attributes.get(name) or "data:")[0] in "#d", (tag, attributes)
        assert not any(name.startswith("on") for name in attributes), tag
    style, program = (next(text for a, text in parts.scripts if a["tag"] == tag and "type" not in a) for tag in ("style", "script"))
    assert not re.search(r"url\(|@import|@font-face", style)
    assert not re.search(r"fetch\(|XMLHttpRequest|WebSocket|EventSource|sendBeacon|import\(|innerHTML|eval\(|new Function", program)
    policy = next(a["content"] for tag, a in parts.tags if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    for text in (style, program):
        assert f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'" in policy


def test_names_are_texts_and_nothing_else() -> None:
    model = page_of(nasty_graph(), 1, 3, 8, 8, batches=(1,), sizes={"": (8,)})
    page = render(model, title=NASTY, budget=NASTY)
    parts = _Parts(page)
    scripts = [(a, text) for a, text in parts.scripts if a["tag"] == "script"]
    assert len(scripts) == 2 and not any("alert" in text for a, text in scripts if not a.get("type"))
    assert parts.title == f"{visible(NASTY)}: memory"
    assert "<!--" not in page
    assert _data(page)["model"] == visible(NASTY) and _data(page)["opens"]["budget"] == NASTY


def test_every_control_has_a_label_and_every_reference_leads_somewhere(small: tuple[Graph, PageModel]) -> None:
    parts = _Parts(render(small[1]))
    ids = [a["id"] for _, a in parts.tags if a.get("id")]
    assert len(ids) == len(set(ids))
    labelled = {a["for"] for tag, a in parts.tags if tag == "label"}
    for tag, attributes in parts.tags:
        if tag in ("input", "select"):
            assert attributes["id"] in labelled
        for name in ("for", "aria-labelledby", "aria-describedby"):
            assert set((attributes.get(name) or "").split()) <= set(ids)
    peak = next(a for _, a in parts.tags if a.get("id") == "peak")
    assert peak["aria-live"] == "polite"


def test_the_same_model_gives_the_same_file(small: tuple[Graph, PageModel]) -> None:
    assert render(page_of(memest.model(SMALL), 2, 1, 16, 16, 16, **STOPS)) == render(small[1])


def test_the_command_writes_a_page_whole_or_not_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["report", SMALL, "--input", "1x16x16x16", "--batch", "2", "--sizes", "16", "--batches", "2", "--optimizer", "sgd"]
    path = tmp_path / "report.html"
    assert main([*given, "--budget", "1GiB", "--on", "a100-80gb", "-o", str(path)]) == 0
    assert capsys.readouterr().out == ""
    data = _data(path.read_text())
    assert data["opens"] == {"hardware": "a100-80gb", "budget": "1GiB"} and data["model"] == "unet3d"
    before = path.read_bytes()
    for wrong in ("--budget 1", "--on a100", "--sizes Q=2", "--optimizer adm", "--dtype float33", "--loss mss"):
        assert main([*given, *wrong.split(), "-o", str(path)]) in (2, 3)
        error = capsys.readouterr().err
        assert error.startswith("memest: ") and error.count("\n") == 1
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert main([*given, "-o", str(tmp_path / "no" / "report.html")]) == 2


def test_a_page_on_a_card_computes_what_is_asked_for_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "card.html"
    given = ["report", "resnet18", "--input", "3x64x64", "--batch", "2", "--sizes", "64", "--batches", "2,4", "--optimizer", "sgd"]
    assert main([*given, "--on", "a100-40gb", "-o", str(path)]) == 0
    graph = memest.model("resnet18")
    at: dict[str, Any] = {"input_shape": (2, 3, 64, 64), "machine": "a100-40gb"}
    data = page_model(graph, **at, optimizers=["sgd"], dtypes=["float32"], batches=[2, 4], sizes={"": [64]}).data
    est = memest.estimate(graph, **at)
    start = next(n for n in range(2) if Reading(data).sizes_at(n)["N"] == 2)
    assert Reading(data).at(0, start).peak_bytes == est.requested_bytes
    assert f"allocated {est.allocated.bytes:,}" in data["replayed"]
    assert f"process {est.process.bytes:,} (modelled:" in data["replayed"]
    text = path.read_text()
    assert data["replayed"] in text
    assert "requested bytes fit" in text
    assert "block rounding" in text


def test_a_page_of_a_processor_says_nothing_of_replays() -> None:
    data = page_model(memest.model("resnet18"), input_shape=(2, 3, 64, 64), optimizers=["sgd"], dtypes=["float32"], machine=CPU).data
    assert data["replayed"] == ""
