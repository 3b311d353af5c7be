"""Branches on values that decide nothing: whichever way one goes, the step is the same (``if loss.item() < best: best = loss.item()``)."""

from __future__ import annotations

from typing import NamedTuple

from memest.errors import MemestError, UnsupportedError
from memest.network.graph import Graph
from memest.sources.importers.torch.recording.likeness import alike, played_alike
from memest.sources.importers.torch.steps.steady import Answer, Question, steady

MOST = 3
"""Branches in one step that are tried both ways."""
EITHER_WAY = "a branch on a value decides nothing here: the step is the same whichever way {} goes"


class Decided(NamedTuple):
    """A step, and what was asked, with which way its branches go."""

    question: Question
    answer: Answer


def decided(question: Question, left: int = MOST) -> Decided:
    """The step. UnsupportedError where it is another on the other way of a branch that nobody states, or cannot be found there."""
    question.assumptions.open = ""
    try:
        return Decided(question, steady(question))
    except UnsupportedError as refusal:
        line = question.assumptions.open
        if not line or not left:
            raise
        try:
            one, other = (decided(_going(question, line, way), left - 1) for way in (True, False))
        except (MemestError, SystemExit):
            raise refusal from None
        if not _as_much(one.answer, other.answer):
            raise
    return one._replace(answer=one.answer._replace(graph=_noting(one.answer.graph, other.answer.graph, line)))


def same(one: Graph, other: Graph) -> bool:
    """Whether both steps are alike, and their beginnings, whatever is noted of them."""
    if (one.beginning is None) != (other.beginning is None):
        return False
    if one.beginning is not None and other.beginning is not None and not same(one.beginning, other.beginning):
        return False
    return alike(*(g.with_(beginning=None, notes=()) for g in (one, other))) is not None


def _as_much(one: Answer, other: Answer) -> bool:
    """Whether both steps find the same and ask for the same: they are alike, or differ in what asks for nothing (``state_dict()``)."""
    if same(one.graph, other.graph):
        return True
    found = [(a.graph.inputs, a.graph.parameters, a.graph.hooks, a.graph.on_host, a.graph.refused) for a in (one, other)]
    return found[0] == found[1] and all(map(played_alike, one.played, other.played))


def _going(question: Question, line: str, way: bool) -> Question:
    return question._replace(found=question.call.surroundings(), assumptions=question.assumptions.going(line, way))


def _noting(graph: Graph, other: Graph, line: str) -> Graph:
    """The graph with what is noted of both ways, but for which way the line was taken to go."""
    kept = [note for note in (*graph.notes, *other.notes) if not note.startswith(f"assumed as stated: {line}=")]
    beginning = None if graph.beginning is None or other.beginning is None else _noting(graph.beginning, other.beginning, line)
    return graph.with_(notes=tuple(dict.fromkeys((*kept, EITHER_WAY.format(line)))), beginning=beginning)
