"""``memest``: the application, its commands and its exit codes.

Results go to stdout, everything else to stderr. An error is one line, never a traceback (set MEMEST_DEBUG=1 to see it).
"""

from __future__ import annotations

import gc
import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from typing import Any

from memest.cli.output import PipeClosedError
from memest.cli.words import Command, read
from memest.errors import MemestError, UsageError
from memest.planning.progress import watched
from memest.shown import brief, visible

OK, USAGE, INVALID_MODEL, BUG, INTERRUPTED, BROKEN_PIPE = 0, 2, 3, 70, 130, 141
COLLECTED_AFTER = 200_000  # objects: a command is short, and what it makes stays to its end

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
    "explain": "memest.cli.explain",
    "plan-inference": "memest.cli.plan_inference",
    "plan-volume": "memest.cli.plan_volume",
    "cluster": "memest.cli.cluster",
    "snapshot": "memest.cli.snapshot",
    "hardware": "memest.cli.hardware",
    "schema": "memest.cli.schema",
    "serve": "memest.cli.serve",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code. Without ``arguments`` it is that of the process, which is then ours alone."""
    if arguments is not None:
        return _done(list(arguments))
    gc.set_threshold(COLLECTED_AFTER)
    try:
        return _done(sys.argv[1:])
    finally:
        gc.freeze()  # what ends with the process need not be looked through at its end


def _done(given: Sequence[str]) -> int:
    try:
        with _progress(given):
            result = _run(given)
        return _failed("interrupted", INTERRUPTED) if result == INTERRUPTED else result if isinstance(result, int) else OK
    except PipeClosedError:
        _silence()
        return BROKEN_PIPE
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
            return _failed(f"{_plainly(e.format_message())}{_meant(e.format_message())}", USAGE)
        if type(e).__name__ == "Abort":
            return _failed("interrupted", INTERRUPTED)
        if os.environ.get("MEMEST_DEBUG"):
            raise
        return _failed(f"a bug in memest: {type(e).__name__}: {e}; please report it (MEMEST_DEBUG=1 shows where)", BUG)


def _run(given: Sequence[str]) -> Any:
    """The command that ``given`` names; typer answers where its arguments are not plain, or a shell completes them."""
    command, words = _named(COMMANDS, given)
    values = None if command is None or "_MEMEST_COMPLETE" in os.environ else read(command, words)
    if command is not None and values is not None:
        return command(**values)
    from memest.cli.application import application

    return application(COMMANDS, given)(args=given, prog_name="memest", standalone_mode=False)


def _named(commands: Mapping[str, str], given: Sequence[str]) -> tuple[Command | None, Sequence[str]]:
    """The command at the beginning of ``given``, if there is one, and the words behind its name."""
    if not given or given[0] not in commands:
        return None, given
    module = import_module(commands[given[0]])
    return _named(module.COMMANDS, given[1:]) if hasattr(module, "COMMANDS") else (module.run, given[1:])


def _progress(given: Sequence[str]) -> AbstractContextManager[None]:
    """Shows how far the command is, where there is a terminal to show it on."""
    from memest.render.progress import Display, wanted

    return watched(Display(" ".join(["memest", *given[:2]]))) if wanted() else nullcontext()


def _meant(message: str) -> str:
    """The option that a word seems to be the value of, which stands there without one."""
    found = re.fullmatch(r"Got unexpected extra argument(?:s|\(s\))? \((\S+?)\)", message)
    option = None if found is None else next((o for o, form in _FORMS.items() if re.fullmatch(form, found[1], re.IGNORECASE)), None)
    return f"; did you mean {option} {found[1]}?" if found is not None and option is not None else ""


def _plainly(message: str) -> str:
    """The message without the words of a library for what is read."""
    return re.sub(r"Input should be greater than or equal to (\d+)$", r"a whole number from \1", message)


_FORMS = {"--budget": r"[\d.]+\s*[kmgt]i?b", "--input": r"(\w+=)?\d+([x,]\d+)+", "--batch": r"\d+"}


def _helped(error: Any) -> int:
    """A command that was given nothing: its help, as it stands."""
    print(error.format_message(), file=sys.stderr)
    return USAGE


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
