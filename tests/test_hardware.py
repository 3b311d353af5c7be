"""The catalogue of machines, files like it, and verdicts that add up."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest

import memest
from memest.cli.app import main
from memest.errors import FileError, UsageError
from memest.machines.claims import CUDA_ALONE, TORCH_ON_CPU, TORCH_ON_CUDA, FigureName, Source
from memest.machines.entry import Hardware, Tier
from memest.machines.reading import hardware, hardware_named, load_hardware
from memest.machines.verdicts import budget, places, verdict
from memest.memory.figure import Figures, exact, modelled, unknown

RUN = ["estimate", "resnet18", "--input", "3x64x64", "--batch", "2", "--isa", "avx2", "--threads", "1"]
PEAK = memest.estimate(
    memest.model("resnet18"), input_shape=(2, 3, 64, 64), machine=memest.Cpu.detect().with_(isa="avx2", threads=1)
).peak_bytes
OWN = """hardware:
  Lab Server:
    kind: server
    tiers:
      - {name: DRAM, bytes: 1MiB, usable: 1000KiB, basis: free}
      - {name: PMem, bytes: 1GiB}
  T4:
    kind: accelerator
    tiers: [{name: GDDR6, bytes: 16GiB}]
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.yaml"
    path.write_text(OWN)
    return path


# the catalogue -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", hardware(), ids=lambda e: e.name)
def test_every_entry_says_where_its_numbers_are_from(entry: Hardware) -> None:
    assert entry.source and entry.title != entry.name
    assert entry.name == entry.name.lower() and " " not in entry.name
    for tier in entry.tiers:
        assert tier.basis and 0.7 * tier.nbytes < tier.usable_bytes <= tier.nbytes
        assert tier.nbytes % 2**29 == 0, "memory is sold in powers of two"
        assert (tier.usable_bytes == tier.nbytes) == tier.basis.startswith("nominal")


def test_names_and_titles_are_unique() -> None:
    assert len({e.name for e in hardware()}) == len({e.title for e in hardware()}) == len(hardware())


@pytest.mark.parametrize(
    ("name", "usable"),
    [
        ("a100-40gb", (42298834944,)),
        ("A100 40GB", (42298834944,)),
        ("mi300x", (201310208 * 1024,)),
        ("server-192gb", (192 * 2**30,)),
        ("server-384gb", (384 * 2**30,)),
        ("server-1.5tb", (3 * 2**39,)),
        ("Server_7.5TB_pmem", (3 * 2**39, 12 * 502599 * 2**30 // 1000)),
    ],
)
def test_known_sizes(name: str, usable: tuple[int, ...]) -> None:
    assert tuple(t.usable_bytes for t in hardware_named(name).tiers) == usable


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a100", "did you mean 'a100-40gb' or 'a100-80gb'"),
        ("h100-80g", "'h100-80gb'"),
        ("rtx4090", "did you mean 'rtx-4090'"),
        ("", "memest hardware"),
        ("xyzzy", "memest hardware"),
    ],
)
def test_an_unknown_name(name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        hardware_named(name)


# verdicts ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", [*hardware(), budget("24GiB"), budget(1)], ids=lambda e: e.name)
def test_verdicts_add_up_and_turn_at_the_byte(entry: Hardware) -> None:
    first, whole = entry.tiers[0].usable_bytes, entry.usable_bytes
    for peak in {0, 1, first - 1, first, first + 1, whole - 1, whole, whole + 1, 3 * whole}:
        v = verdict(entry, peak)
        assert sum(u.used_bytes for u in v.tiers) + v.short_bytes == peak
        assert all(u.used_bytes + u.free_bytes == u.tier.usable_bytes and u.free_bytes >= 0 for u in v.tiers)
        assert all(not later.used_bytes or not u.free_bytes for u, later in zip(v.tiers, v.tiers[1:], strict=False)), "a tier fills first"
        assert v.outcome == v.claim.words("fits" if peak <= first else "spills" if peak <= whole else "does not fit")
        assert v.bytes_fit == (peak <= whole)
        assert v.fits is (None if entry.kind == "accelerator" else v.bytes_fit)
        assert v.headroom_bytes == max(first - peak, 0) and v.headroom_share == v.headroom_bytes / first
        assert v.spilled_bytes == min(max(peak - first, 0), whole - first)
        assert str(v).startswith(v.outcome)


CARD = Hardware(
    name="card", title="", kind="accelerator", tiers=(Tier(name="HBM", nbytes=10 * 2**30, usable_bytes=10 * 2**30, basis=""),), source=""
)
ON_CARD = replace(TORCH_ON_CUDA, card="card")
GIB = 2**30


@pytest.mark.parametrize(
    ("low", "peak", "high", "outcome", "fits", "said"),
    [
        (7, 8, 9, "fits", True, "fits in HBM: 2.00 GiB (20.0 %; 1.00 GiB to 3.00 GiB) free of 10.00 GiB"),
        (8, 9, 10, "fits", True, "fits in HBM: 1.00 GiB (10.0 %; 0 B to 2.00 GiB) free of 10.00 GiB"),
        (8, 9, 11, "depends", None, "depends: 9.00 GiB (8.00 GiB to 11.00 GiB) of 10.00 GiB"),
        (9, 11, 12, "depends", None, "depends: 11.00 GiB (9.00 GiB to 12.00 GiB) of 10.00 GiB"),
        (10, 11, 12, "depends", None, "depends: 11.00 GiB (10.00 GiB to 12.00 GiB) of 10.00 GiB"),
        (11, 12, 13, "does not fit", False, "does not fit: 2.00 GiB (1.00 GiB to 3.00 GiB) more than 10.00 GiB"),
        (8, 8, 8, "fits", True, "fits in HBM: 2.00 GiB (20.0 %) free of 10.00 GiB"),
        (12, 12, 12, "does not fit", False, "does not fit: 2.00 GiB more than 10.00 GiB"),
    ],
)
def test_a_range_on_both_sides_of_the_limit_depends(low: int, peak: int, high: int, outcome: str, fits: bool | None, said: str) -> None:
    v = verdict(CARD, peak * GIB, ON_CARD, low_bytes=low * GIB, high_bytes=high * GIB, figure="process")
    assert (v.outcome, v.fits, str(v)) == (outcome, fits, said)
    assert v.claim.decides and v.bytes_fit is (peak <= 10) and v.depends is (outcome == "depends")
    assert "the process on the card" in v.claim.compared


def test_a_peak_lies_in_its_range() -> None:
    for low, high in ((3, 4), (0, 1), (-1, 2)):
        with pytest.raises(UsageError):
            verdict(CARD, 2, low_bytes=low, high_bytes=high)


@pytest.mark.parametrize(
    ("source", "figure", "decides", "words", "missing"),
    [
        (ON_CARD, "process", True, "fits", ()),
        (TORCH_ON_CUDA, "process", True, "fits", ()),
        (ON_CARD, "reserved", False, "torch CUDA's bytes fit", ("the CUDA context",)),
        (ON_CARD, "allocated", False, "torch CUDA's bytes fit", ("the CUDA context", "the caching allocator's fragmentation")),
        (
            replace(TORCH_ON_CUDA, card="h100-80gb"),
            "process",
            False,
            "torch CUDA's bytes fit",
            ("what card's own kernels ask for (h100-80gb's are counted)",),
        ),
        (TORCH_ON_CPU, "allocated", False, "torch CPU's bytes fit", CUDA_ALONE),
        (TORCH_ON_CPU, "process", False, "torch CPU's bytes fit", CUDA_ALONE),
    ],
)
def test_on_a_card_only_the_process_that_was_played_for_it_decides(
    source: Source, figure: FigureName, decides: bool, words: str, missing: tuple[str, ...]
) -> None:
    v = verdict(CARD, GIB, source, figure=figure)
    assert (v.claim.decides, v.outcome, v.claim.missing) == (decides, words, missing)
    assert v.fits is (True if decides else None)
    assert all(m in v.claim.note for m in missing)


def test_a_budget_takes_any_bytes_and_a_server_no_cards() -> None:
    assert verdict(budget("1GiB"), 1, ON_CARD, figure="process").fits is True
    server = verdict(hardware_named("server-192gb"), 1, ON_CARD, figure="process")
    assert server.fits is None and server.claim.missing == ("what the kernels of a processor ask for",)


def test_an_estimate_gives_its_outermost_figure_with_its_range() -> None:
    found = memest.estimate(memest.model("unet2d", base_filters=4, levels=2), input_shape=(1, 3, 16, 16), mode="infer")
    v = found.on(budget("1GiB"))
    assert (v.figure, v.low_bytes, v.peak_bytes, v.high_bytes) == ("reserved", *[found.peak_bytes] * 3) and v.fits is True
    played = Figures(allocated=exact(1, ""), reserved=exact(2, ""), process=modelled(3, 2, 4, ""))
    assert played.outermost == ("process", played.process)
    assert played._replace(process=unknown("")).outermost == ("reserved", played.reserved)
    assert played._replace(process=unknown(""), reserved=unknown("")).outermost == ("allocated", played.allocated)


def test_a_budget_needs_a_unit() -> None:
    assert budget("1.5 TiB").usable_bytes == budget(3 * 2**39).usable_bytes == 3 * 2**39
    for bad in ("24", "0GiB", "-1GiB", "nan", 0, -5):
        with pytest.raises(UsageError):
            budget(bad)
    with pytest.raises(UsageError):
        verdict(budget(1), -1)


def test_places_in_the_order_given() -> None:
    mine = Hardware(name="mine", title="", kind="server", tiers=(Tier(name="DRAM", nbytes=2, usable_bytes=1, basis=""),), source="")
    assert [p.name for p in places(["t4", "mine", "T4"], "1GiB", [mine])] == ["t4", "mine", "budget 1GiB"]
    assert places() == ()


# files of one's own ------------------------------------------------------------------------------------------------------


def test_a_file_adds_and_replaces(own: Path) -> None:
    entries = load_hardware(own)
    assert hardware_named("lab-server", entries) is entries[0]
    assert entries[0].tiers[0].usable_bytes == 1000 * 1024 and entries[0].title == "Lab Server" and entries[0].source == str(own)
    assert hardware(entries)[:2] == entries and len(hardware(entries)) == len(hardware()) + 1
    assert hardware_named("t4", entries).usable_bytes == 16 * 2**30 != hardware_named("t4").usable_bytes


def test_json_and_yaml_say_the_same(own: Path, tmp_path: Path) -> None:
    import yaml

    path = tmp_path / "own.json"
    path.write_text(json.dumps(yaml.safe_load(OWN)))
    assert [e.tiers for e in load_hardware(path)] == [e.tiers for e in load_hardware(own)]


def test_the_catalogue_is_a_file_like_any_other() -> None:
    from memest.machines.reading import CATALOGUE

    assert load_hardware(CATALOGUE) == hardware()


TIER = "tiers: [{name: DRAM, bytes: 1GiB}]"
FILES = {
    "empty": ("", ("mapping",)),
    "a list": ("- a", ("mapping",)),
    "no hardware": ("{}", ("'hardware'", "missing")),
    "none": ("hardware: {}", ("line 1", "names to entries")),
    "other top": ("hardware: {a: {kind: server, " + TIER + "}}\nmachines: {}", ("line 2", "'machines'")),
    "unknown field": ("hardware:\n  a:\n    knd: server\n    " + TIER, ("line 3", "entry 'a'", "did you mean 'kind'")),
    "unknown tier field": (
        "hardware:\n  a:\n    kind: server\n    tiers:\n    - {name: DRAM, byte: 1GiB}",
        ("line 5", "entry 'a', tier 1", "did you mean 'bytes'"),
    ),
    "no kind": ("hardware:\n  a:\n    " + TIER, ("line 2", "entry 'a'", "'kind'", "missing")),
    "unknown kind": ("hardware:\n  a:\n    kind: sever\n    " + TIER, ("line 3", "did you mean 'server'")),
    "no tiers": ("hardware: {a: {kind: server, tiers: []}}", ("entry 'a'", "'tiers'")),
    "tier of text": ("hardware: {a: {kind: server, tiers: [24GiB]}}", ("entry 'a', tier 1", "mapping")),
    "no unit": ("hardware: {a: {kind: server, tiers: [{name: DRAM, bytes: 24}]}}", ("entry 'a', tier 1", "'bytes'", "no unit", "24GiB")),
    "zero": ("hardware: {a: {kind: server, tiers: [{name: DRAM, bytes: 0GiB}]}}", ("entry 'a', tier 1", "positive")),
    "a size of truth": ("hardware: {a: {kind: server, tiers: [{name: DRAM, bytes: yes}]}}", ("'bytes'", "True")),
    "usable beyond": (
        "hardware: {a: {kind: server, tiers: [{name: DRAM, bytes: 1GiB, usable: 2GiB}]}}",
        ("entry 'a', tier 1", "usable 2.00 GiB", "1.00 GiB"),
    ),
    "two tiers of one name": (
        "hardware: {a: {kind: server, tiers: [{name: D, bytes: 1GiB}, {name: D, bytes: 1GiB}]}}",
        ("tier 2", "'D' already"),
    ),
    "two entries of one name": ("hardware: {a b: {kind: server, " + TIER + "}, A-B: {kind: server, " + TIER + "}}", ("'A-B'", "'a b'")),
    "key twice": ("hardware: {a: {kind: server, kind: server, " + TIER + "}}", ("'kind'", "twice")),
    "empty title": ("hardware: {a: {kind: server, title: '', " + TIER + "}}", ("'title'", "text")),
    "number for a name": ("hardware: {3: {kind: server, " + TIER + "}}", ("name is a text", "3")),
    "a tag": ("hardware: !!python/object:os.system {}", ("tags are not allowed",)),
    "not YAML": ("hardware: {a: [", ("line 2", "column 1")),
}


@pytest.mark.parametrize("what", FILES)
def test_bad_files(what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, words = FILES[what]
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(FileError) as caught:
        load_hardware(path)
    for word in (str(path), *words):
        assert word in str(caught.value)
    assert main(["hardware", "--hardware", str(path)]) == 3
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1


def test_no_such_file(tmp_path: Path) -> None:
    for bad in (tmp_path / "nowhere.yaml", tmp_path):
        with pytest.raises(UsageError, match=bad.name):
            load_hardware(bad)


# the command line --------------------------------------------------------------------------------------------------------


def _run(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert main(list(arguments)) == code, capsys.readouterr().err
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def test_the_list_and_one_entry(capsys: pytest.CaptureFixture[str], own: Path) -> None:
    listed = json.loads(_run(capsys, "hardware", "--format", "json"))
    assert [e["hardware"] for e in listed] == [e.name for e in hardware()]
    rows = list(csv.DictReader(StringIO(_run(capsys, "hardware", "--format", "csv"))))
    assert [int(r["usable_bytes"]) for r in rows] == [t.usable_bytes for e in hardware() for t in e.tiers]
    for form in ("text", "json", "csv", "markdown"):
        assert "502.599" in _run(capsys, "hardware", "server-7.5tb-pmem", "--format", form)
    listed = json.loads(_run(capsys, "hardware", "--hardware", str(own), "--format", "json"))
    assert [e["hardware"] for e in listed][:2] == ["Lab Server", "T4"] and len(listed) == len(hardware()) + 1


@pytest.mark.parametrize(("size", "code"), [(f"{PEAK}B", 0), (f"{PEAK - 1}B", 1), ("1TiB", 0), ("1MiB", 1)])
def test_the_exit_code_of_a_budget(size: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = json.loads(_run(capsys, *RUN, "--budget", size, "--format", "json", code=code))["verdicts"]
    assert found["fits"] is (code == 0) and found["short_bytes"] == max(0, PEAK - found["usable_bytes"])
    assert found["tiers"][0]["used_bytes"] + found["short_bytes"] == PEAK


def test_a_spill_fits_and_says_so_in_all_formats(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [*RUN, "--on", "lab server", "--hardware", str(own)]
    spilled = PEAK - 1000 * 1024
    (found,) = json.loads(_run(capsys, *given, "--format", "json"))["verdicts"]
    assert (found["verdict"], found["spilled_bytes"], found["headroom_bytes"]) == ("spills", spilled, 0)
    (row,) = csv.DictReader(StringIO(_run(capsys, *given, "--format", "csv")))
    assert (row["verdict"], row["spilled_bytes"], row["peak_bytes"]) == ("spills", str(spilled), str(PEAK))
    for form in ("text", "markdown"):
        assert "spills: " in _run(capsys, *given, "--format", form)


def test_several_places_and_the_worst_one_decides(capsys: pytest.CaptureFixture[str]) -> None:
    given = [*RUN, "--device", "cpu", "--on", "t4", "--on", "server-192gb", "--budget", "1KiB"]
    rows = list(csv.DictReader(StringIO(_run(capsys, *given, "--format", "csv", code=1))))
    said = [("t4", "torch CPU's bytes fit"), ("server-192gb", "fits"), ("budget 1KiB", "does not fit")]
    assert [(r["on"], r["verdict"]) for r in rows] == said


MISSING = CUDA_ALONE
LIMITED = {
    "estimate": ["estimate", "resnet18", "--input", "3x64x64", "--batch", "2"],
    "fit": ["fit", "resnet18", "--input", "3x64x64"],
    "fit nothing": ["fit", "resnet18:num_classes=1000000", "--input", "3x64x64"],
    "front": ["fit", "unet2d:base_filters=4,levels=2", "--vary", "batch,H=W", "--step", "64"],
    "advise": ["advise", "unet2d:base_filters=4,levels=2", "--input", "3x16x16", "--batch", "2", "--infer", "--largest-batch"],
}
TINY_CARD = "hardware:\n  tiny: {kind: accelerator, tiers: [{name: VRAM, bytes: 120MiB}]}\n"


@pytest.mark.parametrize("what", LIMITED)
def test_on_an_accelerator_every_format_says_whose_bytes_and_what_is_missing(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.yaml").write_text(TINY_CARD)
    limit = ["--on", "tiny", "--hardware", str(tmp_path / "own.yaml")]
    for form in ("text", "json", "csv", "markdown"):
        main([*LIMITED[what], *limit, "--format", form])
        out = " ".join(capsys.readouterr().out.split())
        assert "torch's CPU allocator" in out and all(m in out for m in MISSING), form
        plain = out.replace('"fits"', "").replace('"fits_as_it_is"', "")
        assert not re.search(r"(?<!that )\bfits\b", plain, re.IGNORECASE), f"{form}: {out}"


@pytest.mark.parametrize("what", LIMITED)
def test_a_budget_says_whose_bytes_and_still_fits(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    if what == "fit nothing":
        pytest.skip("nothing is to fit here")
    assert main([*LIMITED[what], "--budget", "1GiB"]) == 0
    out = capsys.readouterr().out
    assert "torch's CPU allocator" in out and not any(m in out for m in MISSING) and re.search(r"\bfits\b", out, re.IGNORECASE)


def test_python_knows_whose_bytes_they_are() -> None:
    graph, card = memest.model("unet2d", base_filters=4, levels=2), hardware_named("t4")
    sizes = {"input_shape": (1, 3, 16, 16), "mode": "infer"}
    peak = memest.estimate(graph, **sizes).peak_bytes
    for found in (verdict(card, peak), memest.fit(graph, card, H=16, W=16, mode="infer"), memest.advise(graph, card, **sizes)):
        assert found.fits is None and found.bytes_fit and found.claim.missing == MISSING
        assert not found.claim.decides and "torch's CPU allocator" in found.claim.note
    for found in (verdict(budget("1GiB"), peak), memest.fit(graph, "1GiB", H=16, W=16, mode="infer"), memest.advise(graph, 2**30, **sizes)):
        assert found.fits is True and found.claim.decides and found.claim.missing == ()


def test_without_a_limit_nothing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert "verdicts" not in json.loads(_run(capsys, *RUN, "--format", "json"))
    assert "verdict" not in _run(capsys, *RUN, "--format", "csv")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--on", "a100"], "did you mean 'a100-40gb' or 'a100-80gb'"),
        (["--on", "t44"], "did you mean 't4'"),
        (["--budget", "24"], "24GiB"),
        (["--budget", "nan"], "not a size"),
        (["--budget=-1GiB"], "not a size"),
        (["--budget", "0GiB"], "positive"),
        (["--budget", "24 gigs"], "unknown unit 'gigs'"),
        (["--budget", "9" * 5000 + "B"], "not a size"),
        (["--hardware", "own.yaml"], "--on"),
        (["--on", "t4", "--hardware", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_bad_limits_are_found_before_the_model_is_opened(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["estimate", "no-such-model", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and words in captured.err and captured.err.count("\n") == 1


def test_an_unknown_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hardware", "gaudi4"]) == 2
    assert "did you mean 'gaudi" in capsys.readouterr().err


def test_the_catalogue_is_loaded_only_when_asked_for() -> None:
    code = f"""
import sys
from memest.cli.app import main
main({[*RUN, "--output", "/dev/null"]!r})
print("memest.machines.reading" in sys.modules)
main({[*RUN, "--on", "t4", "--output", "/dev/null"]!r})
print("memest.machines.reading" in sys.modules, "yaml" in sys.modules, "memest.sources.files" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "False", "False"]
