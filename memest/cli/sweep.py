"""``memest sweep``: the peak over a product of sizes and settings."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated, Optional

from memest.cli import options as o
from memest.cli.words import option

if TYPE_CHECKING:
    from memest.cli.request import Request


class SweepFormat(str, Enum):
    """How a sweep is written: as any result, or as a table."""

    text = "text"
    json = "json"
    csv = "csv"
    markdown = "markdown"
    parquet = "parquet"
    arrow = "arrow"


TABLES = (SweepFormat.parquet, SweepFormat.arrow)


@o.asking()
def run(
    request: Request,
    axes: Annotated[
        Optional[list[str]],  # noqa: UP045
        option(
            "--axis",
            metavar="NAME=VALUES",
            help="batch=1..64, H=W=32..512:32, optimizer=sgd,adam; repeat for each axis.",
        ),
    ] = None,
    skip: Annotated[bool, option("--skip-invalid", help="Leave out sizes the network cannot run at, instead of stopping.")] = False,
    memory: Annotated[
        Optional[str],  # noqa: UP045
        option("--memory", metavar="SIZE", help="What a sweep shown as text may take, such as 8GiB (default: what is available)."),
    ] = None,
    form: Annotated[
        Optional[SweepFormat],  # noqa: UP045
        option("--format", "-f", help="How the result is written (default: as FILE's suffix says, else text)."),
    ] = None,
    output: o.Output = None,
) -> None:
    """Estimate a whole product of sizes, optimizers, losses, dtypes and modes at once.

    VALUES are numbers joined by commas, or a range: first..last, first..last:step; names are joined by commas (with options: by ;).
    --input and --batch give the sizes that have no axis.
    CSV, JSON, Parquet and Arrow (the last two with pyarrow) are written as the peaks are computed, however many there are.

    \b
    Examples:
      memest sweep resnet50 --axis batch=1..64 --axis H=W=64..512:32 --optimizer adam
      memest sweep unet3d --axis batch=1,2 --axis D=H=W=32..128:16 --axis optimizer=sgd,adam --loss binary_cross_entropy -f csv -o peaks.csv

    \b
    Exit codes: 0 done, 2 usage, 3 invalid model.
    """
    from memest.cli.choices import Format
    from memest.cli.output import SUFFIXES, agreed, show, write
    from memest.cli.planning import product_asked
    from memest.errors import UsageError
    from memest.planning.sweep import AT_ONCE
    from memest.planning.written import arrow
    from memest.render.fits import sweep_csv, sweep_json, sweep_report

    found = agreed(form, output, SweepFormat, {**SUFFIXES, **{f".{f.value}": f.value for f in TABLES}})
    if found in TABLES:
        if output is None or output.suffix.lower() != f".{found.value}":
            raise UsageError(f"--format {found.value} needs a file: --output peaks.{found.value}")
        arrow()
    asked = product_asked(request, axes or (), skip)
    if found in TABLES:
        assert output is not None
        asked.parts(AT_ONCE).write(output)
    elif found is SweepFormat.csv:
        write(sweep_csv(asked.parts(AT_ONCE)), output)
    elif found is SweepFormat.json:
        write(sweep_json(asked.parts(AT_ONCE)), output)
    else:
        show(sweep_report(asked.whole(memory), asked.graph.name), Format(found.value), output)
