"""``memest hardware``: the machines memest knows, or one of them with the source of its numbers."""

from __future__ import annotations

from typing import Annotated, Optional

from memest.cli import complete
from memest.cli import options as o
from memest.cli.words import argument


def run(
    name: Annotated[
        Optional[str],  # noqa: UP045
        argument(metavar="[NAME]", autocompletion=complete.machines, help="Show one machine in full."),
    ] = None,
    file: o.HardwareFile = None,
    form: o.FormatOption = None,
    output: o.Output = None,
) -> None:
    """List the machines a network may have to fit on, or show one in full.

    In full: its memories in the order they fill, what of them is usable and why, and the source.
    With --hardware the file's entries come first, and replace those of the same name.

    \b
    Examples:
      memest hardware
      memest hardware a100-40gb
      memest hardware server-7.5tb-pmem --format json

    \b
    Exit codes: 0 done, 2 usage, 3 a file that is not a list of hardware.
    """
    from memest.cli.output import show
    from memest.machines.reading import hardware, hardware_named, load_hardware
    from memest.render.hardware import catalogue_report, entry_report

    own = () if file is None else load_hardware(file)
    report = catalogue_report(hardware(own)) if name is None else entry_report(hardware_named(name, own))
    show(report, form, output)
