"""The one question, put to who can answer it: cuDNN, else its stored answers, else the model of it."""

from __future__ import annotations

from memest.errors import UnsupportedError
from memest.libraries.cudnn import library, rule, table
from memest.libraries.cudnn.question import Convolution
from memest.libraries.cudnn.workspace import Card, Release, Workspace

BFLOAT16_SINCE = (8, 0)
"""The first compute capability for which cuDNN convolves bfloat16."""
TRIED = 10
"""How many plans ``cudnn.benchmark`` times: ``torch.backends.cudnn.benchmark_limit``."""


def workspace(device: Card, release: Release, question: Convolution, *, benchmark: bool = False) -> Workspace:
    """The workspace torch takes for a convolution on ``device`` with this release of cuDNN: exact where cuDNN or a stored answer says so.

    UnsupportedError where it has no plan at all: torch stops there with "GET was unable to find an engine to execute this computation".
    A plan whose workspace cannot be allocated is passed over for the next of :func:`candidates`; here memory is taken to suffice. With
    ``benchmark`` the fastest of the first ten is taken, which nobody knows without the card: ``low`` and ``high`` are the least and the
    most of them, ``bytes`` is the one that heuristics rank first, ``trial`` the most of all.
    """
    answer = library.plans(device, release, question)
    if has_none(device, question) or (answer == () and library.knows(device, release)):
        layout = " in channels_last" if question.channels_last else ""
        instead = "float16 or float32" if question.dtype == "bfloat16" else "another dtype"
        raise UnsupportedError(
            f"cuDNN has no plan for this convolution of {question.dtype}{layout} on {device}, so torch stops there: take {instead}"
        )
    if benchmark:
        return _benchmarked(device, release, question)
    if answer:
        return Workspace(bytes=answer[0], low=answer[0], high=answer[0], source="cudnn")
    found = table.stored(device, release, question)
    return _modelled(device, release, question) if found is None else Workspace(bytes=found, low=found, high=found, source="table")


def has_none(device: Card, question: Convolution) -> bool:
    """Whether no release has a plan, as is known without asking: 9.24 has none for bfloat16 on any card below 8.0, in any direction, layout
    or shape that was asked (240 questions of each of six cards), and one or more for each of 14,000 random others on four cards."""
    return question.dtype == "bfloat16" and device.capability < BFLOAT16_SINCE


def candidates(device: Card, release: Release, question: Convolution) -> tuple[int, ...]:
    """Workspaces of all plans in the order torch tries them, where cuDNN can be asked; else ()."""
    return library.plans(device, release, question, every=True) or ()


def _modelled(device: Card, release: Release, question: Convolution) -> Workspace:
    """What is stored for the batches around: right for five in six, and, a tenth of the operands to either side, for 98 of 100 (2,678
    questions between stored batches, cuDNN 9.24 on an A100, an H100 and an RTX 3090). Else what the trees say."""
    likely = table.likely(device, release, question)
    if not likely:
        return rule.modelled(device, question)
    beside = sum(question.nbytes) // 10 + 1
    return Workspace(bytes=likely[0], low=max(0, min(likely) - beside), high=max(likely) + beside, source="rule")


def _benchmarked(device: Card, release: Release, question: Convolution) -> Workspace:
    every = candidates(device, release, question)
    if every:
        timed = every[:TRIED]
        return Workspace(bytes=every[0], low=min(timed), high=max(timed), source="cudnn", trial=max(every))
    first = workspace(device, release, question)
    model = rule.modelled(device, question)
    high = max(first.high, model.high, sum(question.nbytes))
    return Workspace(bytes=first.bytes, low=0, high=high, source="rule", trial=high)
