"""Whose bytes are held against a place, what of that place's own is not among them, and how a verdict may therefore be worded.

Promises: every renderer takes the words from here. A verdict says that a step fits only where the bytes are those that the place would
hold. On an accelerator these are all that the driver shows of the process, of the very card they were played for; of torch CPU's bytes, of
another card's and of what the allocator alone knows it is said that they fit, and whether the step does is unknown (None): what is missing
there makes them too few, and other kernels may make them too many.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["fits", "spills", "does not fit", "depends"]
FigureName = Literal["allocated", "reserved", "process", "node"]
NODE = "the process, its data loader's workers and /dev/shm"
OF_THE_BYTES: dict[Outcome, str] = {
    "fits": "bytes fit",
    "spills": "bytes spill",
    "does not fit": "bytes do not fit",
    "depends": "bytes may or may not fit",
}
CUDA_ALONE = (
    "the CUDA context",
    "cuDNN workspaces",
    "the caching allocator's rounding and fragmentation",
)
BESIDES: dict[FigureName, tuple[str, ...]] = {
    "allocated": ("the CUDA context", "the caching allocator's fragmentation"),
    "reserved": ("the CUDA context",),
    "process": (),
    "node": (),
}
"""What an accelerator holds besides each figure of a step that was played for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where bytes come from: ``owner`` as a sentence names it, ``whose`` they are, and what a machine holds besides them anyway. Where
    they were played for an accelerator, ``card`` is its name ('': none in particular) and ``process`` what the whole process is called."""

    owner: str
    whose: str
    missing: tuple[str, ...] = ()
    accelerator: bool = False
    card: str = ""
    process: str = ""


TORCH_ON_CPU = Source(
    owner="torch's CPU allocator",
    whose="torch CPU's",
    process="the process that runs the step, resident at most: Python, torch and its heap",
)
TORCH_ON_CUDA = Source(
    owner="torch's CUDA caching allocator",
    whose="torch CUDA's",
    accelerator=True,
    process="the process on the card: what torch's CUDA caching allocator reserved, the context and loaded kernels",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The bytes are those of a ``figure`` of ``source``; ``missing`` is what the place's own memory would hold besides (nothing: the bytes
    decide), on an ``accelerator`` or elsewhere."""

    source: Source
    missing: tuple[str, ...] = ()
    accelerator: bool = False
    figure: FigureName = "allocated"

    @property
    def bytes_of(self) -> str:
        """Whose bytes they are."""
        if self.figure == "node":
            return NODE
        return self.source.process if self.figure == "process" and self.source.process else self.source.owner

    @property
    def decides(self) -> bool:
        """Whether these bytes say if the step fits."""
        return not self.missing

    def fits(self, within: bool | None) -> bool | None:
        """Whether the step fits, given whether these bytes do (None: their range lies on both sides); None where that does not follow."""
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
        if not self.accelerator or self.source.accelerator:
            return f"bytes of {self.bytes_of}; missing are {', '.join(others)}{' and ' if others else ''}{last}"
        missing = f"{', '.join(others)} (or their like) and {last}"
        return f"bytes of {self.bytes_of}; missing are {missing}; an accelerator's kernels allocate differently, too"

    @property
    def note(self) -> str:
        """The same as a sentence that stands alone."""
        return f"compared are {self.compared}"


def claim_on(kind: str, source: Source = TORCH_ON_CPU, *, name: str = "", figure: FigureName = "allocated") -> Claim:
    """What may be said of a place of this kind (and ``name``, where it is known) by the bytes of a ``figure`` of ``source``."""
    accelerator = kind == "accelerator"
    return Claim(
        source=source,
        missing=(*source.missing, *_missing(kind, source, name, figure)),
        accelerator=accelerator,
        figure=figure,
    )


def _missing(kind: str, source: Source, name: str, figure: FigureName) -> tuple[str, ...]:
    if kind == "accelerator" and not source.accelerator:
        return CUDA_ALONE
    if not source.accelerator:
        return ()
    if kind == "server":
        return ("what the kernels of a processor ask for",)
    if kind == "accelerator" and source.card and name and name != source.card:
        return (*BESIDES[figure], f"what {name}'s own kernels ask for ({source.card}'s are counted)")
    return BESIDES[figure]
