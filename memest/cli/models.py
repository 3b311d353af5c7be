"""``memest models``: the built-in models, their options and their parameters."""

from __future__ import annotations

from memest.cli import options as o


def run(form: o.FormatOption = None, output: o.Output = None) -> None:
    """List the built-in models and their options.

    \b
    Examples:
      memest models
      memest models --format json

    \b
    Exit codes: 0 done, 2 usage.
    """
    from memest.cli.output import agreed, show
    from memest.render.catalog import models_report

    form = agreed(form, output)
    show(models_report(), form, output)
