"""``memest plot sizes``: the peak against the side of the input, a line a batch, with capacities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

from memest.cli import options as o
from memest.cli.plot import Picture
from memest.cli.words import option

if TYPE_CHECKING:
    from memest.cli.request import Request

Sides = Annotated[str, option("--sides", metavar="N,N,...", help="What every spatial size of the input is set to.")]
Batches = Annotated[
    Optional[str],  # noqa: UP045
    option("--batches", metavar="N,N,...", help="Batch sizes, a line each (default: 1,2,4,8,16, or the one of --batch)."),
]
Capacity = Annotated[
    Optional[list[str]],  # noqa: UP045 - it is read at run time
    option("--capacity", metavar="[NAME=]SIZE", help="A line to compare with, such as 1.5TB or gpu=40GiB; repeat for several."),
]
ORIGIN = ["192 GB", "384 GB", "1.5 TB", "7.5 TB"]  # servers of the study that memest began with, in DRAM and with persistent memory


@o.asking()
def run(
    request: Request,
    sides: Sides = "32,64,128,144,200,240,320",
    batches: Batches = None,
    capacity: Capacity = None,
    form: o.FormatOption = None,
    output: Picture = None,
) -> None:
    """Draw the peak against the size of the input and the batch.

    Sides are cubes for volumes and squares for images. A side at which the network cannot run is left out, with the reason. A torch model
    needs --input, the shape it is imported at. In the terminal, and in a FILE that is no picture, a table, which --format writes as data.

    \b
    Examples:
      memest plot sizes unet3d:levels=4 --sides 32,64,128 --batches 1,2 --optimizer adam --loss binary_cross_entropy --output sizes.svg
      memest plot sizes resnet50 --sides 64,128,224 --batches 1,8,64 --capacity gpu=40GiB --format csv

    \b
    Exit codes: 0 done, 2 usage, 3 invalid model.
    """
    from memest.cli.answering import grow
    from memest.cli.output import SUFFIXES, agreed, by_suffix, show, write
    from memest.cli.plot import PICTURES, capacities, numbers
    from memest.errors import UsageError
    from memest.render.plot import sizes as picture
    from memest.render.sizes import sizes_report

    drawn = None if output is None else PICTURES.get(output.suffix.lower())
    if output is not None and str(output) != "-" and form is None:
        by_suffix(output, {**PICTURES, **SUFFIXES}, "a picture or its numbers are")
    if drawn is not None and form is not None:
        raise UsageError(f"--output {output} is a picture, --format {form.value} writes the numbers; leave out one of them")
    form = None if drawn is not None else agreed(form, output)
    lines = capacities(ORIGIN if capacity is None else capacity)
    asked = batches or ("1,2,4,8,16" if request.batch is None else str(request.batch))
    found = grow(request, numbers(sides, "--sides"), numbers(asked, "--batches"))
    if drawn is None:
        show(sizes_report(found, lines), form, output)
    else:
        write(picture.render(found, lines, drawn), output)
