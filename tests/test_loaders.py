"""Data loaders: what is asked, what is refused, and the arithmetic held against measured loops."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import memest
from memest.errors import MemestError
from memest.machines.loader import Loader, loader_named
from memest.memory.figure import exact, unknown
from memest.memory.loading import PAGE, Fed, Loading, loading
from memest.render.reports import estimate_report

CPU = memest.Cpu(threads=1)
STORED: dict[str, Any] = json.loads((Path(__file__).parents[1] / "validation/results/cluster/loaders.json").read_text(encoding="utf-8"))
MIB = 1 << 20
FIXED = "glibc:mmap_threshold=131072"


def asked(**settings: Any) -> memest.Estimate:
    return memest.estimate(memest.model("resnet18"), input_shape=(2, 3, 64, 64), machine=CPU, **settings)


def test_texts_name_a_loader_and_back() -> None:
    found = loader_named("workers=4, prefetch=3,start=spawn,persistent=true,pin_memory=false")
    assert found == Loader(workers=4, prefetch=3, start="spawn", persistent=True) == loader_named(str(found))
    assert asked(loader=Loader(workers=2)).question.feeding == Loader(workers=2)
    assert asked().loaders is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prefetch=2", "say how many workers"),
        ("workers=0,prefetch=2,start=spawn", "start is about workers, and there are none"),
        ("workers=0,persistent=true", "persistent is about workers"),
        ("workers=2,prefetch=0", "prefetch is a whole number from 1"),
        ("workers=-1", "workers is a whole number from 0"),
        ("workers=2,start=frok", "did you mean 'fork'"),
        ("wrokers=2", "did you mean 'workers'"),
        ("workers=2,workers=3", "given twice"),
        ("workers", "not written option=value"),
        ("workers=2,pin_memory=yes", "true or false"),
        (4, "loader is a text such as 'workers=4,prefetch=2'"),
    ],
)
def test_what_no_loader_is_is_one_line(text: Any, words: str) -> None:
    with pytest.raises(MemestError, match=words) as e:
        asked(loader=text)
    assert "\n" not in str(e.value)


def test_a_loader_is_torchs_and_asked_about_where_it_is_counted() -> None:
    with pytest.raises(MemestError, match="runtime openvino has none"):
        asked(loader="workers=2", runtime="openvino", mode="infer")
    with pytest.raises(MemestError, match="fit counts no data loader"):
        memest.fit(memest.model("resnet18"), "1GiB", "batch", H=64, W=64, loader="workers=2")


def test_on_a_card_workers_are_counted_and_the_hosts_process_is_not() -> None:
    found = memest.estimate(memest.model("resnet18"), input_shape=(2, 3, 64, 64), machine="h100-80gb", loader="workers=2")
    assert found.loaders is not None and found.loaders.shm.bytes and found.loaders.node.bytes is None
    assert found.outermost == found.figures.outermost and "not modelled" in found.loaders.parent.reason
    assert found.loaders.pinned.bytes == 0
    given = Fed(batch=(3 * MIB, 16), process=unknown(""), below_peak=0, replaced=0, moves=False, pins=True)
    assert loading(Loader(workers=2, pin_memory=True), given).pinned.bytes == 5 * (4 * MIB + 16)
    assert loading(Loader(workers=2, pin_memory=True), given._replace(pins=False)).pinned.bytes == 0


def fed(case: dict[str, Any], process: int | None = None) -> Fed:
    """What the measured loop is, of a step that holds nothing but its batch."""
    numbers = case["batch"] * 4
    for n in case["shape"]:
        numbers *= n
    parts = (numbers // 2,) * 2 if case["kind"] == "list" else (numbers,)
    figure = unknown("not measured") if process is None else exact(process, "as measured")
    return Fed(batch=(*parts, 8 * case["batch"]), process=figure, below_peak=0, replaced=0, moves=case["malloc"] == "glibc")


def of(case: dict[str, Any], process: int | None = None) -> Loading:
    given = {name: case[name] for name in ("prefetch", "start", "persistent")} if case["workers"] else {}
    return loading(Loader(workers=case["workers"], **given), fed(case, process))


LOOPS = {key: found for key, found in STORED.items() if not found["case"]["model"]}


@pytest.mark.parametrize("key", LOOPS)
def test_shared_memory_is_as_measured(key: str) -> None:
    """To a page; one more batch may have been there for a moment, and a garbage collection a sample keeps workers behind."""
    found = LOOPS[key]
    shm, most = of(found["case"]).shm, found["most"]["shm"]
    assert shm.bytes is not None and shm.high is not None
    if found["case"]["kind"] == "collected":
        assert most <= shm.bytes
    elif found["case"]["workers"] == 1:
        assert shm.bytes <= most + PAGE * 16 and most <= shm.high
    else:
        assert abs(most - shm.bytes) <= 0.25 * (shm.high - shm.bytes), (most, shm.bytes)


@pytest.mark.parametrize("key", LOOPS)
def test_workers_and_a_process_that_reads_itself_are_within_their_range(key: str) -> None:
    """Own pages of parent and workers together, less those of the parent before it began to read."""
    found = LOOPS[key]
    case, ready = found["case"], found["ready"]["RssAnon"]
    loaded = of(case, ready)
    if case["workers"]:
        assert loaded.worker.low is not None and loaded.worker.high is not None
        each = (found["most"]["own"] - found["most"]["parent"]) / case["workers"]
        assert loaded.worker.low <= each <= loaded.worker.high
    else:
        batch = sum(fed(case).batch)
        most = found["most"]["own"] - ready - batch  # the batch that the step holds is the process's own
        assert loaded.parent.low is not None and loaded.parent.high is not None
        assert loaded.parent.low - 2 * MIB <= ready + most <= loaded.parent.high + 2 * MIB


TRAINED = {key: found for key, found in STORED.items() if found["case"]["model"] and found["case"]["workers"]}


@pytest.mark.parametrize("key", TRAINED)
def test_what_workers_add_to_a_training_process_is_within_its_range(key: str) -> None:
    """resnet18 by Adam, two epochs: the second epoch's workers keep parameters, state and gradients of the first."""
    found = TRAINED[key]
    case, most = found["case"], found["most"]
    loader = Loader(workers=case["workers"], prefetch=case["prefetch"], start=case["start"], persistent=case["persistent"])
    trained = memest.estimate(
        memest.model("resnet18"), input_shape=(case["batch"], *case["shape"]), optimizer="adam", machine=CPU, loader=loader, malloc=FIXED
    )
    assert trained.loaders is not None
    figure, batch = trained.loaders.workers, case["batch"] * 4 * 3 * 112 * 112
    assert figure.low is not None and figure.high is not None
    assert figure.low <= most["own"] - most["parent"] + most["shm"] - batch <= figure.high


def test_forked_workers_of_a_later_epoch_keep_what_the_process_replaced() -> None:
    process = exact(1000 * MIB, "")
    given = Fed(batch=(MIB,), process=process, below_peak=0, replaced=300 * MIB, moves=False)
    again, once = (loading(Loader(workers=2, persistent=kept), given).workers for kept in (False, True))
    assert again.bytes is not None and once.bytes is not None
    assert again.bytes - once.bytes == (300 + 1) * MIB and again.low == once.low


def test_an_estimate_says_it_and_is_held_by_the_node_where_the_process_is_known() -> None:
    found = asked(loader="workers=2,prefetch=3", malloc="glibc:mmap_threshold=131072")
    assert found.loaders is not None and found.loaders.shm.bytes == (2 * 3 + 2) * (2 * 3 * 64 * 64 * 4 + PAGE)
    assert found.to_dict()["loaders"]["loader"] == "workers=2,prefetch=3"
    if found.process.bytes is None:
        assert found.loaders.node.bytes is None and found.outermost == found.figures.outermost
    else:
        assert found.outermost == ("node", found.loaders.node) and found.held_bytes > found.process.bytes


def test_what_is_shown_of_a_loader_adds_up_and_says_why() -> None:
    loader = Loader(workers=4, pin_memory=True)
    found = memest.estimate(
        memest.model("resnet18"), input_shape=(2, 3, 64, 64), optimizer="adam", machine=CPU, loader=loader, malloc=FIXED
    )
    fed = found.loaders
    assert fed is not None and fed.kept.bytes
    parts = [figure.bytes or 0 for figure in (fed.parent, fed.shm, fed.kept)]
    own = 4 * (2 * 3 * 64 * 64) + 8 * 2  # the batch, which the step and /dev/shm both have
    assert fed.node.bytes == sum(parts) + 4 * (fed.worker.bytes or 0) - own
    facts = dict(estimate_report(found, 0).facts)
    assert all(
        f"; {figure.reason}" in facts[name] for name, figure in (("each worker", fed.worker), ("/dev/shm", fed.shm), ("node", fed.node))
    )
    assert "workers keep" in facts and facts["pinned"] == "nothing: pin_memory does nothing without CUDA"
