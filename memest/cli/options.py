"""The options that commands share: those of every question, from its fields; and others as annotated types, one line each in a command's
signature."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Optional, get_args

from memest.cli import complete
from memest.cli.choices import Format, Isa
from memest.cli.words import REQUIRED, Command, Word, argument, defaults, option, parameters, taken

Model = Annotated[
    str,
    argument(
        metavar="MODEL",
        autocompletion=complete.models,
        help="A file (.yaml, .json, or - for stdin), a built-in model with options, a folder with Hugging Face's config.json, an "
        "exported program (.pt2), an .onnx or .keras file, or package.module:callable(args), whose code is imported and run.",
    ),
]
ModelOption = Annotated[
    Optional[str],  # noqa: UP045 - it is read at run time
    option("--model", metavar="MODEL", autocompletion=complete.models, help="A model, as memest estimate takes it."),
]
Inputs = Annotated[
    Optional[list[str]],  # noqa: UP045 - it is read at run time
    option(
        "--input",
        "-i",
        metavar="[NAME=]SHAPE",
        help="Shape such as 3x224x224 with --batch, or 8x3x224x224 without; repeat for several inputs. Of torch code also ids=8xint64 "
        "(a dtype) and images.0=3x64x64, images.1=… (a list).",
    ),
]
Batch = Annotated[Optional[int], option("--batch", "-b", min=1, metavar="N", help="Batch size, put in front of every --input.")]  # noqa: UP045
Configuration = Annotated[
    Optional[str],  # noqa: UP045 - it is read at run time
    option("--configuration", metavar="NAME", help="The configuration of nnU-Net's plans, such as 3d_fullres."),
]
Arguments = Annotated[
    Optional[list[str]],  # noqa: UP045 - it is read at run time
    option("--arg", metavar="NAME=VALUE", help="An argument of the torch code called, such as width=32 or conv=torch.nn.Conv3d; repeat."),
]
ArgumentsFile = Annotated[
    Optional[Path],  # noqa: UP045 - it is read at run time
    option("--args", metavar="FILE", help="Arguments of the torch code called: a mapping in a .yaml or .json file."),
]
Assumed = Annotated[
    Optional[list[str]],  # noqa: UP045 - it is read at run time
    option(
        "--assume",
        metavar="WHAT=COUNT",
        help="Of torch code whose sizes depend on values: how many there are, such as boxes=300, selected=30% or net.py:31=5,7; repeat.",
    ),
]
Threads = Annotated[Optional[int], option("--threads", min=1, metavar="N", help="Threads of the runtime (default: this machine's).")]  # noqa: UP045
IsaOption = Annotated[Optional[Isa], option("--isa", help="Instruction set of the runtime (default: this machine's).")]  # noqa: UP045
Device = Annotated[Optional[str], option("--device", metavar="cpu|cuda", help="Short for --runtime torch-cpu or torch-cuda.")]  # noqa: UP045
Card = Annotated[
    Optional[list[str]],  # noqa: UP045
    option("--on", metavar="CARD", autocompletion=complete.machines, help="The card it runs on, such as h100-80gb: torch-cuda runs it."),
]
FormatOption = Annotated[
    Optional[Format],  # noqa: UP045
    option("--format", "-f", help="How the result is written (default: as FILE's suffix says, else text)."),
]
Output = Annotated[
    Optional[Path],  # noqa: UP045
    option("--output", "-o", metavar="FILE", help="Write the result to FILE, whole or not at all (- is stdout)."),
]
On = Annotated[
    Optional[list[str]],  # noqa: UP045
    option(
        "--on",
        metavar="HARDWARE",
        autocompletion=complete.machines,
        help="Say whether it fits on this machine (the command hardware lists them); repeat for several.",
    ),
]
Budget = Annotated[Optional[str], option("--budget", metavar="SIZE", help="Say whether it fits in SIZE, such as 24GiB.")]  # noqa: UP045
HardwareFile = Annotated[
    Optional[Path],  # noqa: UP045
    option("--hardware", metavar="FILE", help="Hardware of your own (.yaml or .json), before the catalogue's."),
]
Versus = Annotated[
    Optional[list[str]],  # noqa: UP045
    option("--versus", metavar="SETTING=VALUE", help="A setting of b, such as batch=4, optimizer=adam or mode=infer; repeat for several."),
]
Workers = Annotated[
    Optional[int],  # noqa: UP045
    option("--workers", min=0, metavar="N", help="The data loader's num_workers: count the process, its workers and /dev/shm, too."),
]
Prefetch = Annotated[Optional[int], option("--prefetch", min=1, metavar="N", help="The data loader's prefetch_factor [default: 2].")]  # noqa: UP045
WorkersStart = Annotated[
    Optional[str],  # noqa: UP045
    option("--workers-start", metavar="HOW", help="How workers start: fork (the default), spawn or forkserver."),
]
PersistentWorkers = Annotated[bool, option("--persistent-workers", help="The data loader's persistent_workers.")]
PinMemory = Annotated[bool, option("--pin-memory", help="The data loader's pin_memory.")]
LOADER = {
    "workers": Workers, "prefetch": Prefetch, "start": WorkersStart, "persistent": PersistentWorkers, "pin_memory": PinMemory,
}  # fmt: skip
COMPLETED = {
    **{"optimizer": complete.optimizers, "loss": complete.losses, "dtype": complete.dtypes, "levers": complete.levers},
    "runtime": complete.runtimes,
}
SHOWN = ("optimizer", "loss")  # whose defaults the help prints
FLAGS = {"levers": "--lever", "mode": "--train/--infer", "cudnn_enabled": "--with-cudnn/--no-cudnn", "ov_mmap": "--ov-mmap/--no-ov-mmap"}
FLAGS |= {f"ort_{name}": f"--ort-{name}/--no-ort-{name}" for name in ("arena", "pattern", "external")}


def asking(*, without: Collection[str] = (), optional: bool = False, fed: bool = False) -> Callable[[Callable[..., Any]], Command]:
    """Gives a command that takes a ``request`` the options of one: the model's input, and an option for each field of
    :class:`memest.estimate.question.Question` (``without`` those that it has itself). They stand where ``request`` does. Where it is
    ``optional`` the model is an option, too, and ``request`` is None without it. Where it is ``fed`` a data loader is counted."""

    def decorate(run: Callable[..., Any]) -> Command:
        own, given = taken(run, Request=Any), defaults(run)
        words: dict[str, tuple[Any, Word]] = {}
        left_out: dict[str, Any] = {}
        for name in parameters(run):
            if name == "request":
                left = {*without, *(("cards",) if "on" in parameters(run) else ()), *(() if fed else ("loader",))}
                for option_name, kind, word, default in _options(left, optional):
                    words[option_name] = kind, word
                    left_out.update({} if default is REQUIRED else {option_name: default})
            else:
                words[name] = own[name]
                left_out.update({name: given[name]} if name in given else {})

        def command(**typed: Any) -> int | None:
            from memest.cli.request import Request

            asked = {name: typed.pop(name) for name in typed.keys() - own.keys()}
            result: int | None = run(request=Request.of(asked) if not optional else Request.perhaps(asked, left_out), **typed)
            return result

        command.words, command.left_out = words, left_out  # type: ignore[attr-defined]
        command.__doc__, command.__name__, command.__module__ = run.__doc__, run.__name__, run.__module__
        return command

    return decorate


def _options(without: Collection[str], optional: bool) -> Iterator[tuple[str, Any, Word, Any]]:
    """The options of a request: name, type, word and default of each."""
    from memest.estimate.question import Question

    model = ModelOption if optional else Model
    of_the_model = {"configuration": Configuration, "arguments": Arguments, "arguments_file": ArgumentsFile, "assume": Assumed}
    for name, hint in {"model": model, **of_the_model, "inputs": Inputs, "batch": Batch}.items():
        if name in without:
            continue
        yield name, *get_args(hint), REQUIRED if hint is Model else None
    for f in fields(Question):
        if f.name in without:
            continue
        if f.name == "machine":
            for name, hint in (("device", Device), ("threads", Threads), ("isa", IsaOption), ("cards", Card)):
                if name not in without:
                    yield name, *get_args(hint), None
            continue
        if f.name == "loader":
            for name, word_of in LOADER.items():
                yield name, *get_args(word_of), False if get_args(word_of)[0] is bool else None
            continue
        flag = FLAGS.get(f.name, f"--{f.name.replace('_', '-')}")
        left_out = f" [default: {f.default}]" if f.name in SHOWN else ""
        word = option(flag, help=f.metadata["help"] + left_out, metavar=f.metadata["metavar"] or None, autocompletion=COMPLETED.get(f.name))
        if f.name == "mode":
            yield "train", bool, word, True
        elif isinstance(f.default, bool):
            yield f.name, bool, word, f.default
        else:
            kind: Any = list[str] if isinstance(f.default, tuple) else str
            yield f.name, Optional[kind], word, None  # noqa: UP045
