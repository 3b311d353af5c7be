"""What a process is told of malloc, and what is refused."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

import memest
from memest.errors import MemestError
from memest.machines.process import Malloc, malloc_named


def asked(**settings: Any) -> memest.Estimate:
    return memest.estimate(memest.model("resnet18"), input_shape=(2, 3, 64, 64), **settings)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("glibc", Malloc()),
        (" GLIBC ", Malloc()),
        ("glibc:mmap_threshold=131072", Malloc(mmap_threshold=131072)),
        ("glibc:mmap_threshold=128KiB, trim_threshold=0,top_pad=1MiB", Malloc(mmap_threshold=131072, trim_threshold=0, top_pad=1 << 20)),
        ("glibc:arena_max=1,thread=fresh", Malloc(arena_max=1, thread="fresh")),
        ("jemalloc", Malloc(name="jemalloc")),
    ],
)
def test_texts_name_an_allocator(text: str, meant: Malloc) -> None:
    assert malloc_named(text) == meant and malloc_named(str(meant)) == meant
    assert meant.moves == (meant.name == "glibc" and "threshold" not in text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("glbc", "unknown malloc 'glbc'; did you mean 'glibc'"),
        ("tcmalloc", "malloc 'tcmalloc' is not modelled: nothing was measured of it"),
        ("", "unknown malloc ''"),
        ("glibc:", "nothing follows the colon"),
        ("glibc:mmap_threshold", "is not written option=value"),
        ("glibc:mmap_treshold=1", "did you mean 'mmap_threshold'"),
        ("glibc:mmap_threshold=33MiB", "is more than 32.00 MiB"),
        ("glibc:mmap_threshold=-1", "not a size"),
        ("glibc:top_pad=1,top_pad=1", "option 'top_pad' is given twice"),
        ("glibc:arena_max=0", "a whole number from 1"),
        ("glibc:thread=wroker", "did you mean 'worker'"),
        ("jemalloc:arena_max=1", "has no option 'arena_max'"),
        (3, "malloc is a text"),
    ],
)
def test_what_cannot_be_meant_is_one_line(text: Any, words: str) -> None:
    with pytest.raises(MemestError, match=words) as e:
        asked(malloc=text)
    assert "\n" not in str(e.value)


def test_settings_of_another_runtime_are_refused() -> None:
    with pytest.raises(MemestError, match="runtime openvino has no malloc: that is torch-cpu's"):
        asked(malloc="glibc", runtime="openvino", mode="infer")
    with pytest.raises(MemestError, match="settings of onnxruntime and torch-cpu at once"):
        asked(malloc="glibc", ort_arena=False)


def test_a_target_told_of_a_process_survives_pickling() -> None:
    target = asked(malloc="glibc:thread=worker").recipe.target
    assert pickle.loads(pickle.dumps(target)) == target != asked().recipe.target


# figures -----------------------------------------------------------------------------------------------------------------


def test_the_process_is_modelled_when_it_is_asked_for() -> None:
    plain, told = asked(), asked(malloc="glibc")
    assert plain.to_dict()["process"]["bytes"] is None and "--malloc glibc" in plain.to_dict()["process"]["reason"]
    assert plain.process == told.process == told.figures.process
    assert told.figures.outermost == ("process", told.process) and plain.figures.outermost[0] == "reserved"
    assert told.to_dict()["process"]["claim"] == "modelled"
    assert plain.peak_bytes == told.peak_bytes


@pytest.mark.parametrize("malloc", ["glibc", "glibc:mmap_threshold=131072", "jemalloc", "glibc:thread=worker", "glibc:thread=fresh"])
@pytest.mark.parametrize("settings", [{}, {"first_step": True}, {"mode": "infer"}])
def test_a_figure_lies_in_its_range_above_what_is_allocated(malloc: str, settings: dict[str, Any]) -> None:
    found = asked(malloc=malloc, **settings)
    figure = found.process
    assert figure.bytes is not None and figure.low is not None and figure.high is not None
    assert figure.low <= figure.bytes <= figure.high
    assert figure.bytes > found.peak_bytes + (200 << 20)


def test_a_fixed_threshold_holds_what_is_alive() -> None:
    small, large = (asked(malloc=f"glibc:mmap_threshold={n}").process.bytes for n in (131072, 32 << 20))
    moves = asked(malloc="glibc").process
    assert small is not None and large is not None and moves.high is not None
    assert small <= large and small <= moves.high


def test_what_is_compared_is_the_process_where_it_is_counted() -> None:
    graph, budget = memest.model("resnet18"), "700MiB"
    sizes = {"H": 96, "W": 96, "optimizer": "adam"}
    plain, told = (memest.fit(graph, budget, "batch", **sizes, **more) for more in ({}, {"malloc": "glibc:mmap_threshold=131072"}))
    assert plain.value is not None and told.value is not None and told.value < plain.value
    assert told.figure == "process" and told.peak_bytes <= 700 << 20 < (told.next_bytes or 0)
    assert "the process that runs the step" in told.notes[0]
