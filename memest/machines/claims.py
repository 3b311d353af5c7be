"""Whose bytes are held against a place, what of that place's own is not among them, and how a verdict may therefore be worded.

Promises: every renderer takes the words from here. A verdict says that a step fits only where the bytes are those that the place would
hold; on an accelerator it speaks of torch CPU's bytes, and whether the step fits is unknown (None): what is missing there makes them too
few, and other kernels may make them too many.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["fits", "spills", "does not fit"]
ABOUT_THE_BYTES: dict[Outcome, str] = {
    "fits": "torch CPU's bytes fit",
    "spills": "torch CPU's bytes spill",
    "does not fit": "torch CPU's bytes do not fit",
}
CUDA_ALONE = (
    "the CUDA context",
    "cuDNN workspaces",
    "the caching allocator's rounding and fragmentation",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The bytes are those of ``bytes_of``; ``missing`` is what the place's own memory would hold besides (nothing: the bytes decide)."""

    bytes_of: str
    missing: tuple[str, ...] = ()

    @property
    def decides(self) -> bool:
        """Whether these bytes say if the step fits."""
        return not self.missing

    def fits(self, within: bool) -> bool | None:
        """Whether the step fits, given whether these bytes do; None where that does not follow."""
        return within if self.decides else None

    def words(self, outcome: Outcome) -> str:
        """The verdict in words: ``fits``, or ``torch CPU's bytes fit`` where no more is known."""
        return outcome if self.decides else ABOUT_THE_BYTES[outcome]

    @property
    def compared(self) -> str:
        """Whose bytes are compared, and what is missing in them."""
        if self.decides:
            return f"bytes of {self.bytes_of}"
        *others, last = self.missing
        missing = f"{', '.join(others)} (or their like) and {last}"
        return f"bytes of {self.bytes_of}; missing are {missing}; an accelerator's kernels allocate differently, too"

    @property
    def note(self) -> str:
        """The same as a sentence that stands alone."""
        return f"compared are {self.compared}"


ON_CPU = Claim(bytes_of="torch's CPU allocator")
ON_ACCELERATOR = Claim(bytes_of="torch's CPU allocator", missing=CUDA_ALONE)


def claim_on(kind: str) -> Claim:
    """What may be said of a place of this kind."""
    return ON_ACCELERATOR if kind == "accelerator" else ON_CPU
