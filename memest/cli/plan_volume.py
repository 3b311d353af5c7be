"""``memest plan-volume``: one network and one volume, whole, in windows, in tiles, over workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

from memest.cli import options as o
from memest.cli.words import option

if TYPE_CHECKING:
    from memest.cli.request import Request


@o.asking(without=("mode", "optimizer", "loss", "hold_output", "first_step"))
def run(
    request: Request,
    window: Annotated[
        Optional[list[str]],  # noqa: UP045 - it is read at run time
        option("--window", metavar="SIZE", help="A window, 128x128x128 or 128; repeat for several (default: half and a quarter)."),
    ] = None,
    workers: Annotated[str, option("--workers", metavar="N,N", help="Over how many workers the volume is cut.")] = "2,4,8",
    halo: Annotated[
        Optional[str],  # noqa: UP045 - it is read at run time
        option("--halo", metavar="SIZE", help="What tiles and workers read more on each side (default: all that the network sees)."),
    ] = None,
    on: o.On = None,
    budget: o.Budget = None,
    hardware: o.HardwareFile = None,
    form: o.FormatOption = None,
    output: o.Output = None,
) -> int | None:
    """Say what one volume takes: whole, in windows, in tiles, over workers, and what is computed twice.

    Tiles and workers read so much more around their part that results are those of the whole volume. Windows overlap, and their
    predictions are blended, as nnU-Net's predictor (sliding_window) and MONAI's sliding_window_inference do it; memest levers shows their
    other settings, which memest estimate takes. On a card each way is played for it, and the whole process is held against its memory.

    \b
    Examples:
      memest plan-volume unet3d --input 1x240x240x144 --batch 1 --window 128 --halo 16 --on a100-40gb
      memest plan-volume unet3d:levels=3 --input 1x512x512x512 --batch 1 --window 256 --workers 2,8,16 --on server-1.5tb
      memest plan-volume unet3d --input 1x240x240x144 --batch 1 --window 96 --window 128 --budget 8GiB --format csv

    \b
    Exit codes: 0 done (1 where a limit is given and no way fits it), 2 usage, 3 invalid model.
    """
    from memest.cli.answering import cut
    from memest.cli.output import DOES_NOT_FIT, agreed, show
    from memest.cli.request import limits
    from memest.cli.words import said
    from memest.levers.checks import extents, halo_extents, positive
    from memest.render.volumes import volume_report

    form = agreed(form, output)
    request = request.run_on(on or ())
    places = limits(on, budget, hardware)
    found = cut(
        request,
        window=None if window is None else [said("--window", text, extents) for text in window],
        workers=[said("--workers", text, positive) for text in workers.split(",")],
        halo=None if halo is None else said("--halo", halo, halo_extents),
        on=places,
    )
    show(volume_report(found), form, output)
    return DOES_NOT_FIT if places and not any(v.fits for way in found.ways for v in way.verdicts) else None
