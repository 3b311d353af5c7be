"""Every row of the table against what torch's CUDA build was recorded to ask for: a row is held here by having examples."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import pytest

from memest.errors import MemestError, UnsupportedError
from memest.machines.target import Target
from memest.memory.stream import Event, Storage
from memest.ops.table import COMPOSITES, OPERATORS

pytest.importorskip("torch")

from memest.runtimes.torch.cuda.rows import ROWS
from validation.cuda.agreement import agrees
from validation.cuda.rows import ELSEWHERE, Row, described, examples
from validation.cuda.storing import RESULTS, load
from validation.cuda.targets import target_of
from validation.rows import predict_events

FILES = sorted(RESULTS.glob("stand-in-*/rows.jsonl.xz"))
NEWEST = "torch-2.14"
QUICK = f"stand-in-h100-80gb-{NEWEST}"
NO_RESULT = "has no result: run python -m validation measure --runtime torch-cuda"


class Told(NamedTuple):
    """A case that is not as recorded: where, the error, and the predicted and recorded streams, where there are any."""

    place: str
    error: str = ""
    events: tuple[Event, ...] = ()
    deltas: tuple[int, ...] = ()


class Named(NamedTuple):
    """A kind of difference that is known, and why it is none of a row's."""

    why: str
    explains: Callable[[Told], bool]


def _picks_by_mask(t: Told) -> bool:
    return any(e.op == "masked_select" for e in t.events)


def _is_workspace_of_cudnn(t: Told) -> bool:
    ranged = [e for e in t.events if e.storage.spread]
    return bool(ranged) and all(e.op == "convolution" for e in ranged) and agrees(t.events, t.deltas, beyond=True)


NAMED = (
    Named("the stand-in computes no values: a mask picks out nothing there, so there are no indices to stage", _picks_by_mask),
    Named("the stand-in computes no values: a loss of 0 takes another branch", lambda t: t.error.startswith("UnboundLocalError")),
    Named(
        "CUDA 13 has neither kernels nor run-time compilation for compute capability 7.0, so torch's own stop there",
        lambda t: "-v100-" in t.place and t.error.startswith(("AcceleratorError", "RuntimeError")),
    ),
    Named(
        "where cuDNN is not there to be asked its workspace is a range, which holds 96 of 100; all else is as recorded",
        _is_workspace_of_cudnn,
    ),
    Named(
        "releases before the newest were recorded once: an example added since is held on the newest",
        lambda t: not t.place.endswith(NEWEST) and t.error == NO_RESULT,
    ),
)


@lru_cache(1)
def every() -> dict[str, tuple[Row, Any]]:
    """All examples, by name."""
    return {name: (row, example) for name, row, example in examples()}


@lru_cache(8)
def recorded(place: str) -> tuple[Target, dict[str, dict[str, Any]]]:
    """What was recorded there, by name of the case."""
    head, records = load(RESULTS / place / "rows.jsonl.xz")
    return target_of(head), {r["case"]: r for r in records}


def is_refused(row: Row, example: Any, target: Target) -> bool:
    """Whether the row, or one that it calls, is not modelled on CUDA at all: nothing is predicted, so nothing need have been recorded."""
    try:
        predict_events(ROWS[row.name], example, target, rows=ROWS)
    except UnsupportedError:
        return True
    return False


def told(place: str, case: str) -> Told | None:
    """How a case is not as recorded; None where it is: the same stream, or torch and memest both refuse it."""
    target, records = recorded(place)
    row, example = every()[case]
    record = records.get(case)
    if record is None or record["example"] != described(example):
        return None if is_refused(row, example, target) else Told(place, error=NO_RESULT)
    error = record.get("error", "")
    try:
        events = tuple(predict_events(ROWS[row.name], example, target, rows=ROWS))
    except MemestError as refused:
        return None if error else Told(place, error=f"refused: {refused}")
    if error:
        return Told(place, error=error)
    return None if agrees(events, record["deltas"]) else Told(place, events=events, deltas=tuple(record["deltas"]))


def explained(t: Told) -> bool:
    """Whether the difference has a name."""
    return any(n.explains(t) for n in NAMED)


def law(place: str, row: str) -> list[str]:
    """What is wrong with a row, in every dtype."""
    cases = [case for case in every() if case.partition("/")[0] == row]
    found = ((case, told(place, case)) for case in cases)
    return [f"{case}: {t.error or [t.deltas, [e.delta for e in t.events]]}" for case, t in found if t is not None and not explained(t)]


NAMES = sorted({*OPERATORS, *COMPOSITES})
OTHERS = [path.parent.name for path in FILES if path.parent.name != QUICK]


@pytest.mark.parametrize("row", NAMES)
def test_a_row_allocates_as_torch_was_recorded_to(row: str) -> None:
    assert law(QUICK, row) == []


@pytest.mark.slow
@pytest.mark.parametrize("place", OTHERS)
@pytest.mark.parametrize("row", NAMES)
def test_a_row_allocates_as_torch_was_recorded_to_on_other_cards_and_releases(row: str, place: str) -> None:
    assert law(place, row) == []


def test_every_row_has_an_example_and_every_card_a_file() -> None:
    assert {case.partition("/")[0] for case in every()} == set(NAMES) - ELSEWHERE
    assert {p.parent.name.split("-")[2] for p in FILES if p.parent.name.endswith(NEWEST)} >= {"h100", "a100", "v100", "t4"}


@pytest.mark.slow
def test_every_named_difference_still_explains_something() -> None:
    found = [t for path in FILES for case in every() if (t := told(path.parent.name, case)) is not None]
    for named in NAMED:
        assert any(named.explains(t) for t in found), named.why


def test_a_modelled_figure_agrees_within_its_range_alone() -> None:
    sure, ranged, perhaps = (Storage(i, n, "activation", "", "", "") for i, n in enumerate((64, 100, 1)))
    ranged.spread, perhaps.spread = (50, 200), (0, 10)
    events = [Event(s.nbytes * sign, s, "forward", "", "") for sign in (1, -1) for s in (sure, ranged, perhaps)]
    assert agrees(events, [64, 80, -64, -80])
    assert agrees(events, [64, 200, 10, -64, -10, -200])
    assert not agrees(events, [64, 201, -64, -201])
    assert agrees(events, [64, 201, -64, -201], beyond=True)
    assert not agrees(events, [65, 80, -65, -80], beyond=True)
    assert not agrees(events, [64, -64])
