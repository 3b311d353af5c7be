"""Pictures: what is drawn is the estimate, byte for byte, and the same data give the same file."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import memest
from memest.cli import plot as plot_command
from memest.cli.app import main
from memest.estimate.estimate import Estimate
from memest.estimate.holdings import tiles_at_peak
from memest.estimate.peak import CATEGORIES
from memest.estimate.series import outline, series
from memest.planning.growth import Growth, growth
from memest.render import chart
from memest.render.palette import COLOURS, LETTERS, TERMINAL_COLOURS
from memest.render.plot import sizes, timeline, treemap
from memest.render.plot.canvas import byte_ticks, text_width
from memest.render.plot.timeline import stairs
from memest.render.plot.treemap import squarify
from memest.sizes.units import format_bytes

needs_matplotlib = pytest.mark.skipif(find_spec("matplotlib") is None, reason="matplotlib is not installed")
SHAPE = ["resnet18", "--input", "3x32x32", "--batch", "2"]
SVG = "{http://www.w3.org/2000/svg}"
CAPACITIES = [("small", 10**8), ("large", 10**9)]


@pytest.fixture(scope="module")
def step() -> Estimate:
    """A training step."""
    return memest.estimate(memest.model("resnet18"), input_shape=(2, 3, 64, 64), optimizer="adam")


@pytest.fixture(scope="module")
def grown() -> Growth:
    """A small family of peaks; side 40 does not halve four times."""
    return growth(memest.model("unet3d:base_filters=4"), (64, 32, 40), (1, 2), optimizer="adam")


def pictures(step: Estimate, grown: Growth, form: str) -> dict[str, bytes]:
    """All three."""
    return {
        "timeline": timeline.render(step, form),
        "treemap": treemap.render(step, form),
        "sizes": sizes.render(grown, CAPACITIES, form),
    }


def texts(svg: bytes) -> list[str]:
    """What an SVG says."""
    return ["".join(e.itertext()) for e in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def parts(svg: bytes, prefix: str) -> dict[str, ElementTree.Element]:
    """Groups by their id; several of a name are numbered by position."""
    found = [e for e in ElementTree.fromstring(svg).iter(f"{SVG}g") if e.get("id", "").startswith(prefix)]
    return {f"{e.get('id')}#{i}": e for i, e in enumerate(found)}


# data --------------------------------------------------------------------------------------------------------------------


def test_tiles_are_the_live_set(step: Estimate) -> None:
    for smallest in (0, 1 << 16, step.peak_bytes + 1):
        tiles = tiles_at_peak(step, smallest)
        assert sum(t.nbytes for t in tiles) == step.peak_bytes and sum(t.tensors for t in tiles) == len(step.holdings)
        assert {c: sum(t.nbytes for t in tiles if t.category == c) for c in step.by_category()} == step.by_category()
        assert all(t.nbytes >= smallest for t in tiles if t.layer)
        assert len({(t.category, t.layer) for t in tiles}) == len(tiles)
    assert not any(t.layer for t in tiles_at_peak(step, step.peak_bytes + 1))


def test_growth_is_one_estimate_after_the_other(grown: Growth) -> None:
    graph = memest.model("unet3d:base_filters=4")
    assert (grown.sides, grown.batches) == ((32, 64), (1, 2))
    for p in grown.points:
        assert p.input_shape == (p.batch, 1, p.side, p.side, p.side)
        assert p.peak_bytes == memest.estimate(graph, input_shape=p.input_shape, optimizer="adam").peak_bytes
    (refused,) = grown.refused
    assert refused.side == 40 and "layer 'cat'" in refused.reason and grown.peak_bytes(40, 1) is None


def test_largest_side_that_fits(grown: Growth) -> None:
    small, large = (p for p in grown.points if p.batch == 2)
    assert grown.largest_side(2, large.peak_bytes) == 64
    assert grown.largest_side(2, large.peak_bytes - 1) == 32
    assert grown.largest_side(2, small.peak_bytes - 1) is None


@pytest.mark.parametrize(
    ("file", "sides", "batches", "words"),
    [
        ("inputs: {x: [N, 3]}\nlayers: [relu: {in: x}]", [8], [1], "no side to vary"),
        ("inputs: {x: [2, 3, H, W]}\nlayers: [relu: {in: x}]", [8], [1], "fixed at 2"),
        ("inputs: {x: [N, 3, H, W]}\nlayers: [relu: {in: x}]", [], [1], "at least one"),
        ("inputs: {x: [N, 3, H, W]}\nlayers: [relu: {in: x}]", range(1, 1001), range(1, 1001), "10,000 points"),
        ("inputs: {x: [N, 3, H, W]}\nlayers: [conv2d: {in: x, out_channels: 2, kernel_size: 9}]", [4], [1], "side 4"),
    ],
)
def test_growth_that_cannot_be(file: str, sides: Any, batches: Any, words: str) -> None:
    with pytest.raises(memest.MemestError, match=words):
        growth(memest.loads(file), sides, batches, mode="infer")


# drawing -----------------------------------------------------------------------------------------------------------------


def test_every_category_has_its_own_looks() -> None:
    for looks in (COLOURS, TERMINAL_COLOURS, LETTERS):
        assert set(looks) == set(CATEGORIES) and len(set(looks.values())) == len(CATEGORIES)


@pytest.mark.parametrize("highest", [1, 7, 1023, 1024, 3 * 2**20, 10**9, 144_838_278_828, 2**70])
def test_ticks_are_round_and_distinct(highest: int) -> None:
    places, labels = byte_ticks(highest)
    assert places[0] == 0 and labels[0] == "0" and places[-1] <= highest < places[-1] * 2 + 2
    assert len(set(labels)) == len(labels) <= 9 and places == sorted(set(places))
    assert len({label.split()[1] for label in labels[1:]}) <= 1, "one unit"
    for place, label in zip(places[1:], labels[1:], strict=True):
        number, unit = label.replace(",", "").split()
        power = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB"].index(unit)
        assert float(number) * 1024**power == pytest.approx(place, rel=1e-12, abs=1)


def test_stairs_hold_their_heights() -> None:
    edges, heights = [0, 1, 3, 4, 9], [5, 5, 2, 7]
    path = stairs(edges, heights)
    assert path == [(0, 5), (3, 5), (3, 2), (4, 2), (4, 7), (9, 7)]
    assert sum((b[0] - a[0]) * a[1] for a, b in pairwise(path)) == 5 * 3 + 2 * 1 + 7 * 5


@pytest.mark.parametrize("given", [[1], [6, 6, 4, 3, 2, 2, 1], [10**12, 3, 1], list(range(200, 0, -1))])
def test_squarify_fills_the_box(given: list[int]) -> None:
    boxes = squarify(given, (10.0, 20.0, 300.0, 200.0))
    scale = 300 * 200 / sum(given)
    for n, (x, y, w, h) in zip(given, boxes, strict=True):
        assert w * h == pytest.approx(n * scale)
        assert min(x - 10, 310 - x - w, y - 20, 220 - y - h) > -0.01, "points"
    for i, (x, y, w, h) in enumerate(boxes):
        for a, b, c, d in boxes[:i]:
            assert min(x + w, a + c) - max(x, a) < 1e-6 or min(y + h, b + d) - max(y, b) < 1e-6


@pytest.mark.slow
@needs_matplotlib
def test_pictures_are_the_same_twice_and_of_their_format(step: Estimate, grown: Growth) -> None:
    for form, magic in (("svg", b"<?xml"), ("png", b"\x89PNG")):
        first, second = pictures(step, grown, form), pictures(step, grown, form)
        assert first == second
        assert all(p.startswith(magic) and 10_000 < len(p) < 400_000 for p in first.values())
        assert not any(b"<dc:date>" in p for p in first.values())


@needs_matplotlib
def test_pictures_name_the_peak(step: Estimate, grown: Growth) -> None:
    found = pictures(step, grown, "svg")
    for name in ("timeline", "treemap"):
        said = "\n".join(texts(found[name]))
        assert f"{step.peak_bytes:,} bytes ({format_bytes(step.peak_bytes)})" in said
        assert step.moment.layer in said and "training, adam" in said and "2x3x64x64" in said
        assert all(format_bytes(n) in said for n in step.by_category().values())
    said = "\n".join(texts(found["sizes"]))
    assert "cannot run at side 40" in said and {"small", "large", "32³", "64³", "batch 1", "batch 2"} <= set(said.split("\n"))
    assert format_bytes(grown.points[-1].peak_bytes) in said


@needs_matplotlib
def test_pictures_have_a_part_for_everything(step: Estimate, grown: Growth) -> None:
    found = pictures(step, grown, "svg")
    assert [k.split("#")[0] for k in parts(found["timeline"], "category-")] == [f"category-{c}" for c in series(step).categories]
    assert [k.split("#")[0] for k in parts(found["timeline"], "phase-")] == [f"phase-{s.name}" for s in series(step).phases]
    tiles = tiles_at_peak(step, -(-step.peak_bytes // treemap.MIN_SHARE))
    assert len(parts(found["treemap"], "tile-")) == len(tiles) > 20
    assert len(parts(found["sizes"], "batch-")) == len(parts(found["sizes"], "capacity-")) == 2


@needs_matplotlib
def test_stack_reaches_the_peak_at_its_moment(step: Estimate) -> None:
    """The highest corner of the drawn paths lies over the peak's moment: heights in the SVG are those of the series."""
    svg, found = timeline.render(step, "svg"), series(step)
    corners = [
        (float(x), float(y))
        for group in parts(svg, "category-").values()
        for path in group.iter(f"{SVG}path")
        for x, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", path.get("d", ""))
    ]
    left, right = min(x for x, _ in corners), max(x for x, _ in corners)
    low, high = max(y for _, y in corners), min(y for _, y in corners)
    at = min(x for x, y in corners if y == high)
    assert (at - left) / (right - left) * len(found.totals) == pytest.approx(found.peak, abs=0.01)
    height = timeline.HEIGHT * 72 * timeline.BOX[3]
    assert (low - high) / height == pytest.approx(1 / timeline.HEADROOM, rel=1e-4)


@needs_matplotlib
def test_a_long_step_stays_small() -> None:
    long = memest.estimate(memest.model("densenet201"), input_shape=(1, 3, 64, 64), optimizer="adam")
    assert len(long.events) > 10_000
    assert len(timeline.render(long, "svg")) < 400_000


def test_without_matplotlib_it_says_what_to_install(step: Estimate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(memest.UsageError, match="pip install matplotlib"):
        timeline.render(step, "svg")


@needs_matplotlib
@pytest.mark.parametrize("width", [30, 50, 70, 150])
@pytest.mark.parametrize("height", [8, 20, 40, 100])
def test_labels_of_a_treemap_say_the_whole_name_or_both_its_ends(width: float, height: float) -> None:
    name, amount = "layer4.0.downsample.0.weight", "8.00 MiB"
    size, lines = treemap._label(name, amount, width, height)
    assert all(text_width(line, size) <= width for line in lines) and (len(lines) - 1) * size * treemap.LEADING <= height
    if lines:
        said = "".join(lines).removesuffix(amount).rstrip()
        start, gap, end = said.partition("…")
        assert lines[-1].endswith(amount)
        assert said == name if not gap and said else name.startswith(start) and (not gap or name.endswith(end))
    assert (width, height) != (150, 100) or lines == [name, amount]
    assert (width, height) != (70, 100) or "".join(lines[:-1]) == name


# terminal ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [50, 120])
def test_chart_is_the_outline(step: Estimate, width: int) -> None:
    lines = chart.timeline(step, width=width).splitlines()
    assert max(map(len, lines)) <= width and "\x1b" not in "".join(lines)
    (bottom,) = (i for i, line in enumerate(lines) if line.strip().startswith("+--"))
    rows = [line.ljust(width)[chart.GUTTER :] for line in lines[bottom - chart.ROWS : bottom]]
    found = series(step)
    chosen = outline(found.totals, width - chart.GUTTER - 1, lows=False)
    for column, moment in enumerate(chosen):
        filled = sum(row[column] != " " for row in rows)
        assert abs(filled - chart.ROWS * found.totals[moment] / found.peak_bytes) <= 0.5
    assert lines[bottom + 1].index("^") == chart.GUTTER + chosen.index(found.peak)
    assert format_bytes(step.peak_bytes) in lines[bottom - chart.ROWS]
    assert all(f"{LETTERS[c]} {c}" in "\n".join(lines) for c in found.categories)


def test_chart_takes_colour(step: Estimate) -> None:
    for draw in (chart.timeline, chart.treemap):
        assert "\x1b[" in draw(step, width=80, color=True) and "█" in draw(step, width=80, color=True)
        assert draw(step, width=80).isascii()


def test_bars_are_the_live_set(step: Estimate) -> None:
    text = chart.treemap(step, width=100, top=5)
    categories, owners = (block.splitlines()[1:] for block in text.split("\n\n")[1:])
    assert [line.split()[-1] for line in categories] == sorted(step.by_category(), key=lambda c: -step.by_category()[c])
    biggest = sorted(tiles_at_peak(step), key=lambda t: -t.nbytes)[:5]
    assert [line.split()[-1] for line in owners] == [t.layer for t in biggest]
    assert all(format_bytes(t.nbytes) in line for t, line in zip(biggest, owners, strict=True))


# the command -------------------------------------------------------------------------------------------------------------


def _run(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    found = main(list(arguments))
    captured = capsys.readouterr()
    assert found == code, captured.err
    return captured.err if code else captured.out


@pytest.mark.parametrize("command", list(plot_command.COMMANDS))
def test_help_and_its_examples(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    text = _run(capsys, "plot", command, "--help")
    examples = re.findall(r"^ +(memest \S.*)$", text, re.MULTILINE)
    assert examples and "Exit codes:" in text
    monkeypatch.chdir(tmp_path)
    for example in examples:
        if "--output" not in example or find_spec("matplotlib"):
            out = _run(capsys, *shlex.split(example)[1:])
            assert bool(out) == ("--output" not in example)


@needs_matplotlib
@pytest.mark.parametrize("kind", ["timeline", "treemap"])
def test_a_file_is_the_picture(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.SVG"
    assert _run(capsys, "plot", kind, *SHAPE, "--optimizer", "adam", "-o", str(path)) == ""
    expected = memest.estimate(memest.model("resnet18"), input_shape=(2, 3, 32, 32), optimizer="adam")
    assert path.read_bytes() == {"timeline": timeline, "treemap": treemap}[kind].render(expected, "svg")


def test_sizes_as_data(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["plot", "sizes", "unet3d:base_filters=4", "--sides", "64,32,40", "--batches", "1,2", "--optimizer", "adam"]
    data = json.loads(_run(capsys, *arguments, "--capacity", "mine=1GiB", "--format", "json"))
    expected = growth(memest.model("unet3d:base_filters=4"), (32, 40, 64), (1, 2), optimizer="adam")
    assert [(p["side"], p["batch"], p["peak_bytes"]) for p in data["points"]] == [(p.side, p.batch, p.peak_bytes) for p in expected.points]
    assert data["capacities"] == [{"name": "mine", "bytes": 2**30}] and data["refused"][0]["side"] == 40
    text = _run(capsys, *arguments)
    assert all(format_bytes(p.peak_bytes) in text for p in expected.points) and "side 40 is left out" in text and "7.5 TB" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["timeline", *SHAPE, "-o", "a.jpg"], ("'.jpg'", ".png, .svg")),
        (["treemap", *SHAPE, "-o", "picture"], ("no suffix", ".png, .svg")),
        (["sizes", "resnet18", "-o", "sizes.pdf"], (".png, .svg, .txt",)),
        (["sizes", "resnet18", "--sides", "1,x"], ("--sides", "'1,x'")),
        (["sizes", "resnet18", "--batches", "0"], ("--batches", "'0'")),
        (["sizes", "resnet18", "--capacity", "12"], ("no unit", "12GiB")),
        (["sizes", "resnet18", "--input", "3x32x32"], ("--input is for torch models",)),
        (["sizes", "resnet19"], ("did you mean 'resnet18'",)),
        (["sizes", "resnet18", "--optimizer", "adm"], ("did you mean 'adam'",)),
        (["tree", "resnet18"], ("did you mean 'treemap'",)),
    ],
)
def test_what_cannot_be_drawn(
    arguments: list[str], words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    line = _run(capsys, "plot", *arguments, code=2)
    assert line.startswith("memest: ") and line.count("\n") == 1 and all(w in line for w in words), line
    assert not list(tmp_path.iterdir())


@needs_matplotlib
def test_a_picture_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = _run(capsys, "plot", "timeline", *SHAPE, "-o", str(tmp_path / "nowhere" / "a.png"), code=2)
    assert "cannot write" in line and not list(tmp_path.iterdir())


def test_the_terminal_needs_no_matplotlib() -> None:
    code = f"import sys\nfrom memest.cli.app import main\nmain(['plot', 'timeline', *{SHAPE!r}])\nassert 'matplotlib' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert " peak ^" in done.stdout or "^ peak" in done.stdout
