"""Sweeps equal one-by-one estimates to the byte, past 2**63 too, and refuse what they cannot do."""

from __future__ import annotations

import json
import pickle
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import memest
from memest.cli.app import main
from memest.errors import UsageError
from memest.planning import peaks as finding
from memest.planning import product, written
from memest.planning import replayed as replaying
from memest.planning import sweep as sweeping
from memest.sizes.dims import parse_guard

SMALL = "unet2d:base_filters=4,levels=2"
NETWORKS: dict[str, dict[str, Any]] = {
    "resnet18": {"batch": [1, 2, 3, 8, 33], "H": [33, 64, 97, 224], "W": [40, 64]},
    "mobilenet_v2": {"batch": [1, 4], "spatial": [64, 96, 129]},
    "vgg11": {"batch": range(1, 4), "spatial": [64, 224]},
    "unet3d:base_filters=8,levels=3": {"batch": [1, 2, 3, 5, 8], "D": range(8, 33, 8), "H": [8, 24], "W": range(8, 65, 8)},
    "densenet121": {"batch": 3, "H": range(64, 100, 5), "W": range(64, 300, 7)},
}


@pytest.fixture(autouse=True)
def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small sweeps go the way of large ones."""
    monkeypatch.setattr(finding, "FEW", 0)


def alone(graph: memest.Graph, row: dict[str, Any], **how: Any) -> memest.Estimate:
    shape = tuple(d if isinstance(d, int) else row["batch" if i == 0 else str(d)] for i, d in enumerate(graph.inputs[0].shape))
    return memest.estimate(graph, input_shape=shape, **how)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("mode", ["train", "infer"])
def test_a_sweep_is_its_estimates(name: str, mode: str) -> None:
    how = {"mode": mode, "loss": "binary_cross_entropy" if "unet3d" in name else "cross_entropy"}
    found = memest.sweep(memest.model(name), **NETWORKS[name], **how)
    rows = list(found.rows())
    assert len({len(c) for c in found.values()}) == 1 and found.points == len(rows) > 5
    fresh = memest.model(name)
    for row in random.Random(1).sample(rows, 6):
        est = alone(fresh, row, **how)
        assert (est.standing_bytes, est.peak_bytes) == (row["standing_bytes"], row["peak_bytes"]), row


def layered(*layers: tuple[str, dict[str, Any]], dims: int = 2, channels: int = 16) -> memest.Graph:
    """A chain of layers that ends in ten classes."""
    b = memest.Builder("net")
    x = b.input("input", ("N", channels, *("D", "H", "W")[-dims:]))
    for op, settings in layers:
        x = b.layer(op, x, **settings)
    x = b.layer("flatten", b.layer(f"adaptive_avg_pool{dims}d", x, output_size=1), start_dim=1)
    return b.build(b.layer("linear", x, out_features=10))


SHRINKS = ("conv_transpose3d", {"out_channels": 8, "kernel_size": 1})  # its result stays in a storage as large as the input
CHAINS: dict[str, tuple[memest.Graph, list[dict[str, Any]]]] = {
    "convolutions": (
        layered(
            ("conv2d", {"out_channels": 24, "kernel_size": 3, "stride": 2, "padding": 1}),
            ("relu", {}),
            ("conv2d", {"out_channels": 24, "kernel_size": 3, "padding": 1, "groups": 24}),
            ("conv2d", {"out_channels": 32, "kernel_size": 1, "bias": False}),
        ),
        [{"batch": [1, 2, 3, 4, 8, 17], "H": [16, 21, 32], "W": [16, 40]}],
    ),
    "matrices": (
        layered(*[("conv2d", {"out_channels": 1, "kernel_size": 1})] * 2),
        [{"batch": [*range(1, 9), 64, 100, 1024], "spatial": 8}],
    ),
    "volumes": (
        layered(SHRINKS, ("conv3d", {"out_channels": 10, "kernel_size": 3, "stride": 2, "padding": 1}), dims=3),
        [{"batch": [1, 2, 15, 16, 33], "D": [4, 9], "H": [8, 12], "W": [6]}],
    ),
    "enormous": (
        layered(("conv3d", {"out_channels": 16, "kernel_size": 7, "padding": 3}), dims=3),
        [{"batch": [1, 2**20], "spatial": [300, 90]}],
    ),
}
HOW: list[dict[str, Any]] = [
    {},
    {"levers": ["autocast"]},
    {"levers": ["autocast:dtype=float16", "channels_last"]},
    {"dtype": "bfloat16"},
    {"dtype": "float16", "mode": "infer"},
    {"levers": ["channels_last"]},
    {"dtype": "float64"},
]
CPUS = [
    memest.Cpu(isa="avx512", bf16=True, threads=1),
    memest.Cpu(isa="avx512", bf16=True, threads=8),
    memest.Cpu(isa="avx2", threads=1),
    memest.Cpu(isa="avx2", threads=2),
]


HOW_AND_WHERE = [  # one processor for each way by default
    pytest.param(how, cpu, id=f"{how}-{cpu.isa}-{cpu.threads}", marks=() if (i - j) % len(CPUS) == 0 else pytest.mark.slow)
    for i, how in enumerate(HOW)
    for j, cpu in enumerate(CPUS)
]


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize(("how", "cpu"), HOW_AND_WHERE)
def test_dtypes_levers_and_processors_change_nothing_about_that(name: str, how: dict[str, Any], cpu: memest.Cpu) -> None:
    graph, (axes,) = CHAINS[name]
    found = list(memest.sweep(graph, **axes, **how, machine=cpu, invalid="skip").rows())
    fresh = graph.with_()
    assert found
    for row in random.Random(2).sample(found, min(len(found), 5)):
        assert alone(fresh, row, **how, machine=cpu).peak_bytes == row["peak_bytes"], row


def test_a_fit_with_autocast_is_the_largest() -> None:
    graph = memest.model("vgg11", num_classes=10)
    cpu = memest.Cpu(isa="avx512", bf16=True, threads=2)
    found = memest.fit(graph, "1200MiB", H=32, W=32, levers=["autocast"], machine=cpu)
    assert found.value is not None and found.value > 1
    for batch, peak in ((found.value, found.peak_bytes), (found.value + 1, found.next_bytes)):
        assert memest.estimate(graph, input_shape=(batch, 3, 32, 32), levers=["autocast"], machine=cpu).peak_bytes == peak


def test_optimizers_losses_and_modes_are_axes_too() -> None:
    graph = memest.model(SMALL)
    found = memest.sweep(graph, batch=[2, 3], spatial=16, optimizer=["sgd", "adam"], mode=["train", "infer"])
    assert found.points == 8 and list(found)[:3] == ["batch", "H", "W"]
    for row in found.rows():
        assert alone(graph, row, optimizer=row["optimizer"], mode=row["mode"]).peak_bytes == row["peak_bytes"]


def test_the_order_is_that_of_the_product() -> None:
    found = memest.sweep(memest.model("resnet18"), batch=[2, 1], H=[64, 65], W=[64])
    assert list(zip(found["batch"].tolist(), found["H"].tolist(), strict=True)) == [(2, 64), (2, 65), (1, 64), (1, 65)]


def test_numbers_past_64_bits_are_exact() -> None:
    graph = memest.model("resnet18")
    found = memest.sweep(graph, batch=[8, 2**31 - 1], H=[64, 10**6], W=[10**6])
    assert found["peak_bytes"].dtype == object and max(found["peak_bytes"]) > 2**63
    for row in found.rows():
        assert alone(graph, row).peak_bytes == row["peak_bytes"]


def test_a_few_sizes_are_played_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "FEW", 12)
    graph = memest.model("resnet18")
    found = memest.sweep(graph, batch=[1, 2, 4], H=[33, 64], W=[64])
    assert not any(pieces.known for pieces in graph.memo.shelf("pieces", 1).values())
    assert all(alone(memest.model("resnet18"), row).peak_bytes == row["peak_bytes"] for row in found.rows())


def test_parts_are_the_whole() -> None:
    graph = memest.model(SMALL)
    axes: dict[str, Any] = {"batch": range(1, 8), "spatial": [16, 32, 48]}
    parts = list(memest.sweeps(graph, at_once=4, **axes))
    whole = memest.sweep(graph, **axes)
    assert len(parts) > 3 and np.concatenate([p["peak_bytes"] for p in parts]).tolist() == whole["peak_bytes"].tolist()


@pytest.mark.parametrize("part", [1, 7, 1000])
def test_a_whole_made_of_parts_is_the_same(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are skipped, columns of names, and a column that leaves int64 on the way."""
    graph = memest.model(SMALL)
    axes: dict[str, Any] = {"batch": [1, 2, 2**31 - 1, 3], "H": [16, 17, 2**20, 18], "W": [16, 2**20], "mode": ["train", "infer"]}
    whole = memest.sweep(graph, **axes, invalid="skip")
    monkeypatch.setattr(product, "PART", part)
    found = memest.sweep(graph, **axes, invalid="skip")
    assert found == whole and found["peak_bytes"].dtype == object and 17 not in found["H"]


def test_a_sweep_that_does_not_fit_is_refused_at_once() -> None:
    graph = memest.model(SMALL)
    axes: dict[str, Any] = {"batch": range(1, 10**6), "spatial": range(16, 512, 4)}
    with pytest.raises(UsageError, match=r"123,999,876 points take about 2.16 GiB .* 1.00 GiB may be used.*memest.sweeps.*memory="):
        memest.sweep(graph, **axes, memory="1GiB")
    assert memest.sweep(graph, batch=range(1, 4), spatial=16, memory=3 * 96).points == 3
    with pytest.raises(UsageError, match="3 points take about 288 B"):
        memest.sweep(graph, batch=range(1, 4), spatial=16, memory=3 * 96 - 1)


def test_the_command_counts_what_it_holds_and_writes_the_rest_as_it_comes(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sweep", SMALL, "--axis", "batch=1..1000", "--axis", "H=W=16..64:4", "--memory"]
    assert main([*command, "2MiB"]) == 0
    assert "13,000 configurations" in capsys.readouterr().out
    assert main([*command, "64KiB"]) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and "13,000 points take about" in err and "--memory" in err
    assert main([*command, "64KiB", "--format", "csv"]) == 0
    assert capsys.readouterr().out.count("\n") == 13_001


LIMITED = """
import resource
import memest
from memest.sizes.interpreter import available_bytes

graph = memest.model("unet2d:base_filters=4,levels=2")
memest.sweep(graph, batch=range(1, 40), spatial=[16, 20])
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, used + 2**30))
assert available_bytes() <= 2**30
for how in ({}, {"memory": "1TiB"}):
    try:
        memest.sweep(graph, batch=range(1, 10**6), spatial=range(16, 3000, 4), **how)
    except memest.UsageError as e:
        print(e)
"""


@pytest.mark.slow
def test_a_limit_of_the_process_is_seen_before_and_met_in_words() -> None:
    """The second time more is allowed than there is."""
    done = subprocess.run([sys.executable, "-c", LIMITED], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert "points take about 11.43 GiB" in first and "1.00 TiB may be used" in second


MEASURED = """
import resource
import memest

graph = memest.model("unet2d:base_filters=4,levels=2")
memest.sweep(graph, batch=range(1, 40), spatial=[16, 20])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = memest.sweep(graph, batch=range(1, 50_001), spatial=range(16, 256, 4))
print(found.points, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.slow
def test_a_sweep_takes_what_it_says() -> None:
    done = subprocess.run([sys.executable, "-c", MEASURED], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True)
    points, grown = map(int, done.stdout.split())
    assert points == 3_000_000 and grown <= 16 * points + product.WORKING * points // product.PART


TRACED = """
import sys
import tracemalloc
import memest
from memest.planning import product

graph, cpu = memest.model("resnet50"), memest.Cpu(isa="avx512", bf16=True, threads=1)
memest.sweep(graph, cpu=cpu, batch=range(1, 9), H=range(161, 200), W=range(161, 170))
tracemalloc.start()
found = memest.sweep(graph, cpu=cpu, batch=range(1, 65), H=range(161, 289), W=range(161, 289))
print(found.points, *tracemalloc.get_traced_memory())
del found
product.PART = 1 << 16
for batch in (range(1, 17), range(1, 65)):
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    memest.sweeps(graph, cpu=cpu, batch=batch, H=range(161, 289), W=range(161, 225)).write(sys.argv[1])
    print(128 * 64 * len(batch), tracemalloc.get_traced_memory()[1] - before)
"""


@pytest.mark.slow
def test_a_point_takes_sixteen_bytes_and_no_more_than_forty_on_the_way(tmp_path: Path) -> None:
    """A file that is written takes as much for half a million points as for a quarter of them."""
    file = tmp_path / "peaks.csv"
    command = [sys.executable, "-c", TRACED, str(file)]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True)
    (points, kept, most), (fewer, some), (more, as_much) = (map(int, line.split()) for line in done.stdout.splitlines())
    assert points == 1 << 20 and kept < 17 * points and most <= 40 * points
    assert more == 4 * fewer and as_much < 1.1 * some < 40 * 2**20
    assert sum(1 for _ in file.open()) == more + 1


def test_sizes_that_cannot_run_are_named_or_left_out() -> None:
    graph = memest.model(SMALL)
    with pytest.raises(UsageError, match="cannot run at batch=1, H=17"):
        memest.sweep(graph, batch=1, H=[16, 17], W=16)
    found = memest.sweep(graph, batch=1, H=[16, 17, 18, 32], W=16, invalid="skip")
    assert found["H"].tolist() == [h for h in (16, 17, 18, 32) if h % 2 == 0]


AXES: dict[str, Any] = {"batch": range(1, 8), "H": [16, 17, 18, 2**20], "W": [18, 16], "mode": ["train", "infer"]}


def test_columns_are_the_product_wherever_they_are_cut() -> None:
    """Sizes and names are not written out; rows that are skipped are not there."""
    graph = memest.model(SMALL)
    found = memest.sweep(graph, **AXES, invalid="skip")
    rows = [(n, h, w, mode) for n in AXES["batch"] for h in AXES["H"] if h != 17 for w in AXES["W"] for mode in AXES["mode"]]
    assert list(zip(*(found[name].tolist() for name in ("batch", "H", "W", "mode")), strict=True)) == rows
    for length in (1, 5, 1000):
        blocks = list(found.blocks(length))
        for name, column in found.items():
            assert np.concatenate([b[name] for b in blocks]).tolist() == column.tolist(), name
    assert all(
        np.array_equal(column[part], found[name][part])
        for name, column in found.columns.items()
        for part in (slice(3), slice(-3, None), slice(2, 40, 7))
    )


def test_writing(tmp_path: Path) -> None:
    graph = memest.model(SMALL)
    found = memest.sweep(graph, **AXES, invalid="skip")
    lines = found.to_csv().splitlines()
    assert lines[0] == "batch,H,W,mode,standing_bytes,peak_bytes" and len(lines) == found.points + 1
    assert lines[1:] == [",".join(map(str, row.values())) for row in found.rows()]
    plain = {name: c.tolist() for name, c in found.items()}
    assert json.loads(found.to_json()) == {"torch": found.torch.to_dict(), "columns": plain}
    for name in ("peaks.csv", "peaks.json"):
        found.write(tmp_path / name)
        whole = (tmp_path / name).read_text()
        assert whole == (found.to_csv() if name.endswith("csv") else found.to_json())
        memest.sweeps(graph, at_once=5, **AXES, invalid="skip").write(tmp_path / name)
        assert (tmp_path / name).read_text() == whole


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_tables(tmp_path: Path, suffix: str) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    graph, file = memest.model(SMALL), tmp_path / f"peaks.{suffix}"
    found = memest.sweep(graph, **AXES, invalid="skip")
    for write in (found.write, memest.sweeps(graph, at_once=5, **AXES, invalid="skip").write):
        write(file)
        table = parquet.read_table(file) if suffix == "parquet" else pa.ipc.open_file(file).read_all()
        assert table.to_pydict() == {name: c.tolist() for name, c in found.items()}
        assert json.loads(table.schema.metadata[b"torch"]) == found.torch.to_dict()
    large = memest.sweep(memest.model("resnet18"), batch=[8, 2**31 - 1], H=10**6, W=10**6)
    with pytest.raises(UsageError, match=r"standing_bytes goes past 2\*\*63|peak_bytes goes past 2\*\*63"):
        large.write(file)
    assert main(["sweep", SMALL, "--axis", "batch=1..3", "--axis", "H=W=16", "--output", str(file)]) == 0


def test_tables_need_a_library_and_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    graph, file = memest.model(SMALL), tmp_path / "peaks.parquet"
    with pytest.raises(UsageError, match=r"need pyarrow; pip install pyarrow, or write .csv or .json"):
        memest.sweeps(graph, batch=range(1, 10**6), spatial=range(16, 10**6, 4)).write(file)
    with pytest.raises(UsageError, match=r"the suffix says how it is written: \.csv, \.json, \.parquet, \.arrow"):
        memest.sweeps(graph, batch=1, spatial=16).write(tmp_path / "peaks.xlsx")
    command = ["sweep", SMALL, "--axis", "batch=1..3", "--axis", "H=W=16"]
    assert main([*command, "--format", "arrow"]) == 2
    assert "--output peaks.arrow" in capsys.readouterr().err
    assert main([*command, "-o", str(file)]) == 2
    assert "need pyarrow" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_what_fails_on_the_way_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(product, "PART", 2)
    parts = memest.sweeps(memest.model(SMALL), batch=1, H=[16, 18, 20, 17], W=16)
    assert next(parts).points == 2
    with pytest.raises(UsageError, match="cannot run at batch=1, H=17"):
        parts.write(tmp_path / "peaks.csv")
    assert main(["sweep", SMALL, "--axis", "batch=1", "--axis", "H=16,18,20,17", "--axis", "W=16", "--format", "csv"]) == 2
    out, err = capsys.readouterr()
    assert not list(tmp_path.iterdir()) and not out and "cannot run at batch=1, H=17" in err


def test_columns_wait_in_files_for_those_before_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(written, "IN_MEMORY", 8)
    monkeypatch.setattr(written, "READ", 3)
    found = memest.sweep(memest.model(SMALL), batch=[1, 2, 3], spatial=[16, 20], optimizer=["sgd", "adam"])
    assert json.loads(found.to_json())["columns"] == {name: c.tolist() for name, c in found.items()}


BAD: list[tuple[dict[str, Any], str]] = [
    ({"batch": [], "spatial": 16}, "no values"),
    ({"batch": [0], "spatial": 16}, "from 1 to"),
    ({"batch": [1.5], "spatial": 16}, "whole numbers"),
    ({"batch": range(10**9), "spatial": 16}, "give a step"),
    ({"batch": range(1, 10**6), "H": range(1, 10**4), "W": 16}, "memest.sweeps"),
    ({"spatial": 16}, "no values are given for batch"),
    ({"batch": 1, "H": 16}, "no values are given for W"),
    ({"batch": 1, "height": 16}, "no size 'height'"),
    ({"batch": 1, "spatial": 16, "optimizer": []}, "optimizer: give a name"),
    ({"batch": 1, "spatial": 16, "optimizer": "adan"}, "did you mean 'adam'"),
    ({"batch": 1, "spatial": 16, "invalid": "ignore"}, "'raise' or 'skip'"),
    ({"batch": 1, "H": 16, "axes": [(("H", "W"), [16])]}, "two axes"),
]


@pytest.mark.parametrize(("axes", "said"), BAD, ids=[said for _, said in BAD])
def test_bad_axes_are_refused_by_name(axes: dict[str, Any], said: str) -> None:
    with pytest.raises(memest.MemestError, match=said):
        memest.sweep(memest.model(SMALL), **axes)


def test_the_bound_on_an_axis_is_said() -> None:
    assert sweeping.MOST_VALUES >= 10**6


def test_sizes_with_a_single_value_need_not_be_given() -> None:
    """As a position embedding demands: the graph says that H is 64 and W is 96."""
    graph = memest.model(SMALL).with_(guards=(parse_guard("H == 64"), parse_guard("W == 96")))
    found = memest.sweep(graph, batch=[1, 3])
    assert [int(n) for n in found["peak_bytes"]] == [memest.estimate(graph, input_shape=(n, 3, 64, 96)).peak_bytes for n in (1, 3)]
    assert memest.fit(graph, budget=int(found["peak_bytes"][1])).value == 3


def test_a_sweep_in_parts_can_be_gone_through_again(tmp_path: Path) -> None:
    found = memest.sweeps(memest.model(SMALL), at_once=2, batch=range(1, 6), spatial=16)
    whole = [part.points for part in found]
    assert whole == [part.points for part in found] == [2, 2, 1] and next(found).points == 2
    for name in ("a.csv", "b.csv"):
        found.write(tmp_path / name)
    assert (tmp_path / "a.csv").read_text() == (tmp_path / "b.csv").read_text() and (tmp_path / "a.csv").read_text().count("\n") == 6
    assert sum(part.points for part in pickle.loads(pickle.dumps(found))) == 5
    assert next(iter(found)).get("nothing") is None and "nothing" not in next(iter(found))


def test_axes_of_the_command_are_not_lost(capsys: pytest.CaptureFixture[str]) -> None:
    for extra, words in (
        (["--axis", "batch=1", "--axis", "batch=2"], "two axes"),
        (["--axis", "batch=1,2", "--batch", "3"], "leave one of them out"),
        (["--axis", "batch=1,2", "--batch", "3", "--input", "1x16x16"], "the batch has an axis, and --batch is given too"),
        (["--axis", "batch=1", "--axis", "optimizer=sgd", "--optimizer", "adam"], "optimizer has an axis, and --optimizer is given too"),
        (["--axis", "batch=1", "--axis", "mode=train,infer", "--infer"], "mode has an axis, and --infer is given too"),
        (["--axis", "batch=1", "--axis", "optimizer=sgd", "--axis", "optimizer=adam"], "optimizer has two axes"),
        (["--axis", "batch=1,2,2"], "2 stands there twice"),
        (["--axis", "batch=1", "--axis", "optimizer=sgd,adam,sgd"], "sgd stands there twice"),
        (["--axis", "batch=1", "--axis", "optimizer=sgd,adma"], "unknown --optimizer 'adma'; did you mean 'adam'?"),
    ):
        assert main(["sweep", SMALL, "--axis", "H=W=16", "--loss", "binary_cross_entropy", *extra]) == 2
        assert words in capsys.readouterr().err
    assert main(["fit", SMALL, "--budget", "1GiB", "--input", "1x16x16", "--batch", "4"]) == 2
    assert "the batch varies, and --batch is given too" in capsys.readouterr().err


CARD: dict[str, Any] = {"machine": "a100-40gb", "torch": "2.14"}
FIGURES = ("allocated", "reserved", "process")


def test_on_a_card_every_point_has_each_figure_by_replay() -> None:
    found = memest.sweep(memest.model("resnet18"), batch=[1, 5], spatial=64, optimizer=["sgd", "adam"], **CARD)
    for row in found.rows():
        est = alone(memest.model("resnet18"), row, optimizer=row["optimizer"], **CARD)
        assert row["peak_bytes"] == row["allocated_bytes"] == est.peak_bytes
        assert row["requested_bytes"] == est.requested_bytes < row["allocated_bytes"]
        assert row["standing_bytes"] == est.standing_bytes
        for name in FIGURES:
            figure = getattr(est, name)
            given = tuple(row[f"{name}{end}_bytes"] for end in ("", "_low", "_high"))
            assert given == (figure.bytes, figure.low, figure.high)
    assert any("requested_bytes is before the allocator rounds" in note for note in found.notes)


def test_parts_of_a_replayed_sweep_are_the_whole() -> None:
    asked: dict[str, Any] = {"batch": [1, 2, 5], "spatial": [64, 96], **CARD}
    whole = memest.sweep(memest.model("resnet18"), **asked)
    parts = memest.sweeps(memest.model("resnet18"), at_once=4, **asked)
    rows = [row for part in parts for row in part.rows()]
    assert rows == list(whole.rows())
    assert list(parts.kinds) == list(whole)
    assert parts.about == whole.about


def test_sizes_that_cannot_be_are_left_out_of_a_replayed_sweep(tmp_path: Path) -> None:
    graph = memest.model("unet2d:base_filters=4,levels=2")
    asked: dict[str, Any] = {"batch": 1, "H": [16, 17, 32], "W": 16, "loss": "binary_cross_entropy", **CARD}
    with pytest.raises(UsageError, match="cannot run at batch=1, H=17"):
        memest.sweep(graph, **asked)
    found = memest.sweep(graph, invalid="skip", **asked)
    assert found["H"].tolist() == [16, 32]
    assert (found["allocated_bytes"] > found["requested_bytes"]).all()
    found.write(tmp_path / "peaks.csv")
    assert len((tmp_path / "peaks.csv").read_text().splitlines()) == 3


def test_where_points_are_many_the_bytes_asked_for_are_shown_and_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (product, replaying):
        monkeypatch.setattr(module, "MOST_REPLAYED", 3)
    found = memest.sweep(memest.model("resnet18"), batch=range(1, 5), spatial=64, **CARD)
    assert list(found)[-2:] == ["standing_bytes", "requested_bytes"]
    assert "peak_bytes" not in found
    assert "before blocks are rounded" in found.notes[0]
    assert "configurations" in repr(found)
    assert [alone(memest.model("resnet18"), row, **CARD).requested_bytes for row in found.rows()] == found["requested_bytes"].tolist()
    asked = ["sweep", "resnet18", "--axis", "batch=1..4", "--input", "3x64x64", "--on", "a100-40gb"]
    assert main(asked) == 0
    assert "4 points are more than the allocator is played at (3)" in " ".join(capsys.readouterr().out.split())
    assert main([*asked, "--format", "json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert "requested_bytes" in data["columns"]
    assert "more than the allocator is played at" in data["notes"][0]


def test_the_process_is_not_swept_in_silence() -> None:
    graph = memest.model("resnet18")
    for call in (memest.sweep, memest.sweeps):
        with pytest.raises(UsageError, match="a sweep counts a step's tensors, not the process; leave malloc out"):
            call(graph, batch=[1, 2], spatial=64, malloc="glibc")
