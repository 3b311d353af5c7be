"""The one question, put to who can answer it: cuDNN, else its stored answers, else the rule."""

from __future__ import annotations

from memest.libraries.cudnn import library
from memest.libraries.cudnn.question import Convolution
from memest.libraries.cudnn.rule import modelled
from memest.libraries.cudnn.workspace import Card, Release, Workspace

TRIED = 10
"""How many plans ``cudnn.benchmark`` times: ``torch.backends.cudnn.benchmark_limit``."""


def workspace(device: Card, release: Release, question: Convolution, *, benchmark: bool = False) -> Workspace:
    """The workspace torch takes for a convolution on ``device`` with this release of cuDNN, exact where cuDNN or a stored answer says so.

    A plan whose workspace cannot be allocated is passed over for the next (:func:`memest.libraries.cudnn.candidates`); here memory is
    taken to suffice. With ``benchmark`` the fastest of the first ten plans is taken, which no one knows without the card: ``low`` and
    ``high`` are the least and the most of them, ``bytes`` is the plan that heuristics rank first, ``trial`` the most of all.
    """
    if benchmark:
        return _benchmarked(device, release, question)
    answer = library.plans(device, release, question)
    if answer:
        return Workspace(bytes=answer[0], low=answer[0], high=answer[0], source="cudnn")
    return modelled(device, question)


def candidates(device: Card, release: Release, question: Convolution) -> tuple[int, ...]:
    """Workspaces of all plans in the order torch tries them, where cuDNN can be asked; else () ."""
    return library.plans(device, release, question, every=True) or ()


def _benchmarked(device: Card, release: Release, question: Convolution) -> Workspace:
    every = candidates(device, release, question)
    if every:
        timed = every[:TRIED]
        return Workspace(bytes=every[0], low=min(timed), high=max(timed), source="cudnn", trial=max(every))
    rule = modelled(device, question)
    return Workspace(bytes=rule.bytes, low=0, high=rule.high, source="rule", trial=rule.high)
