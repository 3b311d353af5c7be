"""``memest snapshot``: an allocator history that torch recorded, read, replayed and explained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

from memest.cli import options as o
from memest.cli.words import argument, option

if TYPE_CHECKING:
    from memest.cli.request import Request


@o.asking(without=("device", "threads", "isa"), optional=True)
def run(
    file: Annotated[Path, argument(metavar="FILE", help="A file of torch.cuda.memory._dump_snapshot; nothing in it is run.")],
    request: Request | None = None,
    device: Annotated[Optional[int], option("--device", min=0, metavar="N", help="Which device (default: that with most events).")] = None,  # noqa: UP045
    top: Annotated[int, option("--top", min=1, metavar="N", help="How many of each to list.")] = 10,
    form: o.FormatOption = None,
    output: o.Output = None,
) -> None:
    """Read an allocator history that torch recorded on a GPU, and replay it through torch's caching allocator.

    It says what stood at the peak and who asked for it, how much lay idle, whether every allocation of the replay comes at its recorded
    address, and, where the card ran out, what would have helped. No torch and no GPU is needed. CSV lists the largest blocks.
    With --model (and --on, and the settings of memest estimate) a step of that model is predicted and laid beside the record, request by
    request: how many are equal, and where the two part.

    \b
    Record one with:
      torch.cuda.memory._record_memory_history()
      ...
      torch.cuda.memory._dump_snapshot("snapshot.pickle")

    \b
    Examples:
      memest snapshot snapshot.pickle
      memest snapshot snapshot.pickle --device 1 --top 30
      memest snapshot snapshot.pickle --format json
      memest snapshot snapshot.pickle --model resnet50 --input 3x224x224 --batch 64 --on a100-40gb --optimizer adamw

    \b
    Exit codes: 0 done, 2 usage, 3 a file that is no history of torch's allocator.
    """
    from memest.cli.output import agreed, show
    from memest.errors import FileError, UsageError
    from memest.planning.recorded import chosen, recorded
    from memest.render.snapshot import snapshot_report
    from memest.sources.snapshots.reading import load_histories

    form = agreed(form, output)
    histories = load_histories(file)
    history = chosen(histories, device, str(file))
    others = tuple(h.device for h in histories if h is not history)
    try:
        found = recorded(history, top)
    except FileError as e:
        raise e.at(str(file)) from None
    report = snapshot_report(found, str(file), others)
    if request is not None:
        if request.card is None and not request.settings.keys() & {"runtime", "device"}:
            raise UsageError("--model is predicted for a card: name the one that the history is of, such as --on a100-40gb")
        from memest.cli.answering import answered
        from memest.planning.beside import beside
        from memest.render.beside import with_prediction

        _, estimate = answered(request)
        report = with_prediction(report, beside(history, estimate.events), found, estimate, top)
    show(report, form, output)
