"""``python -m validation.engines.openvino measure --python …`` (needs torch; PYTHON has openvino) or ``compare`` (needs neither)."""

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
    comparing = commands.add_parser("compare", help="predictions against what is stored")
    comparing.add_argument("only", nargs="?", default="", help="part of a network's name")
    comparing.add_argument("--all", action="store_true", help="one line a case")
    arguments = parser.parse_args()
    if arguments.command == "measure":
        from validation.engines.openvino.measuring import measure

        return 1 if measure(arguments.python, arguments.only, arguments.folder, again=arguments.again) else 0
    if arguments.command == "calibrate":
        from validation.engines.openvino.calibrating import calibrate

        print(calibrate())
        return 0
    from validation.engines.openvino.comparing import report

    return report(arguments.only, every=arguments.all)


if __name__ == "__main__":
    sys.exit(main())
