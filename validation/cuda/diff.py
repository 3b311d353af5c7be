"""One case measured now, on the stand-in or a card, its stream beside the predicted one: the first event that differs, with the layer and
operator that memest plays there and the Python functions that were at work."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from memest.errors import MemestError
from memest.machines.target import Target
from memest.memory.stream import Event
from validation.cuda.measure import card_named
from validation.cuda.run import ROOT, environment
from validation.cuda.sure import expected
from validation.cuda.targets import target_of
from validation.profiling import Measured
from validation.streams import differing, first_difference

MARK = "measured: "


def diff(name: str, card: str, python: str, *, on_card: bool = False) -> int:
    """Print the comparison of the case called ``name`` (or the first whose name contains it); 0 when the streams are equal."""
    found = case_named(name)
    if found is None:
        print(f"no case is called {name!r}; see: python -m validation list --runtime torch-cuda", file=sys.stderr)
        return 2
    full = found[0]
    command = [python, "-m", "validation", "measure-cuda-print", card_named(card), full]
    env = None if on_card else environment(python, card_named(card))
    done = subprocess.run(command, env=env, cwd=ROOT, check=False, capture_output=True, text=True)
    line = next((text for text in done.stdout.splitlines() if text.startswith(MARK)), None)
    if line is None:
        print(f"{full} could not be measured:\n{done.stderr.strip()[-2000:]}", file=sys.stderr)
        return 2
    return _print(full, json.loads(line.removeprefix(MARK)))


def print_measured(card: str, name: str) -> None:
    """Measure the case of that full name in this process and print one line of JSON: labels, peaks, events."""
    from validation.cuda.labels import labels
    from validation.cuda.recording import start

    found = case_named(name)
    assert found is not None and found[0] == name
    start()
    print(MARK + json.dumps({"head": labels(card), **found[1]()}), flush=True)


Measuring = Callable[[], dict[str, Any]]
Predicting = Callable[[Target], Sequence[Event]]


def case_named(name: str) -> tuple[str, Measuring, Predicting] | None:
    """A case by its name, or the first that contains it: its full name, how it is measured, how it is predicted."""
    cases = [*_rows(), *_operators(), *_optimizers(), *_networks()]
    return next((c for c in cases if c[0] == name), None) or next((c for c in cases if name in c[0]), None)


def names() -> list[str]:
    """The names of all cases."""
    return [c[0] for c in (*_rows(), *_operators(), *_optimizers(), *_networks())]


def _rows() -> list[tuple[str, Measuring, Predicting]]:
    from memest.runtimes.torch.cuda.rows import ROWS
    from validation.cuda.rows import examples
    from validation.rows import measure, predict_events

    def measured(row: Any, example: Any) -> dict[str, Any]:
        from validation.cuda.recording import clean, record

        clean()
        return {"events": measure(row, example, device="cuda", record=record)}

    def predicted(row: Any, example: Any, target: Target) -> Sequence[Event]:
        return predict_events(ROWS[row.name], example, target, rows=ROWS)

    return [
        (name, lambda row=row, example=example: measured(row, example), lambda t, row=row, example=example: predicted(row, example, t))
        for name, row, example in examples()
    ]


def _operators() -> list[tuple[str, Measuring, Predicting]]:
    from validation.cuda.calls import Call
    from validation.cuda.operators import calls
    from validation.cuda.predicting import predict_call

    def measured(call: Call) -> dict[str, Any]:
        from validation.cuda.calling import recorded

        found = recorded(call)
        return {"peak": found.peak, "reserved": found.peak_reserved, "events": found.events}

    return [(c.name, lambda c=c: measured(c), lambda t, c=c: predict_call(c, t)) for c in calls()]


def _optimizers() -> list[tuple[str, Measuring, Predicting]]:
    from validation.cuda.optimizers import Update, predict_update, recorded, updates

    def measured(update: Update) -> dict[str, Any]:
        return {"events": recorded(update).events}

    return [(u.name, lambda u=u: measured(u), lambda t, u=u: predict_update(u, t)) for u in updates()]


def _networks() -> list[tuple[str, Measuring, Predicting]]:
    from validation.cuda import networks, parallel
    from validation.cuda.compare import predict_network
    from validation.cuda.networks import Network

    def measured(case: Network) -> dict[str, Any]:
        from validation.cuda.stepping import recorded

        _, found = recorded(case)
        return {"peak": found.peak, "reserved": found.peak_reserved, "standing": found.standing, "events": found.events}

    def predicted(case: Network, target: Target) -> Sequence[Event]:
        found = predict_network(case, target)
        print(f"predicted: allocated {found.allocated}, reserved {found.reserved}, requested before the step {found.standing_bytes:,}")
        return found.events

    return [(c.name, lambda c=c: measured(c), lambda t, c=c: predicted(c, t)) for c in (*networks.cases(), *parallel.cases())]


def _print(name: str, measured: dict[str, Any]) -> int:
    head, events = measured["head"], [Measured(*e) for e in measured["events"]]
    print(f"{name}\non {head['oracle']} {head['device']}, torch {head['torch']}, cuDNN {head['cudnn']}")
    if "peak" in measured:
        print(f"measured: allocated {measured['peak']:,}, reserved {measured['reserved']:,}")
    found = case_named(name)
    assert found is not None
    try:
        predicted = expected(found[2](target_of(head)))
    except MemestError as error:
        print(f"not predicted: {error}")
        return 1
    difference = first_difference(predicted, events)
    if difference is None:
        print(f"streams equal: {len(events)} events")
        return 0
    unmatched = differing([e.delta for e in predicted], [m.delta for m in events])
    print(f"streams differ; {unmatched} allocations without partner; first difference:\n{difference}")
    return 1
