"""Allocator histories that torch recorded: read without trust, undone to their beginning, replayed to the address, and explained."""

from __future__ import annotations

import copy
import gzip
import json
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest
from shared import shared

from memest.cli.app import main
from memest.errors import FileError, MemestError
from memest.memory.allocators.blocks import USED
from memest.memory.allocators.caching import CachingAllocator
from memest.memory.allocators.history import Entry, Frame
from memest.memory.allocators.restoring import Live, Span, restore
from memest.memory.allocators.retracing import Lifetime, RecordedDriver, Retraced, retrace
from memest.memory.allocators.settings import Settings, read_settings
from memest.memory.stream import Event, Storage
from memest.planning.recorded import category, chosen, recorded, where
from memest.render.cuda_history import cuda_history, cuda_snapshot
from memest.sources.snapshots.reading import read_histories
from memest.sources.snapshots.unpickling import unpickled

MIB = 1 << 20
RECORDED = Path(__file__).parent / "data" / "histories.pickle.gz"


def ours() -> list[dict[str, Any]]:
    """Histories that torch 2.14.1's CUDA allocator recorded over a runtime that computes nothing: several streams, a pool of one's own,
    expandable segments, other settings, a cache emptied in the middle, requests without room, and ring buffers that lost the beginning."""
    found = unpickled(gzip.decompress(RECORDED.read_bytes()), "histories")
    assert isinstance(found, list)
    return found


def traced(data: Any) -> Retraced:
    """The replay of a snapshot's first device."""
    return retrace(read_histories(pickle.dumps(data), "test")[0])


def reserved(entries: tuple[Entry, ...], began_with: int) -> int:
    """The most that a record's own segments add up to."""
    sums = [began_with]
    for e in entries:
        sign = {"segment_alloc": 1, "segment_map": 1, "segment_free": -1, "segment_unmap": -1}.get(e.action, 0)
        sums.append(sums[-1] + sign * e.size)
    return max(sums)


def request(mib: int, name: int, op: str = "conv") -> Event:
    """An event of a stream; below 0, a release."""
    return Event(mib * MIB, Storage(name, abs(mib) * MIB, "activations", "layer", op, "kept"), "forward", "layer", op)


NO_ROOM = [request(40, 1), request(4, 2), request(-40, 1), request(22, 3), request(50, 4, "linear")]


# replay ------------------------------------------------------------------------------------------------------------------


def test_every_recorded_allocation_comes_at_its_address() -> None:
    actions: set[str] = set()
    began = 0
    for data in ours():
        history = read_histories(pickle.dumps(data), "test")[0]
        found = retrace(history)
        assert not found.partings and found.placed == found.allocations > 0
        assert found.layout and found.reserved == reserved(history.entries, found.began_with)
        actions |= {e.action for e in history.entries}
        began += found.began_with > 0
    assert actions >= {"segment_free", "segment_map", "segment_unmap", "oom"} and began >= 5


def test_public_histories_come_at_their_addresses() -> None:
    for path in shared("traces/*.pickle"):
        for history in read_histories(path.read_bytes(), path.name):
            found = retrace(history)
            assert not found.partings and found.placed == found.allocations > 0, path.name
            assert found.layout and found.reserved == reserved(history.entries, found.began_with), path.name


@pytest.mark.slow
def test_measured_steps_go_on_from_the_layout_before_them() -> None:
    steps = 0
    for path in shared("gpu/results_standin_h100_*/nets.jsonl.gz"):
        with gzip.open(path, "rt") as file:
            for line in file:
                steps += _follows(json.loads(line))
    assert steps >= 80


def _follows(step: dict[str, Any]) -> bool:
    """True for a step with events, each of whose allocations came at its address, and whose peaks are the recorded ones."""
    if not step.get("events"):
        return False
    driver = RecordedDriver()
    allocator = CachingAllocator(driver=driver)
    spans = [Span(address, size, stream, kind == "s", False) for address, size, kind, stream, _ in step["segments"]]
    live = {}
    for address, _, _, _, blocks in step["segments"]:
        for size, used in blocks:
            if used:
                live[address] = Live(size, size, USED)
            address += size
    held = restore(allocator, spans, live)
    assert (allocator.reserved, allocator.allocated) == (step["reserved_before"], step["resident"])
    allocator.reset_peaks()
    for action, size, address, stream, *_ in step["events"]:
        if action == "S":
            driver.pending.append(Entry("segment_alloc", address, size, stream, 0))
        elif action == "a":
            block = allocator.malloc(size, stream)
            assert block is not None and block.address == address and not driver.pending, step["case"]
            held[address] = block
        elif action == "r":
            allocator.request_free(held[address])
        elif action == "c":
            allocator.complete_free(held.pop(address))
    assert (allocator.allocated_peak, allocator.reserved_peak) == (step["peak"], step["peak_reserved"]), step["case"]
    return True


def test_a_replay_that_parts_says_where_and_goes_on() -> None:
    data = cuda_snapshot([], [request(3, 1), request(30, 2), request(40, 3), request(-30, 2), request(25, 4)], title="wrong")
    assert data["device_traces"][0][1]["size"] == 3 * MIB
    data["device_traces"][0][1]["size"] = 12 * MIB
    found = traced(data)
    assert (found.placed, found.allocations, found.layout, found.given_up_at) == (3, 4, False, None)
    (parting,) = found.partings
    assert (
        parting.event == 1 and "the record asks the driver for 20,971,520 bytes (segment_alloc), the replay for 12,582,912" in parting.why
    )


def test_a_record_that_contradicts_itself_is_refused() -> None:
    grown = {"action": "segment_alloc", "addr": 1 << 40, "size": 20 * MIB, "stream": 0}
    for second in (grown, {**grown, "addr": (1 << 40) + MIB}, {**grown, "action": "segment_map", "size": 0}):
        with pytest.raises(FileError, match="the record contradicts itself: "):
            traced({"segments": [], "device_traces": [[grown, second]]})


def test_a_replay_is_given_up_where_the_driver_has_back_what_it_still_holds() -> None:
    data = cuda_snapshot([], NO_ROOM, title="lost")
    trace = data["device_traces"][0]
    segment = trace[0]
    trace.insert(2, {**segment, "action": "segment_free"})
    data["segments"] = [s for s in data["segments"] if s["address"] != segment["addr"]]
    found = traced(data)
    assert found.given_up_at == 3 and "goes back to the driver, in the replay it is in use" in found.partings[-1].why


def test_an_allocator_that_pads_its_requests_is_recognized() -> None:
    padded = cuda_snapshot([], [request(1, 1), request(3, 2), request(-1, 1), request(1, 3)], Settings(padding=32), title="padded")
    found = traced(padded)
    assert found.padding == 32 and found.placed == found.allocations == 3 and found.layout
    assert traced(cuda_snapshot([], NO_ROOM, title="plain")).padding == 0


def test_the_size_of_large_segments_is_read_off_the_record() -> None:
    data = cuda_snapshot([], NO_ROOM, read_settings("large_segment_size_mb:32"), title="large")
    del data["allocator_settings"]
    found = traced(data)
    assert found.placed == found.allocations == 4 and found.layout


# what it says ------------------------------------------------------------------------------------------------------------


def test_holdings_add_up_to_the_peak_and_shortages_say_what_would_have_helped() -> None:
    history = read_histories(cuda_history([], NO_ROOM, title="full", capacity=100 * MIB), "test")[0]
    found = recorded(history, 3)
    assert sum(h.nbytes for h in found.holdings) == found.retraced.allocated == 44 * MIB
    assert [h.category for h in found.holdings] == ["activations"]
    assert found.retraced.allocated_at == 3 and found.fragmentation == 60 * MIB - 44 * MIB and len(found.largest) == 2
    (shortage,) = found.shortages
    assert (shortage.shortage.asked, shortage.shortage.device_free) == (50 * MIB, 40 * MIB)
    assert (shortage.shortage.reserved, shortage.shortage.largest) == (60 * MIB, 18 * MIB)
    assert shortage.tried["expandable_segments:True"].fits and shortage.tried["expandable_segments:True"].reserved == 100 * MIB
    assert not shortage.tried["max_split_size_mb:128"].fits and not shortage.tried["the same, started empty"].fits


@pytest.mark.parametrize(
    ("frames", "released", "kept", "expected"),
    [
        ([("convert", "/x/torch/nn/modules/module.py")], "", True, "parameters and buffers"),
        ([("_init_group", "/x/torch/optim/adam.py"), ("step", "/x/torch/optim/adam.py")], "", False, "optimizer state"),
        ([("_multi_tensor_adam", "/x/torch/optim/adam.py")], "", False, "optimizer step"),
        ([("forward", "/x/torch/nn/modules/conv.py"), ("_call_impl", "/x/torch/nn/modules/module.py")], "", False, "activations"),
        ([("_engine_run_backward", "/x/torch/autograd/graph.py")], "", False, "backward"),
        ([("_engine_run_backward", "/x/torch/autograd/graph.py")], "", True, "gradients"),
        ([], "zero_grad", False, "gradients"),
        ([], "", False, "backward"),
        ([("at::cuda::getNewWorkspace()", "??"), ("forward", "net.py")], "", True, "workspace"),
        ([("to", "/x/torch/utils/data/dataloader.py")], "", False, "inputs"),
        ([("main", "train.py")], "", False, "other"),
    ],
)
def test_categories_are_inferred_from_frames_and_lifetimes(frames: list[tuple[str, str]], released: str, kept: bool, expected: str) -> None:
    data = cuda_snapshot([], NO_ROOM[:3], title="frames")
    trace = data["device_traces"][0]
    trace[1]["frames"] = [{"name": n, "filename": f, "line": 7} for n, f in frames]
    trace[4]["frames"] = [{"name": released, "filename": "optimizer.py", "line": 1}] if released else []
    history = read_histories(pickle.dumps(data), "test")[0]
    begun = next(i for i, e in enumerate(history.entries) if e.action == "alloc")
    ended = next(i for i, e in enumerate(history.entries) if e.action == "free_requested")
    life = Lifetime(begun, None if kept else ended, 40 * MIB, 40 * MIB, 0, history.entries[begun].stack)
    assert category(history, life) == expected


def test_a_block_is_placed_by_the_innermost_line_that_tells_something() -> None:
    own, library = Frame("step", "/home/me/train.py", 7), Frame("forward", "/x/site-packages/torch/nn/modules/conv.py", 3)
    empty = Frame("at::native::empty_cuda(c10::ArrayRef<long>)", "??", 0)
    kernel = Frame("at::native::cudnn_convolution_backward(at::Tensor)", "??", 0)
    node = Frame("torch::autograd::generated::ConvolutionBackward0::apply(std::vector<at::Tensor>)", "??", 0)
    assert where((empty, library, own)) == "train.py:7 step"
    assert where((empty, library)) == "conv.py:3 forward"
    assert where((empty, kernel, node)) == "ConvolutionBackward0 > cudnn_convolution_backward"
    assert where(()) == ""


# the file ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_is_what_pickle_reads(protocol: int) -> None:
    value = {"a": [1, -5, 1 << 40, -(1 << 70), True, False, None, 1.5], "é": ("x", (), [[]], {"k": {}}), "s": ["same"] * 3, "l": "x" * 300}
    assert unpickled(pickle.dumps(value, protocol), "test") == value
    data = ours()[0]
    assert unpickled(pickle.dumps(data, protocol), "test") == data


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("run",))


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "empty"),
        (b"PK\x03\x04archive", "TUPLE|opcode|not a pickle"),
        (pickle.dumps(_Evil()), "opcode STACK_GLOBAL at byte .* names code to run"),
        (pickle.dumps(_Evil(), 0), "opcode GLOBAL at byte .* names code to run"),
        (pickle.dumps({"segments": {1, 2}}), "opcode EMPTY_SET at byte .* is no plain data"),
        (b"\x80\x04]" + b"(" * 60, "nested deeper than 40"),
        (b"\x80\x04\x8d" + struct.pack("<Q", 1 << 40), "cut short"),
        (b"\x80\x04]r\xff\xff\xff\xff.", "nothing was allocated"),
        (b"\x80\x04h\x07.", "not a pickle that torch wrote"),
        (b"L" + b"9" * 5000 + b"L\n.", "more than 24 digits"),
        (b"\x80\x09N.", "protocol 9"),
        (b'{"segments": []}', "JSON, not a pickle"),
        (pickle.dumps([1, 2]), "a dict is expected"),
        (pickle.dumps({"state_dict": {}}), "no segments"),
        (pickle.dumps({"segments": [], "device_traces": [[]]}), "nothing was allocated"),
        (pickle.dumps({"segments": [{"address": 1}]}), r"segments\[0\].total_size"),
        (pickle.dumps({"segments": [{"address": 0, "total_size": 5, "blocks": []}]}), "its blocks are 0 bytes"),
        (pickle.dumps({"segments": [{"address": 0, "total_size": 0, "blocks": []}]}), "a segment without bytes"),
        (pickle.dumps({"segments": [], "device_traces": [[{"action": "alloc", "addr": -1}]]}), "whole number"),
        (pickle.dumps({"segments": [], "device_traces": [[{"action": "alloc", "size": 1}]]}), r"\[0\]\[0\].addr"),
        (pickle.dumps({"segments": [], "device_traces": [[{"action": "alloc", "addr": 1}]]}), r"\[0\]\[0\].size"),
        (pickle.dumps({"segments": [], "device_traces": [[{"action": "alloc", "addr": 1, "size": 1, "frames": [3]}]]}), "frames"),
    ],
)
def test_what_is_no_history_is_refused_in_one_line(raw: bytes, words: str) -> None:
    with pytest.raises(FileError, match=words) as caught:
        read_histories(raw, "snapshot.pickle")
    assert "\n" not in str(caught.value) and str(caught.value).startswith("snapshot.pickle")


def test_a_file_cut_anywhere_is_refused_or_read_but_never_fails_otherwise() -> None:
    whole = pickle.dumps(ours()[1])
    for stop in range(0, len(whole), len(whole) // 60):
        with pytest.raises(FileError):
            read_histories(whole[:stop], "cut")
    for at in range(0, len(whole), len(whole) // 400):
        broken = bytearray(whole)
        broken[at] ^= 0x5A
        try:
            for history in read_histories(bytes(broken), "broken"):
                retrace(history)
        except MemestError:
            pass


def test_a_list_that_a_file_names_again_and_again_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memest.sources.snapshots.reading.MAX_ROWS", 50_000)
    row = {"address": 0, "total_size": 512 * 1000, "blocks": [{"size": 512, "state": "inactive"}] * 1000}
    raw = pickle.dumps({"segments": [row] * 1000})
    assert len(raw) < 10_000
    with pytest.raises(FileError, match="more than 50,000 segments, blocks, events and frames"):
        read_histories(raw, "laughs")


def test_older_and_foreign_forms_are_read() -> None:
    new = ours()[1]
    old = copy.deepcopy(new)
    for s in old["segments"]:
        for key in ("segment_pool_id", "is_expandable", "requested_size", "frames"):
            s.pop(key, None)
        for b in s["blocks"]:
            b["history"] = [{"addr": b.pop("address"), "real_size": b.pop("requested_size"), "frames": b.pop("frames")}]
            b["state"] = b["state"].replace("awaiting", "pending")
    for e in old["device_traces"][0]:
        for key in ("pool_id", "time_us", "frames"):
            e.pop(key, None)
    for key in set(old) - {"segments", "device_traces"}:
        del old[key]
    found = traced(old)
    assert found.placed == found.allocations == traced(new).allocations and found.layout
    assert read_histories(pickle.dumps(new["segments"]), "a list")[0].reserved == read_histories(pickle.dumps(new), "new")[0].reserved


def test_settings_of_a_file_are_the_replays() -> None:
    settings = {h.settings for d in ours() for h in read_histories(pickle.dumps(d), "test")}
    assert read_settings("max_split_size_mb:40").max_split_size in {s.max_split_size for s in settings}
    assert {s.divisions[0] for s in settings} >= {0, 4} and {s.large_segment_size // MIB for s in settings} >= {12, 20, 32}


def test_devices_are_chosen_and_a_file_without_events_says_how_to_record() -> None:
    data = ours()[4]
    two = {**data, "device_traces": [[], data["device_traces"][0]], "segments": [{**s, "device": 1} for s in data["segments"]]}
    (history,) = read_histories(pickle.dumps(two), "two")
    assert history.device == 1 and chosen((history,), None, "two") is history
    with pytest.raises(MemestError, match="nothing on device 3; there is 1"):
        chosen((history,), 3, "two")
    bare = read_histories(pickle.dumps({"segments": data["segments"]}), "bare")
    with pytest.raises(FileError, match=r"bare: no history, only the \d+ segments .*_record_memory_history"):
        chosen(bare, None, "bare")


# the command -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """A history that ends without room."""
    path = tmp_path / "full.pickle"
    path.write_bytes(cuda_history([], NO_ROOM, title="full", capacity=100 * MIB))
    return path


def test_the_command_counts_the_records_of_actions_it_does_not_know(full: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = pickle.loads(full.read_bytes())
    data["device_traces"][0] += [{"action": "user_defined"}, {"action": "teleport"}, {"action": "teleport"}]
    full.write_bytes(pickle.dumps(data))
    assert main(["snapshot", str(full)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "passed over, an action not known here: 2 records of 'teleport'" in text and "user_defined" not in text


def test_the_command_explains_a_history(full: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["snapshot", str(full)]) == 0
    text = capsys.readouterr().out
    for words in ("44.00 MiB", "3 of 3 allocations at their recorded address", "Out of memory", "expandable_segments:True", "inferred"):
        assert words in text
    assert main(["snapshot", str(full), "--format", "json", "--top", "1"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["peak"]["allocated"] == 44 * MIB and data["replay"]["placed"] == 3 and len(data["largest"]) == 1
    assert data["out_of_memory"][0]["tried"]["expandable_segments:True"] == {"reserved": 100 * MIB, "fits": True}
    assert main(["snapshot", str(full), "--format", "csv"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "bytes,asked,category,asked for at,event"


def test_where_a_card_is_too_small_no_setting_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "small.pickle"
    path.write_bytes(cuda_history([], [request(60, 1), request(50, 2)], title="small", capacity=100 * MIB))
    assert main(["snapshot", str(path), "--format", "markdown"]) == 0
    assert "nothing: 10.00 MiB more than the card has" in capsys.readouterr().out


def test_the_command_refuses_in_one_line(full: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = tmp_path / "hostile.pickle"
    hostile.write_bytes(pickle.dumps(_Evil()))
    for arguments, code, words in (
        ([str(hostile)], 3, "names code to run"),
        ([str(tmp_path / "none.pickle")], 3, "cannot be read"),
        ([str(tmp_path)], 3, "cannot be read"),
        ([str(full), "--device", "2"], 2, "nothing on device 2"),
    ):
        assert main(["snapshot", *arguments]) == code
        captured = capsys.readouterr()
        assert words in captured.err and captured.err.count("\n") == 1 and not captured.out


# writing -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "expandable_segments:True", "max_split_size_mb:20"])
def test_a_replayed_stream_is_written_as_torch_would_record_it(text: str) -> None:
    standing = [Storage(100 + n, n * 700_000, "parameters", "layer", "", "a parameter") for n in range(5)]
    data = cuda_snapshot(standing, NO_ROOM, read_settings(text), title="a step")
    found = traced(data)
    assert found.placed == found.allocations == 8 and found.layout and not found.began_with
    trace = data["device_traces"][0]
    assert {e["action"] for e in trace} >= {"alloc", "free_requested", "free_completed", "snapshot"}
    assert [f["name"] for f in trace[-2]["frames"]] == ["linear", "kept", "activations", "forward"]
    assert sum(s["total_size"] for s in data["segments"]) == found.reserved


def test_torch_reads_what_is_written() -> None:
    pytest.importorskip("torch")
    from torch.cuda import _memory_viz as viz

    for text in ("", "expandable_segments:True"):
        data = unpickled(cuda_history([], NO_ROOM, read_settings(text), title="a step", capacity=100 * MIB), "test")
        assert f"segments: {len(data['segments'])}\n" in viz.segsum(data)
        assert ("OutOfMemoryError" in viz.trace(data)) == (not text)
        assert "snapshot.pickle" in viz.trace_plot(data) and "snapshot.pickle" in viz.segment_plot(data)
        lines = viz.memory(data, lambda text: text).splitlines()
        assert sum(int(line.rpartition(" ")[2]) for line in lines) == sum(s["total_size"] for s in data["segments"])
