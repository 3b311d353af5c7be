"""Published and predicted, side by side, as the README has it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from memest.memory.figure import Figure
from validation.published.predicting import CARDS, graph_of, predicted
from validation.published.rows import Run, left_out, runs

MIB = 1024**2
FOLDER = Path(__file__).parents[3] / "shared" / "published"


@dataclass(frozen=True)
class Compared:
    """A run, and ``allocated`` of its training step on each card."""

    run: Run
    found: dict[str, Figure]

    def error(self, card: str) -> float:
        """How far the prediction is from the published figure that is farthest from it, as a share."""
        made = self.found[card].bytes
        assert made is not None
        return max((made / MIB / p - 1 for p in self.run.published), key=abs)

    @property
    def range(self) -> tuple[float, float]:
        """The least and the most on any of the cards, in MiB."""
        lows, highs = ([getattr(f, end) / MIB for f in self.found.values()] for end in ("low", "high"))
        return min(lows), max(highs)

    @property
    def outside(self) -> float:
        """How far the published figure that is farthest out lies above the cards' range (below 0: under it), as a share; 0 within, where a
        published figure stands for all that is rounded to it."""
        low, high = self.range
        above = max(self.run.published) - self.run.rounding - high
        below = min(self.run.published) + self.run.rounding - low
        return above / high if above > 0 else below / low if below < 0 else 0.0


def compared(folder: Path = FOLDER, family: str = "", cards: tuple[str, ...] = CARDS) -> Iterator[Compared]:
    """The runs of a family (all: of each)."""
    for run in runs(folder):
        if family in ("", run.family):
            graph = graph_of(run)
            yield Compared(run, {card: predicted(graph, run, card).allocated for card in cards})


def lines(folder: Path = FOLDER) -> Iterator[str]:
    """The table, in Markdown."""
    yield f"| run | published, MiB | {' | '.join(CARDS)} | error, {CARDS[0]} | within the cards' range |"
    yield f"|---|{'---:|' * (len(CARDS) + 3)}"
    for c in compared(folder):
        published = " to ".join(f"{p:,.0f}" for p in dict.fromkeys((c.run.published[0], c.run.published[-1])))
        figures = " | ".join(_shown(c.found[card]) for card in CARDS)
        off = c.outside
        yield f"| {c.run.name} | {published} | {figures} | {c.error(CARDS[0]):+.2%} | {'yes' if not off else _off(off)} |"
    others = left_out(folder)
    yield ""
    yield f"{len(others)} more configurations are not rebuilt: their losses have a Dice term of that repository's own."


def _off(share: float) -> str:
    return f"no, {abs(share):.2%} {'above' if share > 0 else 'below'}"


def _shown(figure: Figure) -> str:
    assert figure.bytes is not None and figure.low is not None and figure.high is not None
    text = f"{figure.bytes / MIB:,.1f}"
    return text if figure.low == figure.high else f"{text} ({figure.low / MIB:,.1f} to {figure.high / MIB:,.1f})"
