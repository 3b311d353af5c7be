"""Where results go: a report rendered and written to stdout or to a file, whole or not at all."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from importlib import import_module
from pathlib import Path

import typer

from memest.cli.options import Format
from memest.errors import UsageError
from memest.render.report import Report

WIDTH = 120
BROKEN_PIPE = 141
DOES_NOT_FIT = 1


def show(report: Report, form: Format, output: Path | None) -> None:
    """Render ``report`` and write it; colors and the width of the terminal count for text alone."""
    render = import_module(f"memest.render.{form.value}").render
    if form is Format.text:
        write(render(report, width=_width(), color=_color(output)), output)
    else:
        write(render(report), output)


def write(text: str, output: Path | None) -> None:
    """``text`` to stdout, or to ``output``: first beside it, then in its place. UsageError says why it cannot be."""
    if output is None or str(output) == "-":
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except BrokenPipeError:
            raise typer.Exit(BROKEN_PIPE) from None
        return
    try:
        if output.exists() and not output.is_file():
            output.write_text(text, encoding="utf-8")  # a device or a pipe is written through, never replaced
        else:
            _replace(Path(os.path.realpath(output)), text)
    except OSError as e:
        raise UsageError(f"cannot write {output}: {e.strerror or e}") from None


def _replace(path: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as f:
            f.write(text)
        os.chmod(name, path.stat().st_mode & 0o7777 if path.exists() else 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _width() -> int:
    return max(40, shutil.get_terminal_size((WIDTH, 24)).columns)


def _color(output: Path | None) -> bool:
    return output is None and sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
