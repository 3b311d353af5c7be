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
