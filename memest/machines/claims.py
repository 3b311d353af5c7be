"""Whose bytes are held against a place, what of that place's own is not among them, and how a verdict may therefore be worded.

Promises: every renderer takes the words from here. A verdict says that a step fits only where the bytes are those that the place would
hold; on an accelerator it speaks of torch CPU's bytes, and whether the step fits is unknown (None): what is missing there makes them too
few, and other kernels may make them too many.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["fits", "spills", "does not fit"]
OF_THE_BYTES: dict[Outcome, str] = {"fits": "bytes fit", "spills": "bytes spill", "does not fit": "bytes do not fit"}
CUDA_ALONE = (
    "the CUDA context",
    "cuDNN workspaces",
    "the caching allocator's rounding and fragmentation",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where bytes come from: ``owner`` as a sentence names it, ``whose`` they are, and what a machine holds besides them anyway."""

    owner: str
    whose: str
    missing: tuple[str, ...] = ()


TORCH_ON_CUDA = Source(owner="torch's CUDA caching allocator", whose="torch CUDA's")
TORCH_ON_CPU = Source(owner="torch's CPU allocator", whose="torch CPU's")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The bytes are those of ``source``; ``missing`` is what the place's own memory would hold besides (nothing: the bytes decide), on an
    ``accelerator`` or elsewhere."""

    source: Source
    missing: tuple[str, ...] = ()
    accelerator: bool = False

    @property
    def bytes_of(self) -> str:
        """Whose bytes they are."""
        return self.source.owner

    @property
    def decides(self) -> bool:
        """Whether these bytes say if the step fits."""
        return not self.missing

    def fits(self, within: bool) -> bool | None:
        """Whether the step fits, given whether these bytes do; None where that does not follow."""
        return within if self.decides else None

    def words(self, outcome: Outcome) -> str:
        """The verdict in words: ``fits``, or ``torch CPU's bytes fit`` where no more is known."""
        return outcome if self.decides else f"{self.source.whose} {OF_THE_BYTES[outcome]}"

    @property
    def compared(self) -> str:
        """Whose bytes are compared, and what is missing in them."""
        if self.decides:
            return f"bytes of {self.bytes_of}"
        *others, last = self.missing
        if not self.accelerator:
            return f"bytes of {self.bytes_of}; missing are {', '.join(others)}{' and ' if others else ''}{last}"
        missing = f"{', '.join(others)} (or their like) and {last}"
        return f"bytes of {self.bytes_of}; missing are {missing}; an accelerator's kernels allocate differently, too"

    @property
    def note(self) -> str:
        """The same as a sentence that stands alone."""
        return f"compared are {self.compared}"


def claim_on(kind: str, source: Source = TORCH_ON_CPU) -> Claim:
    """What may be said of a place of this kind, by bytes of ``source``."""
    accelerator = kind == "accelerator"
    return Claim(source=source, missing=(*source.missing, *(CUDA_ALONE if accelerator else ())), accelerator=accelerator)
