"""``memest``: the application, its commands and its exit codes.

Results go to stdout, everything else to stderr. An error is one line, never a traceback (set MEMEST_DEBUG=1 to see it).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from memest.cli import estimate, export, layers, models, ops, schema, timeline
from memest.errors import MemestError, UsageError

OK, USAGE, INVALID_MODEL, BUG, INTERRUPTED, BROKEN_PIPE = 0, 2, 3, 70, 130, 141

app = typer.Typer(name="memest", no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

COMMANDS: dict[str, Callable[..., None]] = {
    "estimate": estimate.run,
    "timeline": timeline.run,
    "layers": layers.run,
    "import": export.run,
    "models": models.run,
    "ops": ops.run,
    "schema": schema.run,
}
for _name, _run in COMMANDS.items():
    app.command(_name)(_run)


def _version(wanted: bool) -> None:
    if wanted:
        from memest import __version__

        typer.echo(f"memest {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")] = False,
) -> None:
    """The memory a CNN needs to train or to infer, to the byte, before anything runs.

    \b
    Examples:
      memest estimate unet3d --input 1x240x240x144 --batch 16 --train --optimizer adam
      memest estimate net.yaml --input 3x224x224 --batch 8 --infer --format json
      memest layers torchvision.models:resnet50 --input 3x224x224 --batch 8
      memest models

    \b
    Exit codes:
      0    done
      1    does not fit (commands that are given a limit)
      2    usage: an option, a name or a shape that cannot be; an output that cannot be written
      3    invalid model: a file, a network or a call that memest cannot take
      70   a bug in memest; please report it
      130  interrupted
      141  the reader of the output went away
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        result = app(args=None if arguments is None else list(arguments), prog_name="memest", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else OK
    except KeyboardInterrupt:
        return _failed("interrupted", INTERRUPTED)
    except BrokenPipeError:
        _silence()
        return BROKEN_PIPE
    except MemestError as e:
        return _failed(str(e), USAGE if isinstance(e, UsageError) else INVALID_MODEL)
    except OSError as e:
        _silence()
        return _failed(f"cannot write: {e.strerror or e}", USAGE)
    except Exception as e:
        if hasattr(e, "format_message"):  # every error of click has it, whichever copy of click typer carries
            return _failed(e.format_message(), USAGE)
        if isinstance(e, typer.Abort):
            return _failed("interrupted", INTERRUPTED)
        if os.environ.get("MEMEST_DEBUG"):
            raise
        return _failed(f"a bug in memest: {type(e).__name__}: {e}; please report it (MEMEST_DEBUG=1 shows where)", BUG)


def _failed(message: str, code: int) -> int:
    try:
        print(f"memest: {' '.join(message.split())}", file=sys.stderr, flush=True)
    except OSError:
        _silence()
    return code


def _silence() -> None:
    """What is still buffered goes nowhere, so that the interpreter's own flush at exit stays quiet."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(nowhere, stream.fileno())


def script() -> None:
    """Entry point of the installed command."""
    raise SystemExit(main())
