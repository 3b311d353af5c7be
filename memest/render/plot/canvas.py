"""The door to matplotlib: a clean figure in our style, written as PNG or SVG, and an axis that counts bytes.

UsageError says what to install when matplotlib is missing. SVGs keep their text as text, carry no date and name their parts by a fixed
salt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from math import ceil, floor, log10
from typing import Any

from memest.errors import UsageError
from memest.shown import middle, visible
from memest.sizes.units import BINARY

FORMATS = {".png": "png", ".svg": "svg"}
LEAST = 8  # characters of a shortened name that say something
INK, FAINT = "#222222", "#6b6b6b"
STYLE = {
    "font.family": "sans-serif",
    "font.size": 9.0,
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": "#bbbbbb",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "memest",
    "savefig.dpi": 160,
}


@contextmanager
def figure(width: float, height: float) -> Iterator[Any]:
    """A figure of ``width`` x ``height`` inches; draw and :func:`written` inside."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("a picture needs matplotlib; pip install matplotlib") from None
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield Figure(figsize=(width, height), facecolor="white")


def written(drawn: Any, form: str) -> bytes:
    """The file, ``form`` one of FORMATS' values."""
    stream = BytesIO()
    about = {"Date": None, "Creator": "memest"} if form == "svg" else {"Software": "memest"}
    drawn.savefig(stream, format=form, metadata=about)
    return stream.getvalue()


def heading(drawn: Any, title: str, lines: Sequence[str], left: float = 0.012) -> None:
    """A bold title and lines of small print at the top left of the figure."""
    height = drawn.get_figheight()
    drawn.text(left, 1 - 0.12 / height, visible(title), fontsize=13, fontweight="bold", va="top")
    for i, line in enumerate(lines):
        drawn.text(left, 1 - (0.40 + 0.19 * i) / height, visible(line), fontsize=9, color=FAINT, va="top")


def text_width(text: str, size: float) -> float:
    """Width of ``text`` in points: its characters side by side, kerning left out."""
    return size * sum(map(_advance, text))


@cache
def _advance(character: str) -> float:
    """Width of a character of size 1."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    width, _, _ = text_to_path.get_text_width_height_descent(f"|{character}|", FontProperties(size=100), False)
    bare, _, _ = text_to_path.get_text_width_height_descent("||", FontProperties(size=100), False)
    return float(width - bare) / 100


def shortened(text: str, size: float, width: float) -> str:
    """``text`` in at most ``width`` points, its middle left out; empty when hardly anything would be left."""
    return middle(visible(text), width, lambda part: text_width(part, size), least=LEAST)


def byte_ticks(highest: int, about: int = 6) -> tuple[list[int], list[str]]:
    """Places and labels from 0 to ``highest`` bytes: round numbers of one binary unit."""
    power = 0 if highest < 1024 else min((highest.bit_length() - 1) // 10, len(BINARY) - 1)
    unit = 1024**power
    rough = max(highest / unit / about, 1e-9)
    scale = 10.0 ** floor(log10(rough))
    step = next(m for m in (1, 2, 2.5, 5, 10) if m * scale >= rough * 0.999) * scale
    if power == 0:
        step = max(1, ceil(step))
    values = [i * step for i in range(int(highest / unit / step) + 1)]
    digits = max(0, next(d for d in range(12) if abs(round(step, d) - step) < 1e-9 * step))
    return [round(v * unit) for v in values], [f"{v:,.{digits}f} {BINARY[power]}" if v else "0" for v in values]
