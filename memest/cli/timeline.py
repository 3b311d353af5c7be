"""``memest timeline``: the step as a stream of allocations and releases, and its high moments."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

from memest.cli import options as o
from memest.cli.words import option

if TYPE_CHECKING:
    from memest.cli.request import Request

EXPORTS = {".pickle": "memest.render.history", ".json": "memest.render.perfetto"}
Export = Annotated[
    Optional[list[Path]],  # noqa: UP045 - it is read at run time
    option("--export", metavar="FILE", help="Write the step for a viewer: .pickle for torch's memory_viz, .json for Perfetto."),
]


@o.asking()
def run(
    request: Request,
    top: Annotated[int, option("--top", min=1, metavar="N", help="How many high moments to list.")] = 10,
    everything: Annotated[bool, option("--all", help="Every event, in order.")] = False,
    export: Export = None,
    form: o.FormatOption = None,
    output: o.Output = None,
) -> None:
    """List the high moments of a step, or every event.

    An event is an allocation or a release; alive counts what stands before the step too. An export is written beside the list:
    https://pytorch.org/memory_viz opens snapshot.pickle, https://ui.perfetto.dev opens trace.json. With --on CARD the pickle has the
    segments and addresses of the caching allocator, from the first step to the one asked about; the list has the bytes asked for.

    \b
    Examples:
      memest timeline unet3d --input 1x64x64x64 --batch 1 --loss binary_cross_entropy
      memest timeline resnet18 --input 3x224x224 --batch 8 --all --format csv --output events.csv
      memest timeline resnet18 --input 3x224x224 --batch 8 --export snapshot.pickle --export trace.json
      memest timeline resnet18 --input 3x224x224 --batch 8 --on a100-40gb --export snapshot.pickle

    \b
    Exit codes: 0 done, 2 usage, 3 invalid model.
    """
    from memest.cli.answering import answered
    from memest.cli.output import agreed, by_suffix, show, write
    from memest.estimate.holdings import event_rows, high_moments, phase_peaks
    from memest.render.reports import timeline_report

    form = agreed(form, output)
    exporters = {path: by_suffix(path, EXPORTS, "an export is") for path in export or ()}
    _, estimate = answered(request)
    for path, content in [(path, import_module(name).render(estimate)) for path, name in exporters.items()]:
        write(content, path)
    events = event_rows(estimate)
    chosen, title = (events, "Every event") if everything else (high_moments(events, top), "Highest moments")
    show(timeline_report(estimate, phase_peaks(events), chosen, title), form, output)
