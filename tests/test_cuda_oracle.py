"""What the oracle of torch-cuda stores, what it holds predictions against, and what its tables say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from memest.memory.stream import Event, Storage
from validation.cuda.compare import Compared, compare, failures, table
from validation.cuda.labels import CARD, STAND_IN
from validation.cuda.measure import card_named
from validation.cuda.networks import OPTIMIZERS, PRECISIONS, Network, cases, networks, sample
from validation.cuda.optimizers import updates
from validation.cuda.rows import described, examples
from validation.cuda.storing import RESULTS, folder_of, load, store
from validation.cuda.sure import expected
from validation.cuda.targets import target_of

HEAD = {"oracle": "stand-in", "card": "t4", "device": "Tesla T4", "torch": "2.14.1+cu130", "cuda": "13.0", "cudnn": 92400}
FILES = sorted(RESULTS.glob("*/*.jsonl.xz"))


def names(path: Path) -> str:
    return f"{path.parent.name}/{path.name.partition('.')[0]}"


def test_results_come_back_as_they_were_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("validation.cuda.storing.RESULTS", tmp_path)
    records: list[dict[str, Any]] = [{"case": "a", "deltas": [512, -512]}, {"case": "b", "error": "refused"}]
    path = store("rows", HEAD, records)
    assert path == tmp_path / "stand-in-t4-torch-2.14" / "rows.jsonl.xz"
    assert load(path) == ({"schema": 1, **HEAD}, records)


@pytest.mark.parametrize("path", FILES, ids=names)
def test_stored_results_say_what_they_were_measured_on(path: Path) -> None:
    head, records = load(path)
    assert head["oracle"] in (STAND_IN, CARD)
    assert folder_of(head) == path.parent
    target = target_of(head)
    assert target.device.title == head["device"]
    assert target.version == tuple(int(n) for n in head["torch"].split(".")[:2])
    assert len({r["case"] for r in records}) == len(records) > 0


@pytest.mark.parametrize("path", FILES, ids=names)
def test_what_a_recorded_stream_releases_it_asked_for_or_found(path: Path) -> None:
    """Of no size more is released than was allocated and, where that is known, stood there before."""
    for record in load(path)[1]:
        standing = record.get("standing", 0)
        live = 0
        for delta in record.get("deltas", ()):
            live += delta
            assert live >= -standing, record["case"]
        if "peak" in record:
            assert record["standing"] <= record["peak"] <= record["reserved"], record["case"]


def test_all_stored_results_together_stay_small() -> None:
    assert FILES
    assert sum(path.stat().st_size for path in FILES) < 6_000_000


def test_every_network_has_all_precisions_and_every_pairing_is_common() -> None:
    every = list(cases())
    assert len(list(networks())) >= 60
    assert len({c.name for c in every}) == len(every)
    by_model: dict[tuple[str, tuple[int, ...]], set[tuple[str, ...]]] = {}
    for c in every:
        if c.mode == "train":
            by_model.setdefault((c.model, c.shape), set()).add(c.levers)
    assert all(found == set(PRECISIONS) for found in by_model.values())
    pairs = [(c.levers, c.optimizer) for c in every if c.mode == "train"]
    counts = [pairs.count((p, o)) for p in PRECISIONS for o in OPTIMIZERS]
    assert max(counts) - min(counts) <= 1


def test_names_of_cases_are_their_own() -> None:
    pytest.importorskip("torch")
    from validation.cuda import parallel
    from validation.cuda.operators import calls

    steps = [*cases(), *parallel.cases()]
    every = [*(c.name for c in calls()), *(u.name for u in updates()), *(c.name for c in steps), *(name for name, _, _ in examples())]
    assert len(set(every)) == len(every)
    assert len(calls()) + len(list(updates())) >= 231


def test_an_example_that_has_changed_is_told_from_the_one_that_was_measured() -> None:
    (_, _, first), (_, _, second), *_ = examples()
    assert described(first) == described(first)
    assert described(first) != described(second)


def test_what_is_only_perhaps_there_is_not_held_against_the_oracle() -> None:
    sure, ranged, perhaps = (Storage(i, nbytes, "activation", "", "", "") for i, nbytes in enumerate((4, 100, 1)))
    ranged.spread, perhaps.spread = (0, 200), (0, 200)
    events = [Event(s.nbytes, s, "forward", "", "") for s in (sure, ranged, perhaps)]
    assert expected(events) == events[:2]


def test_a_card_goes_by_the_beginning_of_its_name_where_that_is_enough() -> None:
    assert card_named("h100") == "h100-80gb"
    assert card_named("a100-40gb") == "a100-40gb"
    for text, said in (("a100", "one of a100-40gb, a100-80gb"), ("abacus", "not described")):
        with pytest.raises(SystemExit, match=said):
            card_named(text)


def step(measured: tuple[int, int], predicted: tuple[int, int], *, refused: str = "", sure: bool = True, asked: bool = False) -> Compared:
    """A compared step, from its (allocated, reserved) bytes."""
    allocated, reserved = (None, None) if refused else tuple(zip(predicted, measured, strict=True))
    where = "stand-in t4, torch 2.14.1"
    peaks: dict[str, Any] = {"allocated": allocated, "reserved": reserved}
    return Compared(group="networks", case="a step", where=where, equal=True, **peaks, refused=refused, sure=sure, asked=asked)


def test_a_claim_that_does_not_hold_is_named() -> None:
    exact = [step((1000, 2000), (1000, 2000))] * 20
    assert failures(exact) == []
    assert failures([*exact, step((1000, 2000), (1006, 2000))]) == [
        "a step (stand-in t4, torch 2.14.1): allocated 1,006, measured 1,000: more than 0.5 % apart"
    ]
    assert failures([*exact, step((1000, 2000), (1000, 2100))]) == [
        "a step (stand-in t4, torch 2.14.1): reserved 2,100, measured 2,000: more than 3 % apart"
    ]
    assert failures([*exact, *[step((0, 0), (0, 0), refused="no rule")] * 3]) == [
        "allocated: 87.0 % of 23 steps are equal, 95 % are claimed", "reserved: 87.0 % of 23 steps are equal, 90 % are claimed"
    ]  # fmt: skip
    assert failures([])


def test_a_modelled_step_is_held_to_the_claims_where_its_own_cudnn_was_asked() -> None:
    exact = [step((1000, 2000), (1000, 2000))] * 20
    assert failures([*exact, step((1000, 2000), (1300, 2000), sure=False)]) == []
    assert len(failures([*exact, step((1000, 2000), (1300, 2000), sure=False, asked=True)])) == 1


def test_releases_before_the_newest_are_measured_on_a_third_that_holds_every_network_and_way() -> None:
    taken, every = list(sample()), list(cases())
    assert abs(3 * len(taken) - len(every)) < 3
    assert {(c.model, c.shape) for c in taken} == {(c.model, c.shape) for c in every}
    pairs = [(c.levers, c.optimizer) for c in taken if c.mode == "train"]
    counts = [pairs.count((p, o)) for p in PRECISIONS for o in OPTIMIZERS]
    assert min(counts) >= 5 and max(counts) <= 7


def test_the_table_counts_what_is_refused_and_gives_the_worst() -> None:
    found = [step((1000, 2000), (1000, 2000)), step((1000, 2000), (1001, 2020)), step((0, 0), (0, 0), refused="no rule")]
    line = table(found).splitlines()[-1]
    assert line == ("| networks | stand-in t4, torch 2.14.1 | 3 | 1 | 3 (100.0 %) | 1 (50.0 %) | 0.10 % | 1 (50.0 %) | 0.50 % | 1.00 % |")


def test_a_pointwise_row_is_held_against_what_was_recorded_on_every_card() -> None:
    pytest.importorskip("torch")
    found = [c for c in compare("sigmoid/0/float32") if c.case.startswith("sigmoid")]
    assert len(found) >= 4
    assert all(c.equal for c in found)


@pytest.mark.slow
def test_without_cudnn_operators_are_as_recorded_on_every_card() -> None:
    pytest.importorskip("torch")
    found = [c for c in compare("no cudnn") if c.group == "operators"]
    assert len(found) >= 20
    assert [str(c) for c in found if not c.equal] == []


def test_a_stale_result_is_left_out() -> None:
    from validation.cuda.compare import current

    case = Network(model="resnet50", shape=(8, 3, 224, 224), mode="infer")
    record = {"case": case.name, "settings": {**case.settings, "levers": [], "shape": [8, 3, 224, 224]}, "deltas": []}
    assert current(case, record)
    assert not current(case, {**record, "settings": {**record["settings"], "shape": [4, 3, 224, 224]}})
    assert not current(case, {**record, "error": "refused"})
