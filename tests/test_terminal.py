"""What a terminal shows: lines of its width, names in one piece, columns that give way in order, texts that can be copied."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from functools import cache, partial
from io import StringIO

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

import memest
from memest.cli import output
from memest.cli.app import main
from memest.render import text
from memest.render.layout import laid, literal, wrapped
from memest.render.lines import STYLES, Line, printed
from memest.render.report import Table
from memest.shown import middle
from memest.sizes.units import exact_bytes, parse_bytes

SHAPE = ["--input", "3x64x64", "--batch", "4", "--isa", "avx2", "--threads", "1"]
LONG = "features.denseblock1.denselayer1.conv1"
COMMANDS = {
    "estimate": ["estimate", "densenet121", *SHAPE, "--device", "cpu", "--on", "a100-40gb", "--budget", "1GiB"],
    "layers": ["layers", "densenet121", *SHAPE],
    "timeline": ["timeline", "densenet121", *SHAPE, "--top", "20"],
    "every event": ["timeline", "resnet18", *SHAPE, "--all"],
    "advise": ["advise", "resnet18", *SHAPE, "--optimizer", "adam:foreach=true", "--budget", "170MiB"],
    "advise, all": ["advise", "resnet18", *SHAPE, "--optimizer", "adam:foreach=true", "--budget", "170MiB", "--all"],
    "advise, nothing fits": ["advise", "resnet18", *SHAPE, "--budget", "1MiB"],
    "fit": ["fit", "unet3d:base_filters=4,levels=3", "--budget", "1GiB", "--vary", "batch", "--input", "1x32x32x32"],
    "fit, nothing fits": ["fit", "resnet18", "--input", "3x64x64", "--budget", "1MiB"],
    "sweep": ["sweep", "resnet18", "--axis", "batch=1,2,3000", "--input", "3x64x64", "--axis", "optimizer=sgd,adam"],
    "compare": ["compare", "resnet34", "resnet18", *SHAPE],
    "formula": ["formula", "resnet18", *SHAPE, "--all", "--layers"],
    "plot timeline": ["plot", "timeline", "resnet18", *SHAPE],
    "plot treemap": ["plot", "treemap", "resnet18", *SHAPE],
    "plot sizes": ["plot", "sizes", "resnet18", "--sides", "64,96", "--batches", "1,2,4,8,16"],
    "models": ["models"],
    "ops": ["ops"],
    "one op": ["ops", "conv2d"],
    "hardware": ["hardware"],
    "a machine": ["hardware", "a100-40gb"],
    "levers": ["levers"],
    "a lever": ["levers", "checkpoint"],
}
NOTHING_FITS = {"advise, nothing fits", "fit, nothing fits"}


@pytest.mark.parametrize("style", ["", *STYLES])
@pytest.mark.parametrize("color", [True, False])
def test_styles_are_written_as_rich_writes_them(style: str, color: bool) -> None:
    parts = [("plain ", ""), ("styled, 宽 é", style), ("", style), (" end", "")]
    stream = StringIO()
    console = Console(file=stream, width=20, force_terminal=color, no_color=not color, color_system="standard" if color else None)
    console.print(Text.assemble(*parts), no_wrap=True, overflow="ignore", crop=False)
    line = Line()
    for part in parts:
        line.append(*part)
    assert printed([line], color) == stream.getvalue()
    assert line.cell_len == cell_len("plain styled, 宽 é end")


@cache
def drawn(name: str) -> Callable[..., str]:
    """What a command draws, for any ``width``."""
    found: list[Callable[..., str]] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(output, "show", lambda report, *_: found.append(partial(text.render, report)))
        patched.setattr(output, "write_text", found.append)
        assert main(COMMANDS[name]) == (name in NOTHING_FITS)
    (render,) = found
    return render


def shown(name: str, width: int) -> list[str]:
    """The lines of a command on a terminal of ``width`` columns."""
    return drawn(name)(width=width).splitlines()


@pytest.mark.parametrize("name", [pytest.param(c, marks=pytest.mark.slow if c == "advise, nothing fits" else ()) for c in COMMANDS])
def test_no_line_is_wider_than_the_terminal_and_no_word_is_folded(
    name: str,
) -> None:
    """Every word of a narrow page is a word of a wide one: whole, shortened in the middle, or a part that ends where it may."""
    whole = set(" ".join(shown(name, 400)).split())
    for width in (60, 80, 120):
        lines = shown(name, width)
        assert max(map(cell_len, lines)) <= width
        if name.startswith("plot"):
            continue  # its axis and its bars grow with the page
        extra = {w for line in lines if "no room here" not in line for w in line.split()} - whole - set("─" * n for n in range(121))
        for word in extra:
            before, gap, after = word.partition("…")
            cut = gap and any(w.startswith(before) and w.endswith(after) for w in whole)
            part = any(word.rstrip("\\") in w for w in whole) and (word[-1] in "/+·,\\" or any(w.endswith(word) for w in whole))
            assert cut or part or word in ("no", "room", "here", "for:"), (width, word)


def test_a_layer_is_one_line() -> None:
    layers = len(memest.model("densenet121").layers)
    for width in (60, 80, 120):
        lines = shown("layers", width)
        rule = next(i for i, line in enumerate(lines) if line.startswith("─"))
        assert len(lines[rule + 1 : lines.index("", rule)]) == layers + 2, "the loss and the total too"


def test_columns_go_in_the_order_the_table_states() -> None:
    gone = []
    for width in (120, 100, 80, 60):
        page = "\n".join(shown("layers", width))
        gone.append(" ".join(page.partition("no room here for: ")[2].split()))
    assert gone == ["", "parameter bytes", "parameters, parameter bytes", "output, parameters, parameter bytes"]


NAMES = Table(
    title="", columns=(("layer", "name"), ("kind", "word"), ("why", "text"), ("bytes", "bytes")), rows=((LONG, "conv2d", "it is " * 9, 1),)
)


def test_without_columns_to_spare_names_are_shortened_then_the_last_columns_go() -> None:
    for width in range(12, 100):
        found = laid(NAMES, width)
        lines = (*found.header, found.rule, *found.body)
        assert max(map(cell_len, lines)) <= width, width
        assert (LONG in found.body[0]) or "…" in found.body[0]
    assert laid(NAMES, 100).spared == () and laid(NAMES, 12).spared


@pytest.mark.parametrize("text", [LONG, "x" * 500, "网络.编码器.卷积" * 9])
def test_a_shortened_name_keeps_both_ends(text: str) -> None:
    for room in range(2, 80):
        cut = middle(text, room, cell_len)
        assert cell_len(cut) <= room
        assert cut == text or (cut.count("…") == 1 and text.endswith(cut.partition("…")[2]) and text.startswith(cut.partition("…")[0]))
    assert middle(LONG, 24) == "feature…enselayer1.conv1"
    assert middle("abcdef", 2, least=3) == ""


def test_prose_wraps_between_words_and_numbers_stay_whole() -> None:
    assert wrapped("aa bb cc", 5) == ["aa bb", "cc"] and wrapped("", 5) == [""]
    assert wrapped("1,684·N·H·W + 8", 8) == ["1,684·N·", "H·W + 8"]
    assert wrapped("https://a.example/path", 12) == ["https://", "a.example/", "path"]


def test_a_text_to_be_copied_is_read_by_a_shell_as_it_was() -> None:
    lever = "fsdp:world=8,blocks=" + "+".join(f"layer{i}" for i in range(30))
    for width in (20, 60, 300):
        lines = literal(lever, width)
        assert max(map(len, lines)) <= width and (len(lines) == 1) == (width == 300)
        done = subprocess.run(["bash", "-c", "printf %s " + "\n".join(lines)], capture_output=True, text=True, check=True)
        assert done.stdout == lever


def test_levers_of_an_advice_stand_whole(capsys: pytest.CaptureFixture[str]) -> None:
    lever = "fsdp:world=4,blocks=conv1+bn1+layer1+layer2+layer3+layer4+fc"
    for width in (80, 120):
        (line,) = (line for line in shown("advise", width) if lever in line)
        assert line.split()[0] == lever, "and nothing sticks to it"
        assert main(["estimate", "resnet18", *SHAPE, "--lever", line.split()[0]]) == 0
        capsys.readouterr()


@pytest.mark.parametrize("nbytes", [1, 1023, 1024, 40 * 2**30, 3 * 2**29, 42_298_834_944, 4_299_496_729, 10**15, 2**80 + 1])
def test_sizes_of_levers_are_exact_and_readable(nbytes: int) -> None:
    assert parse_bytes(exact_bytes(nbytes)) == nbytes
    assert exact_bytes(40 * 2**30) == "40GiB" and exact_bytes(3 * 2**29) == "1.5GiB" and exact_bytes(42_298_834_944) == "40339.3125MiB"


# advice ------------------------------------------------------------------------------------------------------------------


def test_the_cheapest_change_that_is_enough_comes_first() -> None:
    lines = shown("advise", 120)
    start = lines.index("Enough alone, the cheapest first") + 3
    rows = lines[start : lines.index("", start)]
    peaks = [float(line.split("MiB")[0].split()[-1]) for line in rows if "MiB" in line]
    assert all(p <= 170 for p in peaks) and len(peaks) < 15
    assert rows[0].split()[0] == "offload_optimizer"
    kinds = [word for line in rows for word in line.split() if word in ("free", "time", "numbers", "machines") and "MiB" in line]
    assert kinds == sorted(kinds, key=["free", "time", "numbers", "machines"].index)
    everything = shown("advise, all", 120)
    assert "Alone, by the bytes saved" in everything and len(everything) > len(lines)
    assert any("--all lists all" in line for line in lines) and not any("--all lists all" in line for line in everything)
