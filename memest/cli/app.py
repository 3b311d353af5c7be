"""``memest``: the application, its commands and its exit codes.

Results go to stdout, everything else to stderr. An error is one line, never a traceback (set MEMEST_DEBUG=1 to see it).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from types import ModuleType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from memest.cli.output import BROKEN_PIPE
from memest.errors import MemestError, UsageError, one_of
from memest.planning.progress import watched
from memest.shown import brief, visible

OK, USAGE, INVALID_MODEL, BUG, INTERRUPTED = 0, 2, 3, 70, 130

COMMANDS = {
    "estimate": "memest.cli.estimate",
    "timeline": "memest.cli.timeline",
    "plot": "memest.cli.plot",
    "report": "memest.cli.report",
    "layers": "memest.cli.layers",
    "formula": "memest.cli.formula",
    "import": "memest.cli.export",
    "levers": "memest.cli.levers",
    "models": "memest.cli.models",
    "ops": "memest.cli.ops",
    "fit": "memest.cli.fit",
    "sweep": "memest.cli.sweep",
    "advise": "memest.cli.advise",
    "compare": "memest.cli.compare",
    "plan-inference": "memest.cli.plan_inference",
    "hardware": "memest.cli.hardware",
    "schema": "memest.cli.schema",
}


class _Group(TyperGroup):
    """Commands by name; a name that is none of them is our own error, with the nearest one."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command, or UsageError."""
        found = super().get_command(ctx, cmd_name)
        if found is None and not ctx.resilient_parsing and not cmd_name.startswith("-"):
            raise UsageError(f"no command {cmd_name!r}{one_of(cmd_name, self.list_commands(ctx))}")
        return found


def application(arguments: Sequence[str]) -> typer.Typer:
    """The typer application with the command that ``arguments`` name (or the line that a shell completes), or with all: typer builds each
    it knows, half a start's time."""
    app = typer.Typer(name="memest", cls=_Group, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.callback()(_root)
    words = arguments or (os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS", "")).split()
    named = next((a for a in words if a in COMMANDS), None)
    for name in COMMANDS if named is None else (named,):
        _add(app, name, import_module(COMMANDS[name]))
    return app


def _add(app: typer.Typer, name: str, module: ModuleType) -> None:
    """A command, or a group where the module lists commands of its own."""
    if not hasattr(module, "COMMANDS"):
        app.command(name)(module.run)
        return
    group = typer.Typer(name=name, cls=_Group, no_args_is_help=True, rich_markup_mode=None)
    group.callback()(module.run)
    for own, home in module.COMMANDS.items():
        group.command(own)(import_module(home).run)
    app.add_typer(group)


def _version(wanted: bool) -> None:
    if wanted:
        from memest import __version__

        typer.echo(f"memest {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")] = False,
) -> None:
    """The memory a CNN needs to train or to infer, to the byte, before anything runs.

    \b
    Examples:
      memest estimate unet3d --input 1x240x240x144 --batch 16 --train --optimizer adam --loss binary_cross_entropy
      memest estimate net.yaml --input 3x224x224 --batch 8 --infer --format json
      memest layers torchvision.models:resnet50 --input 3x224x224 --batch 8
      memest models

    \b
    Exit codes:
      0    done
      1    does not fit (when --on or --budget is given)
      2    usage: an option, a name or a shape that cannot be; an output that cannot be written
      3    invalid model: a file, a network or a call that memest cannot take
      70   a bug in memest; please report it
      130  interrupted
      141  the reader of the output went away
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        with _progress(given):
            result = application(given)(args=given, prog_name="memest", standalone_mode=False)
        code = result if isinstance(result, int) else OK
        return _ended(code) if code in (INTERRUPTED, BROKEN_PIPE) else code
    except KeyboardInterrupt:
        return _failed("interrupted", INTERRUPTED)
    except MemestError as e:
        return _failed(str(e), USAGE if isinstance(e, UsageError) else INVALID_MODEL)
    except OSError as e:
        _silence()
        return _failed(f"cannot write: {e.strerror or e}", USAGE)
    except Exception as e:
        if type(e).__name__ == "NoArgsIsHelpError":  # of either copy of click: its message is the help
            return _helped(e)
        if hasattr(e, "format_message"):  # every error of click has it, whichever copy of click typer carries
            return _failed(e.format_message(), USAGE)
        if isinstance(e, typer.Abort):
            return _failed("interrupted", INTERRUPTED)
        if os.environ.get("MEMEST_DEBUG"):
            raise
        return _failed(f"a bug in memest: {type(e).__name__}: {e}; please report it (MEMEST_DEBUG=1 shows where)", BUG)


def _progress(given: Sequence[str]) -> AbstractContextManager[None]:
    """Shows how far the command is, where there is a terminal to show it on."""
    from memest.render.progress import Display, wanted

    return watched(Display(" ".join(["memest", *given[:2]]))) if wanted() else nullcontext()


def _helped(error: Any) -> int:
    """A command that was given nothing: its help, as it stands."""
    print(error.format_message(), file=sys.stderr)
    return USAGE


def _ended(code: int) -> int:
    """The end of a command that was stopped from outside."""
    if code == INTERRUPTED:
        return _failed("interrupted", code)
    _silence()
    return code


def _failed(message: str, code: int) -> int:
    try:
        print(f"memest: {visible(brief(' '.join(message.split())))}", file=sys.stderr, flush=True)
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
