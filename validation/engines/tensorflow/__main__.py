"""``python -m validation.engines.tensorflow measure --python …`` (PYTHON has tensorflow), ``calibrate`` from what is stored; comparing is
``python -m validation compare --runtime tensorflow-cpu``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main() -> int:
    """0 when every case was measured, or the numbers are written."""
    parser = argparse.ArgumentParser(prog="python -m validation.engines.tensorflow")
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure", help="cases that have no result")
    measuring.add_argument("only", nargs="?", default="", help="part of a case's text: network, shape, mode, on or off")
    measuring.add_argument("--python", required=True, help="an interpreter that has tensorflow")
    measuring.add_argument("--folder", type=Path, help="where results are kept until all are stored")
    keeping = commands.add_parser("keep", help="store what a folder holds")
    keeping.add_argument("folder", type=Path)
    commands.add_parser("calibrate", help="the numbers of the process's model, from all that is stored")
    arguments = parser.parse_args()
    if arguments.command == "measure":
        from validation.engines.tensorflow.measuring import measure

        return 1 if measure(arguments.python, arguments.only, arguments.folder) else 0
    if arguments.command == "keep":
        from validation.engines.tensorflow.measuring import keep

        keep(arguments.folder)
        return 0
    from validation.engines.tensorflow.calibrating import calibrate

    print(calibrate())
    return 0


if __name__ == "__main__":
    sys.exit(main())
