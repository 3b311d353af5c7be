"""``memest levers``: what can be changed to need less memory, and what each change costs."""

from __future__ import annotations

from typing import Annotated, Optional

from memest.cli import complete
from memest.cli import options as o
from memest.cli.words import argument


def run(
    name: Annotated[
        Optional[str],  # noqa: UP045
        argument(metavar="[LEVER]", autocompletion=complete.levers, help="Show one lever in full."),
    ] = None,
    form: o.FormatOption = None,
    output: o.Output = None,
) -> None:
    """List the levers, or show one in full.

    A lever is something a user can change to train or infer in less memory; commands that estimate take it as --lever.

    \b
    Examples:
      memest levers
      memest levers channels_last
      memest levers --format json

    \b
    Exit codes: 0 done, 2 usage.
    """
    from memest.cli.output import show
    from memest.errors import MemestError, UsageError
    from memest.render.catalog import lever_report, levers_report

    if name is None:
        show(levers_report(), form, output)
        return
    try:
        report = lever_report(name)
    except MemestError as e:
        raise UsageError(str(e)) from None
    show(report, form, output)
