"""The options that commands share, as annotated types: one line each in a command's signature."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Optional

import typer

from memest.cli import complete


class Format(str, Enum):
    """How a result is written."""

    text = "text"
    json = "json"
    csv = "csv"
    markdown = "markdown"


class Isa(str, Enum):
    """Instruction sets the kernel libraries choose by."""

    avx2 = "avx2"
    avx512 = "avx512"


def _only_cpu(device: str) -> str:
    """A callback: torch's allocators on other devices are not modelled."""
    from memest.errors import UsageError

    if device != "cpu":
        raise UsageError(f"--device {device!r}: only torch's CPU allocator is modelled; leave --device out, or give --device cpu")
    return device


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
Train = Annotated[bool, typer.Option("--train/--infer", help="One training step, or one inference call.")]
Optimizer = Annotated[
    str,
    typer.Option(
        "--optimizer",
        metavar="NAME[:OPTION=VALUE,...]",
        autocompletion=complete.optimizers,
        help="Such as sgd:momentum=0.9 or adamw:foreach=true.",
    ),
]
Loss = Annotated[
    str,
    typer.Option(
        "--loss", metavar="NAME", autocompletion=complete.losses, help="torch.nn.functional's name, such as cross_entropy or mse."
    ),
]
Dtype = Annotated[
    Optional[str],  # noqa: UP045 - typer reads it at run time
    typer.Option(
        "--dtype",
        metavar="NAME",
        autocompletion=complete.dtypes,
        help="Convert network and inputs first: float64, float32, bfloat16 or float16.",
    ),
]
HoldOutput = Annotated[bool, typer.Option("--hold-output", help="The model's output and the loss stay in variables through backward.")]
FirstStep = Annotated[bool, typer.Option("--first-step", help="The step in which the optimizer's state appears, instead of a later one.")]
Device = Annotated[str, typer.Option("--device", metavar="cpu", callback=_only_cpu, help="The only device that is modelled: cpu.")]
Levers = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--lever",
        metavar="NAME[:OPTION=VALUE,...]",
        autocompletion=complete.levers,
        help="Something changed to need less memory, such as accumulate:steps=4; repeat for several. See: memest levers.",
    ),
]
Threads = Annotated[Optional[int], typer.Option("--threads", min=1, metavar="N", help="Threads of the runtime (default: this machine's).")]  # noqa: UP045
IsaOption = Annotated[Optional[Isa], typer.Option("--isa", help="Instruction set of the runtime (default: this machine's).")]  # noqa: UP045
TorchOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--torch", metavar="VERSION", help="Whose kernels: 2.9 to 2.14 (default: the recorded module's, else the newest)."),
]
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
