"""The resident peak of a Python process that runs a session: imports, weights, what loading leaves behind, and touched activations.

A model with its range (``process.json`` has its numbers), by 30 processes measured with onnxruntime 1.32.0 and numpy under glibc 2.36
(``/proc/self/clear_refs``, VmHWM):

- imports take 46 MiB there, a session some 9 MiB and 12 KiB a node, an arena 1/32 of its regions for bookkeeping;
- of the regions the pages that were handed out are resident;
- rewriting filters into blocks leaves their first copies behind as free heap, which glibc keeps in part: by what is measured 0.3 to 0.8 of
  these filters where weights lie outside the file. Activations live in it, but for regions of 32 MiB or more, which are always mapped
  apart. With a fixed ``MALLOC_MMAP_THRESHOLD_`` larger copies go back to the system at once;
- of a file with the weights in it loading is played on glibc's malloc (:mod:`memest.runtimes.onnxruntime.loading`), and the regions of
  activations behind it: with the small blocks between and without them. The figure lies between, the range reaches beyond both.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from memest.machines.engines import OnnxSettings
from memest.memory.allocators.bfc import ALWAYS_MAPPED, Bfc
from memest.memory.figure import Figure, modelled
from memest.memory.stream import Stream
from memest.runtimes.onnxruntime.loading import loaded
from memest.runtimes.onnxruntime.memory import RUNS, arena_after, most_alive, pattern_block
from memest.runtimes.onnxruntime.playing import Session
from memest.runtimes.onnxruntime.weights import BLOCKED
from memest.sizes.units import format_bytes

THRESHOLD = 256 * 1024
DATA = Path(__file__).with_name("process.json")


class Span(NamedTuple):
    """Low, expected and high."""

    low: float
    expected: float
    high: float


@cache
def measured() -> dict[str, Any]:
    """The numbers of the model, as low, expected and high: bytes of ``imports``, a ``session`` and a ``node``, and what loading leaves of
    filters in blocks, where weights are ``left_outside`` the file; and how far off it is of processes of 200 MiB and more."""
    found: dict[str, Any] = json.loads(DATA.read_text(encoding="utf-8"))
    return found


WORTH = 0.05  # of the process: what a setting has to save to be named


def process_of(stream: Stream, settings: OnnxSettings, nodes: int, *, first: bool) -> Figure:
    """The peak of the first run, or of a later one; its reason names the settings that would bring it down."""
    found = _process(stream, settings, nodes, first)
    assert found.bytes is not None
    better = []
    for what, other in _alternatives(settings, first):
        less = _process(stream, other, nodes, first).bytes
        if less is not None and less < (1 - WORTH) * found.bytes:
            better.append(f"{what}: {format_bytes(less)}")
    return replace(found, reason=f"{found.reason}; {', '.join(better)}") if better else found


def _alternatives(settings: OnnxSettings, first: bool) -> Iterator[tuple[str, OnnxSettings]]:
    if settings.pattern and not first:
        yield "with ort_pattern off", replace(settings, pattern=False)
    if not settings.external:
        yield "with the weights outside the file", replace(settings, external=True)
    if settings.mmap_threshold is None:
        yield f"with MALLOC_MMAP_THRESHOLD_={THRESHOLD}", replace(settings, mmap_threshold=THRESHOLD)


def _process(stream: Stream, settings: OnnxSettings, nodes: int, first: bool) -> Figure:
    if not settings.external and settings.mmap_threshold is None:
        return _with_loading(stream, settings, first)
    standing = sum(s.nbytes for s in stream.residents)
    rewritten = sum(s.nbytes for s in stream.residents if s.reason == BLOCKED)
    apart, within = _activations(stream, settings, first)
    numbers = measured()
    imports, session, node, left = (Span(*numbers[name]) for name in ("imports", "session", "node", "left_outside"))
    small = settings.mmap_threshold is not None
    ends = []
    for n in range(3):
        kept = 0 if small else left[n] * rewritten
        ends.append(round(imports[n] + session[n] + node[n] * nodes + standing + apart + max(kept, within) + (n == 2) * min(kept, within)))
    free = 0 if small else round(left.high * rewritten)
    parts = [
        f"imports ({format_bytes(round(imports.expected))}), a session, weights, inputs, {format_bytes(apart + within)} of activations"
    ]
    off = numbers["outside"]
    said = ", ".join([*parts, *([f"and up to {format_bytes(free)} that loading leaves as free heap"] if free else [])])
    reason = (
        f"{said}; of {off['cases']} processes measured with weights outside the file half are within {off['median']:.1%}, "
        f"all within {off['worst']:.1%}"
    )
    return modelled(ends[1], ends[0], ends[2], reason)


def _with_loading(stream: Stream, settings: OnnxSettings, first: bool) -> Figure:
    """Weights inside the file: what loading leaves of the heap, with the arena's regions behind it."""
    assert isinstance(stream, Session)
    numbers = measured()
    if settings.arena:
        regions = arena_after(stream, settings, 1 if first else RUNS).regions_touched()
    else:
        regions = [(n, n) for n in _activations(stream, settings, first) if n]
    given = sum(s.nbytes for s in stream.residents if s.category == "input")
    besides = round(Span(*numbers["imports"]).expected + Span(*numbers["session"]).expected) + given
    ways = [loaded(stream.residents, stream.nodes, regions, pinned=pinned) for pinned in (False, True)]
    low, high = (f(besides + way.running for way in ways) for f in (min, max))
    off = numbers["inside"]
    reason = (
        f"imports ({format_bytes(round(Span(*numbers['imports']).expected))}), a session, inputs, and the heap with weights, what loading "
        f"them leaves ({format_bytes(besides + max(way.loading for way in ways))} at most meanwhile) and the arena; of {off['cases']} "
        f"processes measured with weights inside the file half are within {off['median']:.1%}, all within {off['worst']:.1%}"
    )
    return modelled((low + high) // 2, round(low * (1 - off["below"])), round(high * (1 + off["above"])), reason)


def _activations(stream: Stream, settings: OnnxSettings, first: bool) -> tuple[int, int]:
    """Touched bytes that lie in mappings of their own, and those in malloc's heap."""
    if not settings.arena:
        block = 0 if first or not settings.pattern else pattern_block(stream)
        most = block + most_alive(stream, traced=False) if block else most_alive(stream)
        return (most, 0) if most >= ALWAYS_MAPPED else (0, most)
    arena: Bfc = arena_after(stream, settings, 1) if first else arena_after(stream, settings)
    mapped, within = arena.touched
    return mapped + arena.most // 32, within
