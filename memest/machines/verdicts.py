"""A peak laid into a machine's tiers, in their order: it fits in the first, it spills into the next ones, or it does not fit; where the
peak is modelled and its range lies on both sides of the limit, it depends.

Whose bytes these are, and what a verdict may therefore say, stands in ``memest.machines.claims``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from memest.errors import UsageError, kind_of
from memest.machines.claims import TORCH_ON_CPU, Claim, FigureName, Outcome, Source, claim_on
from memest.machines.entry import Hardware, Tier
from memest.machines.reading import hardware_named
from memest.sizes import asked
from memest.sizes.units import format_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TierUse:
    """How much of a tier is taken, and what stays free."""

    tier: Tier
    used_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a peak fits: ``outcome`` says it in the words of the ``claim``, on an accelerator those about torch CPU's bytes unless they
    were played for that card.

    ``headroom_bytes`` is what stays free of the first tier, ``spilled_bytes`` what lies in later ones, ``short_bytes`` what no tier has
    room for. The tiers' used bytes and ``short_bytes`` add up to the peak. A peak that is modelled lies from ``low_bytes`` to
    ``high_bytes``; where only a part of that range fits, the outcome is that it depends."""

    hardware: Hardware
    peak_bytes: int
    low_bytes: int
    high_bytes: int
    outcome: str
    tiers: tuple[TierUse, ...]
    headroom_bytes: int
    spilled_bytes: int
    short_bytes: int
    source: Source = TORCH_ON_CPU
    figure: FigureName = "allocated"

    @property
    def claim(self) -> Claim:
        """Whose bytes the peak is, and what of the hardware's own is missing."""
        return claim_on(self.hardware.kind, self.source, name=self.hardware.name, figure=self.figure)

    @property
    def bytes_fit(self) -> bool:
        """True when the tiers together hold the peak (where it has a range: what is expected), spilling included."""
        return self.short_bytes == 0

    @property
    def depends(self) -> bool:
        """True when a part of the range fits and a part does not."""
        return self.low_bytes <= self.hardware.usable_bytes < self.high_bytes

    @property
    def fits(self) -> bool | None:
        """Whether the step fits, spilling included; None where these bytes do not say it."""
        return self.claim.fits(None if self.depends else self.bytes_fit)

    @property
    def headroom_share(self) -> float:
        """The free part of the first tier, from 0 to 1."""
        return self.headroom_bytes / self.tiers[0].tier.usable_bytes

    def __str__(self) -> str:
        first, room = self.tiers[0], self.hardware.usable_bytes
        usable = first.tier.usable_bytes
        if self.depends:
            peak = f"{format_bytes(self.peak_bytes)} ({format_bytes(self.low_bytes)} to {format_bytes(self.high_bytes)})"
            return f"{self.outcome}: {peak} of {format_bytes(room)}"
        if self.short_bytes:
            more = self._range(" (", self.low_bytes - room, self.high_bytes - room, ")")
            return f"{self.outcome}: {format_bytes(self.short_bytes)}{more} more than {format_bytes(room)}"
        if self.spilled_bytes:
            into = " and ".join(u.tier.name for u in self.tiers[1:] if u.used_bytes)
            free = format_bytes(sum(u.free_bytes for u in self.tiers))
            full = f"{first.tier.name} is full ({format_bytes(usable)})"
            return f"{self.outcome}: {format_bytes(self.spilled_bytes)} into {into}, {full}; {free} free"
        left = self._range("; ", max(0, usable - self.high_bytes), usable - self.low_bytes, "")
        free = f"{format_bytes(self.headroom_bytes)} ({100 * self.headroom_share:.1f} %{left})"
        return f"{self.outcome} in {first.tier.name}: {free} free of {format_bytes(usable)}"

    def _range(self, before: str, low: int, high: int, after: str) -> str:
        """A range that stands beside a number; nothing where the peak has none."""
        return "" if self.low_bytes == self.high_bytes else f"{before}{format_bytes(low)} to {format_bytes(high)}{after}"


def verdict(
    entry: Hardware,
    peak_bytes: int,
    source: Source = TORCH_ON_CPU,
    *,
    low_bytes: int | None = None,
    high_bytes: int | None = None,
    figure: FigureName = "allocated",
) -> Verdict:
    """``peak_bytes`` of ``source`` laid into the tiers of ``entry``, each filled before the next one is begun. A modelled peak comes with
    the range it lies in; ``figure`` says which of a step's figures it is."""
    if not isinstance(entry, Hardware):
        raise UsageError(f"verdict takes hardware, got {kind_of(entry)}; memest.hardware_named(name) or memest.budget(size) gives one")
    peak_bytes = _whole(peak_bytes, "a peak")
    low = peak_bytes if low_bytes is None else _whole(low_bytes, "the least of a peak")
    high = peak_bytes if high_bytes is None else _whole(high_bytes, "the most of a peak")
    if not low <= peak_bytes <= high:
        raise UsageError(f"a peak lies in its range, got {peak_bytes} outside {low} to {high}")
    rest, uses = peak_bytes, []
    for tier in entry.tiers:
        used = min(rest, tier.usable_bytes)
        uses.append(TierUse(tier=tier, used_bytes=used, free_bytes=tier.usable_bytes - used))
        rest -= used
    spilled = sum(u.used_bytes for u in uses[1:])
    outcome: Outcome = "does not fit" if rest else "spills" if spilled else "fits"
    if low <= entry.usable_bytes < high:
        outcome = "depends"
    return Verdict(
        hardware=entry,
        peak_bytes=peak_bytes,
        low_bytes=low,
        high_bytes=high,
        outcome=claim_on(entry.kind, source, name=entry.name, figure=figure).words(outcome),
        tiers=tuple(uses),
        headroom_bytes=uses[0].free_bytes,
        spilled_bytes=spilled,
        short_bytes=rest,
        source=source,
        figure=figure,
    )


def _whole(value: int, what: str) -> int:
    whole = asked.whole(value)
    if whole is None:
        raise UsageError(f"verdict takes {what} in bytes, got {kind_of(value)}")
    if whole < 0:
        raise UsageError(f"{what} is not negative, got {whole}")
    return whole


def budget(size: str | int) -> Hardware:
    """A bare limit as hardware of one tier: bytes, or a text such as ``24GiB``. UsageError when it has no unit or holds nothing."""
    nbytes = asked.budget(size)
    text = size.strip() if isinstance(size, str) else format_bytes(nbytes)
    tier = Tier(name="the budget", nbytes=nbytes, usable_bytes=nbytes, basis="as given")
    return Hardware(name=f"budget {text}", title=f"A budget of {text}", kind="budget", tiers=(tier,), source="as given")


def place_of(limit: int | str | Hardware) -> Hardware:
    """Where something has to fit: hardware as it is, or a budget of bytes or of a text such as ``24GiB``. UsageError for anything else."""
    return limit if isinstance(limit, Hardware) else budget(limit)


def places(names: Iterable[str] = (), limit: str | int | None = None, extra: Iterable[Hardware] = ()) -> tuple[Hardware, ...]:
    """Every place that is asked for: hardware by name (``extra`` entries before the catalogue's), then the budget."""
    own = tuple(extra)
    found = [hardware_named(n, own) for n in names]
    return (*dict.fromkeys(found), *(() if limit is None else (budget(limit),)))
