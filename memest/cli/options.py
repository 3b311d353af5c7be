"""The options that commands share: those of every question, from its fields; and others as annotated types, one line each in a command's
signature."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import fields
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, Optional, get_type_hints

import typer

from memest.cli import complete
from memest.cli.choices import Format, Isa

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        autocompletion=complete.models,
        help="A file (.yaml, .json, or - for stdin), a built-in model with options, or package.module:callable(args): "
        "memest imports and runs that code.",
    ),
]
Inputs = Annotated[
    Optional[list[str]],  # noqa: UP045 - typer reads it at run time
    typer.Option(
        "--input",
        "-i",
        metavar="[NAME=]SHAPE",
        help="Shape such as 3x224x224 with --batch, or 8x3x224x224 without; repeat for several inputs.",
    ),
]
Batch = Annotated[Optional[int], typer.Option("--batch", "-b", min=1, metavar="N", help="Batch size, put in front of every --input.")]  # noqa: UP045
Threads = Annotated[Optional[int], typer.Option("--threads", min=1, metavar="N", help="Threads of the runtime (default: this machine's).")]  # noqa: UP045
IsaOption = Annotated[Optional[Isa], typer.Option("--isa", help="Instruction set of the runtime (default: this machine's).")]  # noqa: UP045
Device = Annotated[Optional[str], typer.Option("--device", metavar="cpu|cuda", help="Short for --runtime torch-cpu or torch-cuda.")]  # noqa: UP045
FormatOption = Annotated[
    Optional[Format],  # noqa: UP045
    typer.Option("--format", "-f", help="How the result is written (default: as FILE's suffix says, else text)."),
]
Output = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--output", "-o", metavar="FILE", help="Write the result to FILE, whole or not at all (- is stdout)."),
]
On = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--on",
        metavar="HARDWARE",
        autocompletion=complete.machines,
        help="Say whether it fits on this machine (the command hardware lists them); repeat for several.",
    ),
]
Budget = Annotated[Optional[str], typer.Option("--budget", metavar="SIZE", help="Say whether it fits in SIZE, such as 24GiB.")]  # noqa: UP045
HardwareFile = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--hardware", metavar="FILE", help="Hardware of your own (.yaml or .json), before the catalogue's."),
]
Versus = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--versus", metavar="SETTING=VALUE", help="A setting of b, such as batch=4, optimizer=adam or mode=infer; repeat for several."
    ),
]
COMPLETED = {"optimizer": complete.optimizers, "loss": complete.losses, "dtype": complete.dtypes, "levers": complete.levers}
SHOWN = ("optimizer", "loss")  # whose defaults the help prints
FLAGS = {"levers": "--lever", "mode": "--train/--infer"}


def asking(*, without: Collection[str] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command that takes a ``request`` the options of one: the model's input, and an option for each field of
    :class:`memest.estimate.question.Question` (``without`` those that it has itself). They stand where ``request`` does."""

    def decorate(run: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(run, localns={"Request": Any}, include_extras=True)
        parameters: list[Parameter] = []
        for p in signature(run).parameters.values():
            if p.name == "request":
                parameters += _options(without)
            else:
                parameters.append(p.replace(annotation=hints[p.name], kind=Parameter.KEYWORD_ONLY))
        own = set(signature(run).parameters) - {"request"}

        def command(**typed: Any) -> None:
            from memest.cli.request import Request

            given = {name: typed.pop(name) for name in typed.keys() - own}
            run(request=Request.of(given), **typed)

        command.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        command.__doc__, command.__name__, command.__module__ = run.__doc__, run.__name__, run.__module__
        return command

    return decorate


def _options(without: Collection[str]) -> Iterator[Parameter]:
    """The options of a request, each as a parameter that typer reads."""
    from memest.estimate.question import Question

    yield _parameter("model", Model, Parameter.empty)
    yield _parameter("inputs", Inputs, None)
    yield _parameter("batch", Batch, None)
    for f in fields(Question):
        if f.name in without:
            continue
        if f.name == "machine":
            yield _parameter("device", Device, None)
            yield _parameter("threads", Threads, None)
            yield _parameter("isa", IsaOption, None)
            continue
        flag = FLAGS.get(f.name, f"--{f.name.replace('_', '-')}")
        about: dict[str, Any] = {"help": f.metadata["help"], "autocompletion": COMPLETED.get(f.name)}
        if f.name == "mode":
            yield _parameter("train", Annotated[bool, typer.Option(flag, **about)], True)
        elif isinstance(f.default, bool):
            yield _parameter(f.name, Annotated[bool, typer.Option(flag, **about)], f.default)
        else:
            several, default = isinstance(f.default, tuple), f.default if f.name in SHOWN else None
            kind: Any = list[str] if several else str
            words = typer.Option(flag, metavar=f.metadata["metavar"], **about)
            yield _parameter(f.name, Annotated[kind if default else kind | None, words], default)


def _parameter(name: str, annotation: Any, default: Any) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
