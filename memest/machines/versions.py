"""The versions of torch whose kernels are described, what each was measured on, and the torch at hand.

A version is ``(major, minor)``: kernels change with minor versions. A row whose kernel changed asks ``k.target.version``. Where nobody
says which torch is meant, a graph that was recorded from a torch module is played as the torch it was recorded with, any other graph as
``NEWEST``, the newest version that is described, whatever is installed. A torch that is not described is played as the nearest version
that is, and every result says so.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from memest.errors import UsageError, did_you_mean

Version = tuple[int, int]
_NUMBERS = re.compile(r"(\d{1,4})\.(\d{1,4})(?:[.+a-z][0-9A-Za-z.+_-]*)?", re.ASCII)
_STATED = re.compile(r"^__version__\s*=\s*['\"]([^'\"]+)['\"]", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What the description of a version was held against: a release of torch, and how."""

    release: str
    how: str


SAMPLED = "laws, random networks and 60 cases"
MODELLED: dict[Version, Measured] = {  # ascending
    (2, 9): Measured(release="2.9.1", how=SAMPLED),
    (2, 11): Measured(release="2.11.0", how=SAMPLED),
    (2, 12): Measured(release="2.12.1", how=SAMPLED),
    (2, 13): Measured(release="2.13.0", how="stored cases, laws and random networks"),
    (2, 14): Measured(release="2.14.1", how=SAMPLED),
}
NEWEST: Version = max(MODELLED)
BEST_MEASURED: Version = (2, 13)
"""The version behind the stored cases."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Torch:
    """Which torch a result speaks of: the ``version`` modelled, the release the network was ``recorded`` with (None: it was not recorded
    from a torch module), and the one ``installed`` here (None: none). ``engine``: what runs in torch's place and was measured ('': torch
    itself), of which a torch at hand says nothing."""

    version: Version
    recorded: str | None = None
    installed: str | None = None
    engine: str = ""

    @property
    def modelled(self) -> str:
        """The version as text: ``2.13``."""
        return text_of(self.version)

    @property
    def measured(self) -> Measured:
        """What this version's description was held against."""
        return MODELLED[self.version]

    @property
    def warning(self) -> str:
        """What is to be said where the torch at hand (recorded with, else installed) is none that is modelled; else ''."""
        yours = self.recorded or self.installed
        if self.engine or yours is None or version_of(yours) in MODELLED:
            return ""
        return f"modelled as torch {self.modelled}, not measured on yours ({yours})"

    @property
    def notes(self) -> tuple[str, ...]:
        """Where the torch at hand is not the one modelled, one line each."""
        if self.engine:
            return ()
        found = [self.warning] if self.warning else []
        at_hand = {self.installed: "installed is", self.recorded: "the network was recorded with"}
        for yours, what in at_hand.items():
            version = None if yours is None else version_of(yours)
            if version in MODELLED and version != self.version:
                found.append(f"modelled as torch {self.modelled}, {what} {yours} (modelled, too, as torch {text_of(version)})")
        return tuple(found)

    def to_dict(self) -> dict[str, str | None]:
        """Plain data for a report."""
        return {
            "modelled": self.modelled,
            "measured_on": self.measured.release,
            "measured_by": self.measured.how,
            "recorded": self.recorded,
            "installed": self.installed,
        }

    def __str__(self) -> str:
        return self.engine or f"torch {self.modelled} (measured on {self.measured.release} by {self.measured.how})"


def version_for(asked: str | None, recorded: str | None) -> Version:
    """The version to model: the one ``asked`` for (``2.14``, or a release of it), else that nearest to the torch a graph was ``recorded``
    with, else ``NEWEST``. UsageError for a version that is not modelled."""
    if asked is None:
        return NEWEST if recorded is None else nearest(recorded)
    found = version_of(asked) if isinstance(asked, str) else None
    if found is None or found not in MODELLED:
        known = [text_of(v) for v in MODELLED]
        raise UsageError(f"torch {asked!r} is not modelled{did_you_mean(str(asked), known) or '; use ' + ' or '.join(known)}")
    return found


def nearest(release: str) -> Version:
    """The modelled version nearest to a release of torch (``2.14.1+cpu``): itself, the first one for older ones, the last one else."""
    version = version_of(release)
    if version is None:
        return NEWEST
    return max((v for v in MODELLED if v <= version), default=min(MODELLED))


def version_of(release: str) -> Version | None:
    """(2, 14) of ``2.14.1+cpu``; None of a text that begins otherwise."""
    found = _NUMBERS.fullmatch(release)
    return None if found is None else (int(found[1]), int(found[2]))


def torch_of(version: Version, recorded: str | None, engine: str = "") -> Torch:
    """What is known of the torch behind a result, or behind an engine's."""
    return Torch(version=version, recorded=recorded, installed=installed(), engine=engine)


@cache
def installed() -> str | None:
    """The release of torch that ``import torch`` would give, read from its files without importing it; None where there is none."""
    imported = getattr(sys.modules.get("torch"), "__version__", None)
    if imported is not None:
        return release(str(imported))
    try:
        found = find_spec("torch")
        if found is None or not found.origin:
            return None
        stated = _STATED.search(Path(found.origin).with_name("version.py").read_text(encoding="utf-8"))
    except (OSError, ValueError, ImportError):
        return None
    return None if stated is None else release(stated[1])


def release(text: str) -> str:
    """A version without the build: ``2.14.1`` of ``2.14.1+cpu``."""
    return text.partition("+")[0]


def text_of(version: Version) -> str:
    """``2.13`` of (2, 13)."""
    return f"{version[0]}.{version[1]}"
