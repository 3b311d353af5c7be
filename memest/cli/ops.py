"""``memest ops``: the table of operators, or one row of it."""

from __future__ import annotations

from typing import Annotated, Optional

from memest.cli import complete
from memest.cli import options as o
from memest.cli.words import argument


def run(
    name: Annotated[
        Optional[str],  # noqa: UP045
        argument(metavar="[OPERATOR]", autocompletion=complete.operators, help="Show one operator in full."),
    ] = None,
    form: o.FormatOption = None,
    output: o.Output = None,
) -> None:
    """List the operators, or show one in full.

    In full: what it reads, its attributes, what it keeps for backward, and the source.

    \b
    Examples:
      memest ops
      memest ops conv2d
      memest ops --format csv

    \b
    Exit codes: 0 done, 2 usage.
    """
    from memest.cli.output import show
    from memest.errors import MemestError, UsageError
    from memest.render.catalog import operator_report, operators_report

    if name is None:
        show(operators_report(), form, output)
        return
    try:
        report = operator_report(name)
    except MemestError as e:
        raise UsageError(str(e)) from None
    show(report, form, output)
