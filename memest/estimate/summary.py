"""The highest point of a step, read off its timeline, or of the step compiled once a graph is estimated at several sizes."""

from __future__ import annotations

from collections.abc import Mapping

from memest.estimate.played import TheSteps
from memest.memory.live_sets import LiveSets, Summary
from memest.memory.stream import Stream
from memest.network.graph import Graph
from memest.network.tensor import Shape
from memest.runtimes.compiling import DIRECT_PLAYS, MOST_PROGRAMS, compile_program, programs_of, tries_plans
from memest.runtimes.table import play, runtime_named
from memest.runtimes.torch.step import Recipe
from memest.sizes.remembering import Shelf

MOST_SUMMARIES = 16_384  # of a graph


def summarize(steps: TheSteps) -> Summary:
    """The peak of the step asked about: played directly the first times, from the compiled step once a graph is estimated at several
    sizes. Where an allocator is played it needs every event, and the peak is read off them."""
    known: Shelf[Summary] = steps.graph.memo.shelf("summaries", MOST_SUMMARIES)
    at = (steps.recipe, tuple(steps.sizes.values()))
    return known.get(at) or known.keep(at, _summary(steps))


def _summary(steps: TheSteps) -> Summary:
    graph, shapes, sizes, recipe = steps.graph, steps.shapes, steps.sizes, steps.recipe
    if runtime_named(recipe.target.runtime).replays:
        listing = steps.listed_asked()
        return Summary(listing.standing_bytes, listing.above_bytes)
    programs = programs_of(graph, recipe)
    for program in programs.known:
        found = program.at(sizes)
        if found is not None:
            return found
    programs.played += 1
    if programs.played > DIRECT_PLAYS and len(programs.known) < MOST_PROGRAMS:
        here = compiled(graph, shapes, sizes, recipe)
        found = None if here is None else here.at(sizes)
        if found is not None:
            return found
    return read_peak(steps.asked())


def compiled(graph: Graph, shapes: Mapping[str, Shape], sizes: Mapping[str, int], recipe: Recipe) -> LiveSets | None:
    """The program that holds at these sizes: remembered on the graph, or compiled; None when it does not say what the played step says, and
    for a first step that tries plans."""
    if tries_plans(recipe):
        return None
    programs = programs_of(graph, recipe)
    with graph.memo.busy:
        for program in programs.known:
            if program.conditions.hold(sizes):
                return program
        program = compile_program(graph, shapes, sizes, recipe)
        if program.at(sizes) != read_peak(play(graph, shapes, sizes, recipe)):
            return None
        programs.known = (*programs.known, program)[-MOST_PROGRAMS:]
        return program


def read_peak(timeline: Stream) -> Summary:
    """The highest point of a timeline."""
    return Summary(sum(s.nbytes for s in timeline.residents), highest_event(timeline)[1])


def highest_event(timeline: Stream) -> tuple[int, int]:
    """(number of the event with the highest running sum, that sum); (-1, 0) when none rises above 0."""
    best, where = 0, -1
    total = 0
    for i, step in timeline.once():
        total += step.delta
        if total > best:
            best, where = total, i
    return where, best
