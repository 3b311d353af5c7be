"""The commands as typer has them: their help, what a shell completes, and the words for what is wrong."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from inspect import Parameter, Signature
from types import ModuleType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from memest.cli.words import Command, Word, defaults, option, taken
from memest.errors import UsageError, one_of


class _Group(TyperGroup):
    """Commands by name; a name that is none of them is our own error, with the nearest one."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command, or UsageError."""
        found = super().get_command(ctx, cmd_name)
        if found is None and not ctx.resilient_parsing and not cmd_name.startswith("-"):
            raise UsageError(f"no command {cmd_name!r}{one_of(cmd_name, self.list_commands(ctx))}")
        return found


def application(commands: Mapping[str, str], arguments: Sequence[str]) -> typer.Typer:
    """The typer application with the one of ``commands`` that ``arguments`` name (or the line that a shell completes), or with all: typer
    builds each it knows, half a start's time."""
    app = typer.Typer(name="memest", cls=_Group, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.callback()(as_typer(_root))
    words = arguments or (os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS", "")).split()
    named = next((a for a in words if a in commands), None)
    for name in commands if named is None else (named,):
        _add(app, name, import_module(commands[name]))
    return app


def _add(app: typer.Typer, name: str, module: ModuleType) -> None:
    """A command, or a group where the module lists commands of its own."""
    if not hasattr(module, "COMMANDS"):
        app.command(name)(as_typer(module.run))
        return
    group = typer.Typer(name=name, cls=_Group, no_args_is_help=True, rich_markup_mode=None)
    group.callback()(as_typer(module.run))
    for own, home in module.COMMANDS.items():
        group.command(own)(as_typer(import_module(home).run))
    app.add_typer(group)


def as_typer(command: Command) -> Callable[..., Any]:
    """``command`` with typer's own classes in its annotations."""
    hints = {name: Annotated[kind, _info(word)] for name, (kind, word) in taken(command).items()}
    left_out = defaults(command)

    def run(**given: Any) -> int | None:
        return command(**given)

    run.__annotations__, run.__doc__, run.__name__ = hints, command.__doc__, command.__name__
    run.__signature__ = Signature(  # type: ignore[attr-defined]
        [Parameter(n, Parameter.KEYWORD_ONLY, default=left_out.get(n, Parameter.empty), annotation=hint) for n, hint in hints.items()]
    )
    return run


def _info(word: Word) -> Any:
    fields = word._asdict()
    names = fields.pop("names")
    return typer.Option(*names, **fields) if names else typer.Argument(**{**fields, "is_eager": False})


def _version(wanted: bool) -> None:
    if wanted:
        from memest import __version__

        typer.echo(f"memest {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[bool, option("--version", callback=_version, is_eager=True, help="Print the version and exit.")] = False,
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
