"""Where results go: a report rendered and written to stdout or to a file, whole or not at all."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from importlib import import_module
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import TypeVar

from memest.cli.choices import Format
from memest.errors import UsageError, did_you_mean
from memest.planning.progress import finish
from memest.planning.replacing import replacing
from memest.render.report import Report

WIDTH = 120
IN_MEMORY = 1 << 20  # characters on their way to stdout; more wait in a file
DOES_NOT_FIT = 1
Form = TypeVar("Form", bound=Enum)
SUFFIXES = {".txt": "text", ".json": "json", ".csv": "csv", ".md": "markdown", ".markdown": "markdown"}


class PipeClosedError(Exception):
    """The reader of the output went away."""


def show(report: Report, form: Format | None, output: Path | None) -> None:
    """Render ``report`` and write it as :func:`agreed`; colors and the width of the terminal count for text alone."""
    found = agreed(form, output)
    render = import_module(f"memest.render.{found.value}").render
    if found is Format.text:
        write(render(report, width=_width(), color=_color(output)), output)
    else:
        write(render(report), output)


def agreed(form: Form | None, output: Path | None, formats: type[Form] = Format, suffixes: Mapping[str, str] = SUFFIXES) -> Form:  # type: ignore[assignment]
    """How a result is written: as --format says, else as the suffix of ``output`` does, else text. UsageError where the two contradict
    each other, and for a suffix that says nothing where --format does not either. Commands ask before their work."""
    if output is None or not output.suffix:
        return form or formats("text")
    if form is None:
        return formats(by_suffix(output, suffixes, "the result is", "; or give --format"))
    if suffixes.get(output.suffix.lower(), form.value) != form.value:
        raise UsageError(f"--output {output} says {suffixes[output.suffix.lower()]}, --format says {form.value}; change one of them")
    return form


def by_suffix(path: Path, known: Mapping[str, str], what: str, otherwise: str = "") -> str:
    """What ``known`` has for the suffix of ``path``; UsageError lists the suffixes there are, and says what to do ``otherwise``."""
    suffix = path.suffix.lower()
    if suffix not in known:
        found = f"unknown suffix {path.suffix!r}" if suffix else "no suffix"
        raise UsageError(f"{path}: {found}, which says how {what} written: {', '.join(known)}{otherwise}{did_you_mean(suffix, known)}")
    return known[suffix]


def write_text(render: Callable[..., str]) -> None:
    """To stdout what ``render`` makes of the terminal's ``width`` and of whether it takes ``color``."""
    write(render(width=_width(), color=_color(None)), None)


def write(content: str | bytes | Iterable[str], output: Path | None) -> None:
    """Text to stdout, or any ``content`` to ``output``: first beside it, then in its place. A text that comes in pieces is whole before
    any of it is on stdout. UsageError says why it cannot be."""
    if isinstance(content, bytes):
        assert output is not None
        with replacing(output) as file:
            file.write(content)
        finish()
        return
    pieces = (content,) if isinstance(content, str) else content
    if output is not None and str(output) != "-":
        with replacing(output) as file:
            file.writelines(piece.encode() for piece in pieces)
        finish()
        return
    with SpooledTemporaryFile(IN_MEMORY, "w+", encoding="utf-8", errors="surrogatepass", newline="") as whole:
        whole.writelines(pieces)
        whole.seek(0)
        finish()
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        try:
            shutil.copyfileobj(whole, sys.stdout)
            sys.stdout.flush()
        except BrokenPipeError:
            raise PipeClosedError from None


def _width() -> int:
    return max(40, shutil.get_terminal_size((WIDTH, 24)).columns)


def _color(output: Path | None) -> bool:
    return output is None and sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
