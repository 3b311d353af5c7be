"""What viewers are given: histories that torch's memory_viz reads and traces that Perfetto reads, both equal to the step, byte for byte."""

from __future__ import annotations

import io
import json
import pickle
import pickletools
from collections import Counter
from itertools import accumulate, pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest

import memest
from memest.cli.app import main
from memest.estimate.estimate import Estimate
from memest.estimate.series import outline, series
from memest.memory.placement import FirstFit
from memest.render import history, perfetto

CASES: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "unet3d": ("unet3d:base_filters=4", (1, 1, 32, 32, 32), {"optimizer": "adam", "loss": "binary_cross_entropy"}),
    "resnet18": ("resnet18", (2, 3, 64, 64), {"optimizer": "adamw:foreach=true", "first_step": True, "hold_output": True}),
    "inference": ("densenet121", (2, 3, 64, 64), {"mode": "infer"}),
}
# The opcodes that MemoryViz.js decodes (its `unpickle`), by the names of pickletools.
PAGE_OPCODES = {
    "APPENDS",
    "BINGET",
    "BININT",
    "BININT1",
    "BININT2",
    "EMPTY_DICT",
    "EMPTY_LIST",
    "FRAME",
    "LONG1",
    "LONG_BINGET",
    "MARK",
    "MEMOIZE",
    "PROTO",
    "SETITEMS",
    "SHORT_BINUNICODE",
    "STOP",
    "TUPLE2",
    "APPEND",
    "NEWFALSE",
    "BINPUT",
    "BINUNICODE",
    "EMPTY_TUPLE",
    "NEWTRUE",
    "NONE",
    "BINFLOAT",
    "TUPLE",
    "TUPLE1",
    "TUPLE3",
    "LONG_BINPUT",
    "LIST",
    "DICT",
    "SETITEM",
}


@pytest.fixture(scope="module", params=CASES)
def step(request: pytest.FixtureRequest) -> Estimate:
    """The estimate of a case."""
    name, shape, how = CASES[request.param]
    return memest.estimate(memest.model(name), input_shape=shape, **how)


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise AssertionError(f"a global: {module}.{name}")


def unpickled(data: bytes) -> dict[str, Any]:
    """The history; a global in it fails the test."""
    return dict(_Plain(io.BytesIO(data)).load())


# series ------------------------------------------------------------------------------------------------------------------


def test_series_is_the_step(step: Estimate) -> None:
    found = series(step)
    assert list(found.totals) == list(accumulate((e.delta for e in step.events), initial=step.standing_bytes))
    assert found.totals == tuple(map(sum, zip(*found.categories.values(), strict=True)))
    assert max(found.totals) == found.peak_bytes == step.peak_bytes and found.totals.index(step.peak_bytes) == found.peak
    assert {c: v[found.peak] for c, v in found.categories.items() if v[found.peak]} == step.by_category()


def test_spans_name_every_event(step: Estimate) -> None:
    found = series(step)
    for spans, name in ((found.phases, "phase"), (found.layers, "layer"), (found.ops, "op")):
        named = {i: s.name for s in spans for i in range(s.start, s.stop)}
        assert named == {i: getattr(e, name) for i, e in enumerate(step.events, 1) if getattr(e, name)}
        assert all(a.stop <= b.start for a, b in pairwise(spans))


@pytest.mark.parametrize("lows", [True, False])
def test_outline_keeps_the_peak_and_its_order(step: Estimate, lows: bool) -> None:
    totals = series(step).totals
    for columns in (1, 7, 100, len(totals)):
        kept = outline(totals, columns, lows=lows)
        assert len(kept) <= columns * (1 + lows) and list(kept) == sorted(set(kept))
        assert totals.index(max(totals)) in kept
        assert not lows or min(totals) in {totals[i] for i in kept}


# addresses ---------------------------------------------------------------------------------------------------------------


def test_first_fit_never_overlaps_and_takes_the_lowest_gap() -> None:
    """Against a map of single bytes."""
    random, line, taken = Random(1), FirstFit(), bytearray(4000)
    live: list[tuple[int, int]] = []
    for _ in range(1500):
        if live and random.random() < 0.5:
            start, n = live.pop(random.randrange(len(live)))
            line.release(start, n)
            taken[start : start + n] = bytes(n)
        else:
            n = random.randint(1, 40)
            start = line.allocate(n)
            lowest = taken.find(bytes(n))
            assert start == lowest
            taken[start : start + n] = b"\1" * n
            live.append((start, n))
        assert line.extent <= 4000


# history -----------------------------------------------------------------------------------------------------------------


def test_history_is_the_step(step: Estimate) -> None:
    (trace,) = unpickled(history.render(step))["device_traces"]
    residents = [s.nbytes for s in step.timeline.residents if s.nbytes]
    moves = [e["size"] if e["action"] == "alloc" else -e["size"] for e in trace if e["action"] in ("alloc", "free_completed")]
    assert moves == residents + [e.delta for e in step.events]
    assert max(accumulate(moves)) == step.peak_bytes
    assert Counter(e["action"] for e in trace)["free_requested"] == sum(e.delta < 0 for e in step.events)
    assert {e["time_us"] for e in trace} == set(range(len(step.events) + 2))


def test_history_blocks_never_overlap(step: Estimate) -> None:
    data = unpickled(history.render(step))
    (segment,) = data["segments"]
    low, high = segment["address"], segment["address"] + segment["total_size"]
    live: dict[int, int] = {}
    for e in data["device_traces"][0]:
        if e["action"] == "alloc":
            start, end = e["addr"], e["addr"] + e["size"]
            assert low <= start < end <= high
            assert all(end <= a or a + n <= start for a, n in live.items())
            live[start] = e["size"]
        elif e["action"] == "free_completed":
            assert live.pop(e["addr"]) == e["size"]
    blocks = segment["blocks"]
    assert {b["address"]: b["size"] for b in blocks if b["state"] == "active_allocated"} == live
    assert [b["address"] for b in blocks] == [low + n for n in accumulate((b["size"] for b in blocks[:-1]), initial=0)]
    assert sum(b["size"] for b in blocks) == segment["total_size"] >= step.peak_bytes
    assert sum(live.values()) == segment["allocated_size"] == series(step).totals[-1]


def test_history_says_what_each_block_is(step: Estimate) -> None:
    (trace,) = unpickled(history.render(step))["device_traces"]
    blocks = [e for e in trace if e["action"] == "alloc"]
    storages = [s for s in step.timeline.residents if s.nbytes] + [e.storage for e in step.events if e.delta > 0]
    for block, storage in zip(blocks, storages, strict=True):
        said = {f["filename"]: f["name"] for f in block["frames"]}
        assert block["category"] == said["category"] == storage.category
        assert block["frames"][0]["filename"] == (storage.layer or "step") and said.get("reason", "") == storage.reason
    assert {f["name"] for b in blocks for f in b["frames"] if f["filename"] == "phase"} <= {"standing", *(e.phase for e in step.events)}


def test_history_is_what_the_page_decodes(step: Estimate) -> None:
    data = history.render(step)
    assert {op.name for op, _, _ in pickletools.genops(data)} <= PAGE_OPCODES
    assert data[:2] == b"\x80\x04"
    numbers = [e[k] for e in unpickled(data)["device_traces"][0] for k in ("addr", "size", "time_us")]
    assert all(type(n) is int and 0 <= n <= 2**53 for n in numbers)
    assert "unknown" in {e.get("category") for e in unpickled(data)["device_traces"][0]}, "the page fails without it"
    assert data == history.render(step)


def test_torch_reads_the_history(step: Estimate) -> None:
    pytest.importorskip("torch")
    from torch.cuda import _memory_viz as viz

    data = unpickled(history.render(step))
    assert "segments: 1\n" in viz.segsum(data)
    assert len(viz.trace(data).splitlines()) > len(step.events)
    assert "snapshot.pickle" in viz.trace_plot(data) and "snapshot.pickle" in viz.segment_plot(data)
    lines = viz.memory(data, lambda text: text).splitlines()
    assert sum(int(line.rpartition(" ")[2]) for line in lines) == data["segments"][0]["total_size"]
    assert len(viz.filter_alloc_free_pairs(data)["device_traces"][0]) < len(step.events) + len(step.timeline.residents) + 2


# trace -------------------------------------------------------------------------------------------------------------------


def test_trace_counters_are_the_step(step: Estimate) -> None:
    rows = json.loads(perfetto.render(step))["traceEvents"]
    totals = {r["ts"]: r["args"]["total"] for r in rows if r["name"] == "bytes alive"}
    parts = {r["ts"]: r["args"] for r in rows if r["name"] == "bytes alive by category"}
    assert tuple(totals.values()) == series(step).totals and list(totals) == list(range(len(step.events) + 1))
    assert {ts: sum(p.values()) for ts, p in parts.items()} == totals
    assert all(type(n) is int for p in parts.values() for n in p.values())
    assert max(totals.values()) == step.peak_bytes


def test_trace_slices_nest(step: Estimate) -> None:
    """Each lies within those begun before it and not yet over, at a depth that its kind says."""
    rows = json.loads(perfetto.render(step))["traceEvents"]
    slices = [r for r in rows if r["ph"] == "X"]
    assert [r["ts"] for r in slices] == sorted(r["ts"] for r in slices)
    kinds = ("phase", "layer", "operator")
    open_: list[tuple[int, int]] = []
    for r in slices:
        end, depth = r["ts"] + r["dur"], kinds.index(r["cat"])
        assert r["dur"] >= 1
        while open_ and open_[-1][0] <= r["ts"]:
            open_.pop()
        assert all(end <= e and d < depth for e, d in open_)
        assert depth == 0 or open_, "a layer lies in a phase"
        open_.append((end, depth))
    assert [r["name"] for r in slices if r["cat"] == "phase"] == [s.name for s in series(step).phases]
    spans = series(step)
    assert len(slices) == len(spans.phases) + len(spans.layers) + len(spans.ops)


def test_trace_keeps_the_rules_of_the_format(step: Estimate) -> None:
    data = json.loads(perfetto.render(step))
    (peak,) = [r for r in data["traceEvents"] if r["ph"] == "i"]
    assert peak["ts"] == step.moment.index + 1 and peak["args"]["bytes"] == step.peak_bytes and peak["args"]["layer"] == step.moment.layer
    assert peak["s"] == "g"
    for r in data["traceEvents"]:
        assert r["ph"] in "MCXi" and r["pid"] == 1 and isinstance(r["name"], str)
        assert r["ph"] == "C" or r["tid"] == 1
        assert r["ph"] == "M" or (type(r["ts"]) is int and 0 <= r["ts"] <= len(step.events))
    assert (
        data["displayTimeUnit"] == "ms"
        and "not a time" in data["otherData"]["clock"]
        and data["otherData"]["peak_bytes"] == step.peak_bytes
    )


# edges and the command ---------------------------------------------------------------------------------------------------


def test_a_step_without_an_event() -> None:
    graph = memest.loads("inputs: {x: [2, 3]}\nlayers: [flatten: {in: x}]")
    nothing = memest.estimate(graph, mode="infer")
    assert not nothing.events
    data = unpickled(history.render(nothing))
    assert [e["action"] for e in data["device_traces"][0]] == ["segment_alloc", "alloc", "snapshot"]
    rows = json.loads(perfetto.render(nothing))["traceEvents"]
    assert [r["args"]["bytes"] for r in rows if r["ph"] == "i"] == [24]


@pytest.mark.parametrize("render", [history.render, perfetto.render])
def test_what_a_double_cannot_hold_is_refused(render: Any) -> None:
    graph = memest.loads("inputs: {x: [N, 3]}\nlayers: [relu: {in: x}]")
    assert render(memest.estimate(graph, input_shape=(2**40, 3), mode="infer"))
    with pytest.raises(memest.UsageError, match="2\\^53"):
        render(memest.estimate(graph, input_shape=(2**53, 3), mode="infer"))


SHAPE = ["resnet18", "--input", "3x32x32", "--batch", "2"]


def test_the_command_writes_both_beside_its_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = tmp_path / "a.pickle", tmp_path / "b.JSON"
    assert main(["timeline", *SHAPE, "--export", str(one), "--export", str(two)]) == 0
    captured = capsys.readouterr()
    assert captured.err == "" and "Highest moments" in captured.out
    expected = memest.estimate(memest.model("resnet18"), input_shape=(2, 3, 32, 32))
    assert one.read_bytes() == history.render(expected) and two.read_text() == perfetto.render(expected)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pickle", "b.JSON"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.pikle", ("'.pikle'", ".pickle, .json", "did you mean '.pickle'")),
        ("a", ("no suffix", ".pickle, .json")),
        ("-", ("no suffix",)),
        ("nowhere/a.json", ("cannot write nowhere/a.json",)),
    ],
)
def test_a_place_that_cannot_be(
    name: str, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["timeline", *SHAPE, "--export", name]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and all(w in captured.err for w in words), captured.err
    assert not list(tmp_path.iterdir())
