"""``memest plot``: pictures of a step and of how it grows; its commands, one file each, and what they share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Optional

from memest.cli.words import option

COMMANDS = {
    "timeline": "memest.cli.plot_timeline",
    "treemap": "memest.cli.plot_treemap",
    "sizes": "memest.cli.plot_sizes",
    "arena": "memest.cli.plot_arena",
}
PICTURES = {".png": "png", ".svg": "svg"}
Picture = Annotated[
    Optional[Path],  # noqa: UP045 - it is read at run time
    option("--output", "-o", metavar="FILE", help="Draw to FILE, .png or .svg (needs matplotlib), instead of the terminal."),
]


def run() -> None:
    """Draw a step over its events, its peak, or its growth with the input.

    To the terminal, or with --output to a .png or .svg file, for which matplotlib is needed (pip install matplotlib).

    \b
    Examples:
      memest plot timeline resnet18 --input 3x224x224 --batch 8
      memest plot treemap resnet18 --input 3x224x224 --batch 8
      memest plot sizes unet3d --sides 32,64,128 --batches 1,2 --loss binary_cross_entropy

    \b
    Exit codes: 0 done, 2 usage, 3 invalid model.
    """


def form_of(output: Path) -> str:
    """``png`` or ``svg``, by the suffix; UsageError lists them."""
    from memest.cli.output import by_suffix

    return by_suffix(output, PICTURES, "a picture is")


def draw(output: Path | None, text: Callable[..., str], picture: Callable[[str], bytes]) -> None:
    """``text`` to the terminal, in its width and colours, or ``picture`` to the file."""
    from memest.cli.output import write, write_text

    if output is None:
        write_text(text)
    else:
        write(picture(form_of(output)), output)


def numbers(text: str, option: str) -> list[int]:
    """``1,2,4``: positive whole numbers."""
    from memest.errors import UsageError

    parts = [p.strip() for p in text.split(",")]
    if not all(p.isascii() and p.isdigit() and len(p) <= 9 and int(p) for p in parts):
        raise UsageError(f"{option} {text[:60]!r}: positive numbers joined by commas, such as 32,64,128")
    return [int(p) for p in parts]


def capacities(texts: list[str]) -> list[tuple[str, int]]:
    """``192GB`` or ``server=1.5TB``: what to call it and its bytes."""
    from memest.sizes.units import parse_bytes

    found: list[Any] = [text.rpartition("=") for text in texts]
    return [(name or size, parse_bytes(size)) for name, _, size in found]
