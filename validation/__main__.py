"""``python -m validation``: measure, libraries, compare, versions, diff, bench, fuzz, list, presets, published,
history, origin, serving."""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path

RUNTIMES = ("torch-cpu", "torch-cuda")
ENGINES = {
    name: f"validation.engines.{folder}.comparing"
    for name, folder in (("onnxruntime", "onnxruntime"), ("openvino", "openvino"), ("tensorflow-cpu", "tensorflow"))
}
LIBRARY_GROUPS = ("libraries", "timm", "smp", "monai", "transformers")


def main() -> int:
    """Run one command; 0 when every claim it checks holds."""
    parser = argparse.ArgumentParser(prog="python -m validation", description="memest's predictions against measured torch")
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="the cases, one a line")
    listing.add_argument("only", nargs="?", default="")
    listing.add_argument("--runtime", choices=RUNTIMES, default="torch-cpu")
    measuring = commands.add_parser("measure", help="measure cases that have no current result (needs torch)")
    measuring.add_argument("only", nargs="?", default="", help="part of a case's name, or a group")
    measuring.add_argument("--again", action="store_true", help="measure also what has a result")
    _cuda_options(measuring)
    measuring.add_argument("--torch", metavar="RELEASE", help="of torch-cuda: in a fresh environment with that release, such as 2.14.1")
    measuring.add_argument("--on-card", action="store_true", help="of torch-cuda: on this machine's card, not on the stand-in for it")
    cuda_printing = commands.add_parser("measure-cuda-print", help="measure one case of torch-cuda in this process and print it")
    cuda_printing.add_argument("card")
    cuda_printing.add_argument("name")
    cuda_here = commands.add_parser("measure-cuda-here", help="measure cases of torch-cuda in this process")
    cuda_here.add_argument("card")
    cuda_here.add_argument("only", nargs="?", default="")
    cuda_here.add_argument("--again", action="store_true")
    of_libraries = commands.add_parser("libraries", help="measure networks of libraries that are installed here (see validation/libraries)")
    of_libraries.add_argument("library", help="timm, smp, monai or transformers")
    of_libraries.add_argument("only", nargs="?", default="", help="part of a network's name")
    of_libraries.add_argument("--again", action="store_true", help="measure also what has a result")
    one = commands.add_parser("measure-one", help="measure cases in this process, whose runtime is theirs")
    one.add_argument("names", nargs="+")
    printing = commands.add_parser("measure-print", help="measure cases in this process and print what was measured")
    printing.add_argument("names", nargs="+")
    versioning = commands.add_parser("versions", help="each modelled torch in an environment of its own: laws, networks, cases")
    versioning.add_argument("versions", nargs="*", metavar="VERSION", help="such as 2.9 (default: all that are modelled)")
    versioning.add_argument("--python", help="an interpreter that has that torch, in place of a new environment")
    here = commands.add_parser("version-here", help="the same with the torch of this process")
    here.add_argument("release")
    comparing = commands.add_parser("compare", help="the accuracy table; fails when a claim fails")
    comparing.add_argument("only", nargs="?", default="")
    comparing.add_argument("--all", action="store_true", help="one line a case")
    comparing.add_argument("--runtime", choices=(*RUNTIMES, *ENGINES), default="torch-cpu")
    comparing.add_argument("--process", action="store_true", help="of torch-cpu: the resident set of stored processes, and nothing else")
    comparing.add_argument("--readme", action="store_true", help="fail, too, when README.md states another table")
    differing = commands.add_parser("diff", help="measure a case and show the first event that differs")
    differing.add_argument("name", help="a case's name, or part of it")
    _cuda_options(differing)
    differing.add_argument("--on-card", action="store_true", help="of torch-cuda: on this machine's card, not on the stand-in for it")
    fuzzing = commands.add_parser("fuzz", help="random networks, measured and predicted")
    fuzzing.add_argument("--cases", type=int, default=100)
    fuzzing.add_argument("--seed", type=int, default=0)
    fuzzing.add_argument("--contexts", action="store_true", help="random contexts in the forward's own code")
    fuzzing.add_argument("--steps", action="store_true", help="random training steps, recorded from their own code")
    _cuda_options(fuzzing)
    fuzzing.add_argument("--on-card", action="store_true", help="of torch-cuda: on this machine's card, not on the stand-in for it")
    fuzz_here = commands.add_parser("fuzz-cuda-here", help="random networks on torch-cuda in this process")
    fuzz_here.add_argument("card")
    fuzz_here.add_argument("--cases", type=int, default=100)
    fuzz_here.add_argument("--seed", type=int, default=0)
    fuzz_here.add_argument("--contexts", action="store_true")
    fuzz_here.add_argument("--steps", action="store_true")
    benching = commands.add_parser("bench", help="speed beside an earlier build, the floor, torch's MemTracker and torchinfo, in one run")
    benching.add_argument("--quick", action="store_true", help="fewer repetitions")
    benching.add_argument("--only", metavar="PATTERN", default="", help="part of the name of a line or of a group of claims")
    commands.add_parser("presets", help="nnU-Net's presets: its planner's constant, and bytes")
    recorded = commands.add_parser("history", help="a step that a real card recorded, beside its prediction (needs torch)")
    recorded.add_argument("folder", nargs="?", help="where the record lies (default: shared/traces beside the checkout)")
    publishing = commands.add_parser("published", help="training runs that others published, and what is predicted for them (needs torch)")
    publishing.add_argument("folder", nargs="?", help="where cuda_training.csv lies (default: shared/published beside the checkout)")
    origin = commands.add_parser("origin", help="the 3-D U-Net of the project's origin by size, batch, framework and use")
    origin.add_argument("--figure", metavar="FILE", help="draw it, too (needs matplotlib)")
    origin.add_argument("--measure", metavar="FRAMEWORK", help="measure cells first: torch, tensorflow, 'tensorflow without oneDNN'")
    origin.add_argument("--python", default=sys.executable, help="an interpreter that has the framework")
    origin.add_argument("--most", type=float, default=10, metavar="GIB", help="leave out cells that hold more than this")
    serving = commands.add_parser("serving", help="memest serve under load (needs wrk)")
    serving.add_argument("--seconds", type=int, default=8, help="of each load")
    serving.add_argument("--steady", type=int, default=600, metavar="SECONDS", help="of the steady rate, over which memory is watched")
    serving.add_argument("--store", action="store_true", help="keep what was found as data")
    arguments = parser.parse_args()
    run = {
        "list": _list, "measure": _measure, "measure-one": _measure_one, "compare": _compare, "diff": _diff, "fuzz": _fuzz, "bench": _bench,
        "versions": _versions, "version-here": _version_here, "measure-print": _measure_print,
        "measure-cuda-here": _measure_cuda_here, "measure-cuda-print": _measure_cuda_print,
        "fuzz-cuda-here": _fuzz_cuda_here, "presets": _presets,
        "published": _published, "history": _history, "libraries": _libraries,
        "origin": _origin, "serving": _serving,
    }  # fmt: skip
    return run[arguments.command](arguments)


def _cuda_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--runtime", choices=RUNTIMES, default="torch-cpu")
    command.add_argument("--card", default="h100-80gb", help="of torch-cuda: a described card of the catalogue")
    command.add_argument("--python", help="of torch-cuda: an interpreter whose torch is built for CUDA (or MEMEST_CUDA_PYTHON)")


def _selected(only: str) -> list[object]:
    from validation.cases import CASES

    return [c for c in CASES if not only or only in c.name or only == c.group]


def _list(arguments: argparse.Namespace) -> int:
    if arguments.runtime == "torch-cuda":
        from validation.cuda.diff import names

        print("\n".join(name for name in names() if arguments.only in name))
        return 0
    for case in _selected(arguments.only):
        print(case.name)  # type: ignore[attr-defined]
    return 0


def _measure(arguments: argparse.Namespace) -> int:
    if arguments.runtime == "torch-cuda":
        from validation.cuda.measure import measure as measure_cuda
        from validation.cuda.run import fresh, interpreter

        with fresh(arguments.torch) if arguments.torch else nullcontext(interpreter(arguments.python)) as python:
            return measure_cuda(arguments.card, python, arguments.only, on_card=arguments.on_card, again=arguments.again)
    from validation.measure import measure

    return 1 if measure(_selected(arguments.only), again=arguments.again) else 0  # type: ignore[arg-type]


def _libraries(arguments: argparse.Namespace) -> int:
    from validation.libraries.measuring import measure

    measure(arguments.library, arguments.only, again=arguments.again)
    return 0


def _measure_cuda_here(arguments: argparse.Namespace) -> int:
    from validation.cuda.measure import measure_here

    measure_here(arguments.card, arguments.only, again=arguments.again)
    return 0


def _measure_cuda_print(arguments: argparse.Namespace) -> int:
    from validation.cuda.diff import print_measured

    print_measured(arguments.card, arguments.name)
    return 0


def _presets(arguments: argparse.Namespace) -> int:
    from validation.presets import lines

    for line in lines():
        print(line)
    return 0


def _history(arguments: argparse.Namespace) -> int:
    from validation.history import FOLDER, lines

    for line in lines(Path(arguments.folder) if arguments.folder else FOLDER):
        print(line)
    return 0


def _published(arguments: argparse.Namespace) -> int:
    from validation.published.table import FOLDER, lines

    for line in lines(Path(arguments.folder) if arguments.folder else FOLDER):
        print(line)
    return 0


def _origin(arguments: argparse.Namespace) -> int:
    from validation.origin.figure import draw
    from validation.origin.measuring import measure
    from validation.origin.table import lines, rows

    if arguments.measure:
        measure(arguments.measure, arguments.python, arguments.most * 2**30)
    for line in lines():
        print(line)
    if arguments.figure:
        draw(list(rows()), Path(arguments.figure))
    return 0


def _serving(arguments: argparse.Namespace) -> int:
    from validation.serving import print_loads

    return print_loads(arguments.seconds, arguments.steady, store=arguments.store)


def _measure_one(arguments: argparse.Namespace) -> int:
    from validation.measure import measure_those

    measure_those(arguments.names)
    return 0


def _measure_print(arguments: argparse.Namespace) -> int:
    from validation.measure import print_those

    print_those(arguments.names)
    return 0


def _versions(arguments: argparse.Namespace) -> int:
    from validation.versions import measure_versions

    return 1 if measure_versions(arguments.versions, arguments.python) else 0


def _version_here(arguments: argparse.Namespace) -> int:
    from validation.versions import measure_here

    measure_here(arguments.release)
    return 0


def _compare_cuda(arguments: argparse.Namespace) -> int:
    from validation.cuda.compare import compare, equal_steps, failures, table

    found = compare(arguments.only)
    for c in found:
        if arguments.all or (arguments.only and not c.equal):
            print(c)
    print(table(found))
    problems = [] if arguments.only else failures(found)
    problems += _stale(arguments, "validation/CUDA.md", table(found), equal_steps(found))
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def _compare(arguments: argparse.Namespace) -> int:
    if arguments.runtime == "torch-cuda":
        return _compare_cuda(arguments)
    if arguments.runtime in ENGINES:
        return _compare_engine(arguments)
    if arguments.process:
        return _compare_processes(arguments)
    from validation.compare import compare, failures, missing, table
    from validation.versions import compare_versions, version_failures, versions_table

    if arguments.only in LIBRARY_GROUPS:
        return _compare_libraries(arguments)
    if arguments.only == "exporters":
        return _compare_exporters(arguments)
    found = compare(arguments.only)
    if arguments.all or arguments.only:
        for c in found:
            print(f"{c.difference:>14,}  {100 * c.share:8.4f} %  {'' if c.unmatched is None else c.unmatched:>5}  {c.case.name}")
    print(table(found))
    checked = [] if arguments.only else compare_versions()
    if checked:
        print(f"\n{versions_table(checked)}")
    absent = [] if arguments.only else missing()
    if absent:
        print(f"{len(absent)} cases have no current result, e.g. {absent[0]}", file=sys.stderr)
    problems = failures(found) + ([] if arguments.only else version_failures(checked))
    if arguments.readme:
        readme = Path("README.md").read_text(encoding="utf-8")
        if any(text not in readme for text in (table(found), versions_table(checked))):
            problems.append("the README's accuracy tables are stale: put those above in their places")
    for problem in problems:
        print(problem, file=sys.stderr)
    beside = 0 if arguments.only else _compare_libraries(arguments)
    return 1 if problems or beside else 0


def _compare_processes(arguments: argparse.Namespace) -> int:
    from validation.process.comparing import SETS, compare, failures, stored, table

    problems = []
    for name in SETS:
        found = [c for c in compare(stored(name)) if arguments.only in c.case.name]
        for c in found:
            if arguments.all or arguments.only:
                print(f"{c.error:+8.1%}  {c.measured:>14,}  {'within' if c.within else 'outside'}  step {c.step}  {c.case.name}")
        print("\n".join((name, *table(found))))
        problems += [] if arguments.only else failures(found)
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def _compare_engine(arguments: argparse.Namespace) -> int:
    of_engine = import_module(ENGINES[arguments.runtime])
    found = list(of_engine.compare(arguments.only))
    for c in found:
        if arguments.all or arguments.only or not c.equal:
            print(c)
    shown = of_engine.table(found)
    print(shown)
    problems = [] if arguments.only else of_engine.failures(found)
    problems += _stale(arguments, "validation/ENGINES.md", shown, f"{sum(c.equal for c in found)} of {len(found)}")
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def _compare_exporters(arguments: argparse.Namespace) -> int:
    from validation.exporters.comparing import compare, failures, table

    found = list(compare())
    for c in found:
        if arguments.all or not c.sound:
            print(c)
    print(table(found))
    return 1 if failures(found) else 0


def _stale(arguments: argparse.Namespace, page: str, shown: str, equal: str) -> list[str]:
    """With ``--readme``: what the pages say of a runtime that is so no longer."""
    if not arguments.readme or arguments.only:
        return []
    problems = []
    if shown not in Path(page).read_text(encoding="utf-8"):
        problems.append(f"the table of {arguments.runtime} in {page} is stale: put the one above in its place")
    if equal not in " ".join(Path("README.md").read_text(encoding="utf-8").split()):
        problems.append(f"the README does not say that {equal} runs of {arguments.runtime} are equal")
    return problems


def _compare_libraries(arguments: argparse.Namespace) -> int:
    from validation.libraries.comparing import compare, failures, missing, table

    found = compare(arguments.only)
    for c in found:
        if arguments.all or not c.equal:
            print(c)
    print(table(found))
    problems = failures(found) if arguments.only in ("", "libraries") else []
    absent = missing()
    if absent:
        print(f"{len(absent)} networks of libraries have no current result, e.g. {absent[0]}", file=sys.stderr)
    if arguments.readme and table(found) not in Path("README.md").read_text(encoding="utf-8"):
        problems.append("the README's table of libraries is stale: put the one above in its place")
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def _diff(arguments: argparse.Namespace) -> int:
    if arguments.runtime == "torch-cuda":
        from validation.cuda.diff import diff as diff_cuda
        from validation.cuda.run import interpreter

        return diff_cuda(arguments.name, arguments.card, interpreter(arguments.python), on_card=arguments.on_card)
    from validation.diff import diff

    return diff(arguments.name)


def _fuzz_cuda_here(arguments: argparse.Namespace) -> int:
    if arguments.contexts:
        from validation.cuda.fuzz_contexts import fuzz_here as fuzz_contexts_here

        return 1 if fuzz_contexts_here(arguments.cases, arguments.seed, arguments.card) else 0
    if arguments.steps:
        from validation.cuda.fuzz_steps import fuzz_here as fuzz_steps_here

        return 1 if fuzz_steps_here(arguments.cases, arguments.seed, arguments.card) else 0
    from validation.cuda.fuzz import fuzz_here

    return 1 if fuzz_here(arguments.cases, arguments.seed, arguments.card) else 0


def _fuzz(arguments: argparse.Namespace) -> int:
    if arguments.runtime == "torch-cuda":
        from validation.cuda.fuzz import fuzz as fuzz_cuda
        from validation.cuda.run import interpreter

        of = "contexts" if arguments.contexts else "steps" if arguments.steps else ""
        python = interpreter(arguments.python)
        return fuzz_cuda(arguments.cases, arguments.seed, arguments.card, python, on_card=arguments.on_card, of=of)
    if arguments.contexts:
        from validation.fuzz_context_steps import fuzz as fuzz_contexts

        return 1 if fuzz_contexts(arguments.cases, arguments.seed) else 0
    if arguments.steps:
        from validation.fuzz_steps import fuzz as fuzz_steps

        return 1 if fuzz_steps(arguments.cases, arguments.seed) else 0
    from validation.fuzz import fuzz

    return 1 if fuzz(arguments.cases, arguments.seed) else 0


def _bench(arguments: argparse.Namespace) -> int:
    from validation.bench import bench

    return bench(quick=arguments.quick, only=arguments.only)


if __name__ == "__main__":
    sys.exit(main())
