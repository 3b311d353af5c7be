"""Where results go: a report rendered and written to stdout or to a file, whole or not at all."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path

from memest.cli.options import Format
from memest.errors import UsageError, did_you_mean
from memest.planning.progress import finish
from memest.render.report import Report

WIDTH = 120
DOES_NOT_FIT = 1
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


def agreed(form: Format | None, output: Path | None) -> Format:
    """How a result is written: as --format says, else as the suffix of ``output`` does, else text. UsageError where the two contradict
    each other, and for a suffix that says nothing where --format does not either. Commands ask before their work."""
    if output is None or not output.suffix:
        return form or Format.text
    if form is None:
        return Format(by_suffix(output, SUFFIXES, "the result is", "; or give --format"))
    if SUFFIXES.get(output.suffix.lower(), form.value) != form.value:
        raise UsageError(f"--output {output} says {SUFFIXES[output.suffix.lower()]}, --format says {form.value}; change one of them")
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


def write(content: str | bytes, output: Path | None) -> None:
    """Text to stdout, or any ``content`` to ``output``: first beside it, then in its place. UsageError says why it cannot be."""
    finish()
    if isinstance(content, str) and (output is None or str(output) == "-"):
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        try:
            sys.stdout.write(content)
            sys.stdout.flush()
        except BrokenPipeError:
            raise PipeClosedError from None
        return
    assert output is not None
    data = content.encode() if isinstance(content, str) else content
    try:
        if output.exists() and not output.is_file():
            output.write_bytes(data)  # a device or a pipe is written through, never replaced
        else:
            _replace(Path(os.path.realpath(output)), data)
    except OSError as e:
        raise UsageError(f"cannot write {output}: {e.strerror or e}") from None


def _replace(path: Path, data: bytes) -> None:
    from tempfile import mkstemp

    handle, name = mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as f:
            f.write(data)
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
