"""``python -m validation.engines.openvino measure --python …`` (needs torch; PYTHON has openvino), ``calibrate`` from what is
stored; comparing is ``python -m validation compare --runtime openvino``."""

from __future__ import annotations

import argparse
import sys


def main() -> int:
    """0 when every case was measured, or every claim holds."""
    parser = argparse.ArgumentParser(prog="python -m validation.engines.openvino")
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure", help="cases that have no result")
    measuring.add_argument("only", nargs="?", default="", help="part of a network's name")
    measuring.add_argument("--python", required=True, help="an interpreter that has openvino")
    measuring.add_argument("--folder", help="where exported files are kept")
    measuring.add_argument("--again", action="store_true", help="measure also what has a result")
    commands.add_parser("calibrate", help="the numbers of the process's model, from all that is stored")
    arguments = parser.parse_args()
    if arguments.command == "measure":
        from validation.engines.openvino.measuring import measure

        return 1 if measure(arguments.python, arguments.only, arguments.folder, again=arguments.again) else 0
    from validation.engines.openvino.calibrating import calibrate

    print(calibrate())
    return 0


if __name__ == "__main__":
    sys.exit(main())
