"""``memest report``: a page that computes in the reader's browser, written as one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

from memest.cli import complete
from memest.cli import options as o
from memest.cli.words import option

if TYPE_CHECKING:
    from memest.cli.request import Request


@o.asking(without=("optimizer", "dtype"))
def run(
    request: Request,
    output: Annotated[Path, option("--output", "-o", metavar="FILE", help="The file to write, whole or not at all.")],
    optimizers: Annotated[
        Optional[list[str]],  # noqa: UP045 - it is read at run time
        option(
            "--optimizer",
            metavar="NAME[:OPTION=VALUE,...]",
            autocompletion=complete.optimizers,
            help="An optimizer to choose from; repeat for several.",
        ),
    ] = None,
    dtypes: Annotated[
        Optional[list[str]],  # noqa: UP045
        option("--dtype", metavar="NAME", autocompletion=complete.dtypes, help="A dtype to choose from; repeat for several."),
    ] = None,
    batches: Annotated[Optional[str], option("--batches", metavar="N,N,...", help="Where the batch's slider stops.")] = None,  # noqa: UP045
    sizes: Annotated[
        Optional[list[str]],  # noqa: UP045
        option("--sizes", metavar="[SYMBOL=]N,N,...", help="Where the other sliders stop, all or one by its symbol; repeat."),
    ] = None,
    on: Annotated[
        Optional[list[str]],  # noqa: UP045
        option("--on", metavar="HARDWARE", autocompletion=complete.machines, help="The hardware it opens with."),
    ] = None,
    budget: Annotated[str | None, option("--budget", metavar="SIZE", help="The budget it opens with, such as 24GiB.")] = None,
    hardware: o.HardwareFile = None,
) -> None:
    """Write a live report: one HTML file that computes the peak as its reader moves the sliders.

    The file holds the step's events and size formulas and asks the network for nothing. Optimizers, dtypes, batch and sizes can be
    changed in it; so can the hardware and the budget the peak is held against. Without --input it opens at a usual size.

    --on a CUDA card makes a page of the step on that card: it computes the bytes requested, before the allocator rounds them, and says so;
    what is allocated, reserved and shown at the sizes it opens with stands in its notes, by replay.

    \b
    Examples:
      memest report unet3d:base_filters=4,levels=3 --sizes 32 --batches 1,2 --optimizer adam --loss binary_cross_entropy -o report.html
      memest report resnet18 --input 3x64x64 --batch 2 --sizes 64 --batches 2 --optimizer sgd --budget 24GiB -o resnet18.html

    \b
    Exit codes: 0 done, 2 usage, 3 invalid model.
    """
    from memest.cli.answering import report_model
    from memest.cli.output import by_suffix, write
    from memest.cli.request import limits
    from memest.errors import UsageError
    from memest.machines.reading import hardware as catalogue
    from memest.machines.reading import load_hardware
    from memest.planning.page import read_sizes
    from memest.planning.progress import tell
    from memest.render.page import render

    if str(output) != "-" and (output.is_file() or not output.exists()):
        by_suffix(output, {".html": "html", ".htm": "html"}, "a page is")
    if output.is_dir() or not output.parent.is_dir():  # said before the work, not after it
        raise UsageError(f"cannot write {output}: {'it is a folder' if output.is_dir() else 'its folder does not exist'}")
    if on is not None and len(on) > 1:
        raise UsageError(f"--on is given {len(on)} times, and a page opens with one; its reader chooses among all")
    limits(on, budget, hardware)
    request = request.run_on(on or ())
    stops = read_sizes([batches] if batches else [], "--batches").get("", ())
    data = report_model(
        request,
        **({"optimizers": optimizers} if optimizers else {}),
        dtypes=dtypes,
        batches=stops,
        sizes=read_sizes(sizes or (), "--sizes"),
        say=tell,
    )
    own = () if hardware is None else load_hardware(hardware)
    title, place = "" if request.model == "-" else request.model, on[0] if on else ""
    page = render(data, title=title, hardware=(*own, *catalogue()), on=place, budget=budget or "")
    write(page, output)
