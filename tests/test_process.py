"""What a process on a card holds besides what torch's allocator reserved: reports with sources, scaled to cards that have none."""

from __future__ import annotations

import json

import pytest

from memest.errors import UsageError
from memest.machines.devices import device_named, devices, gpu_of
from memest.machines.gpu import Device, Gpu
from memest.machines.reading import hardware_named
from memest.memory.figure import exact, modelled, unknown
from memest.memory.process import DATA, allocatable, cuda_context, cuda_process, reports, scaled

MIB = 2**20


def _device(name: str) -> Device:
    found = device_named(name)
    assert found is not None
    return found


def test_every_report_is_of_a_known_card_and_says_where_it_is_from() -> None:
    raw = json.loads(DATA.read_text())
    assert raw["how"] and all(row["source"] for part in ("contexts", "eager", "nccl") for row in raw[part])
    addressed = [r for r in reports() if r.source.startswith("https://")]
    assert len(reports()) == len(raw["contexts"]) and len(addressed) * 2 > len(reports())
    assert all(30 * MIB < r.nbytes < 1024 * MIB and 0 <= r.unsure < 16 * MIB for r in reports())


def test_a_report_is_what_the_message_says_less_what_torch_had() -> None:
    (four,) = [r for r in reports() if r.source.endswith("CatVTON/issues/133")]
    assert four.device.title == "Tesla T4" and four.nbytes == pytest.approx((4.11 - 3.72) * 2**30 - 264.21 * MIB, abs=2)


def test_reports_of_other_cards_foretell_a_card() -> None:
    """Each card's reports against those of all other cards: most lie in the range that follows from them."""
    within = 0
    for report in reports():
        others = [r for r in reports() if r.device != report.device]
        low, _, high = scaled(others, report.device.multiprocessors * report.device.threads_per_multiprocessor)
        within += low <= report.nbytes + report.unsure and report.nbytes - report.unsure <= high
    assert within >= 0.85 * len(reports())


@pytest.mark.parametrize("name", devices())
def test_the_range_holds_what_is_expected_and_every_report_of_the_card(name: str) -> None:
    device = devices()[name]
    found = cuda_context(device)
    assert found.claim == "modelled" and found.bytes is not None and found.low is not None and found.high is not None
    assert 0 < found.low <= found.bytes <= found.high
    assert all(found.low <= r.nbytes <= found.high for r in reports() if r.device == device)


def test_a_larger_card_has_a_larger_context_and_reports_of_its_own_count_most() -> None:
    small, large = cuda_context(_device("rtx-3060-12gb")), cuda_context(_device("h100-80gb"))
    assert small.bytes is not None and large.bytes is not None and small.bytes < large.bytes
    assert "public reports of 17 cards" in large.reason and "this card" not in large.reason
    t4 = cuda_context(_device("t4"))
    assert "5 public reports of this card" in t4.reason and t4.bytes == sorted(r.nbytes for r in reports() if r.device == _device("t4"))[2]


def test_eager_loading_and_nccl_take_more() -> None:
    device = _device("a100-40gb")
    lazy, eager, nccl = cuda_context(device), cuda_context(device, eager=True), cuda_context(device, libraries=["nccl"])
    for more, words in ((eager, "all kernels loaded at once"), (nccl, "NCCL's buffers")):
        for one, other in zip((lazy.low, lazy.bytes, lazy.high), (more.low, more.bytes, more.high), strict=True):
            assert one is not None and other is not None and other - one >= 350 * MIB
        assert words in more.reason
    with pytest.raises(UsageError, match=r"unknown library 'ncl'; did you mean 'nccl'\?"):
        cuda_context(device, libraries=["ncl"])


def test_the_process_is_the_sum_and_what_is_reserved_may_have_a_range_of_its_own() -> None:
    device = _device("h100-80gb")
    context = cuda_context(device)
    assert context.bytes is not None and context.low is not None and context.high is not None
    for reserved in (exact(5 * 2**30, "played"), modelled(5 * 2**30, 4 * 2**30, 6 * 2**30, "a rule")):
        assert reserved.bytes is not None and reserved.low is not None and reserved.high is not None
        found = cuda_process(reserved, device)
        assert (found.low, found.bytes, found.high) == (
            reserved.low + context.low,
            reserved.bytes + context.bytes,
            reserved.high + context.high,
        )
        assert found.claim == "modelled" and "nvidia-smi shows the sum" in found.reason and "public reports" in found.reason
    nothing = cuda_process(unknown("nothing is played"), device)
    assert nothing.bytes is None and nothing.claim == "unknown" and "nothing is played" in nothing.reason


@pytest.mark.parametrize(
    ("name", "reserved"),
    [("t4", 12.84 + 1.26), ("v100-32gb", 30.16 + 1.16), ("h200-141gb", 138.59 + 508.12 / 1024), ("rtx-5090", 30.74 + 19.41 / 1024)],
)
def test_what_cudamalloc_can_hand_out_is_what_cards_were_seen_to_give(name: str, reserved: float) -> None:
    """GiB that torch held when these cards were full to the last 100 MiB or so, or 344 MiB (T4)."""
    found = allocatable(gpu_of(hardware_named(name)))
    assert found.low is not None and found.bytes is not None and found.high is not None and found.low < found.bytes < found.high
    assert reserved * 2**30 <= found.high
    assert found.low <= (reserved + 0.5) * 2**30


def test_a_card_without_description_is_not_guessed_at() -> None:
    found = allocatable(gpu_of(hardware_named("mi300x")))
    assert found.bytes is None and "mi300x" in found.reason
    tiny = allocatable(Gpu(name="tiny", memory_bytes=MIB, device=_device("t4")))
    assert (tiny.low, tiny.bytes, tiny.high) == (0, 0, 0)
