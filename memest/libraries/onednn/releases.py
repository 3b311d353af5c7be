"""The releases of oneDNN that torch's builds carry (``torch.__config__.show()``): where a choice differs, its helper asks for one."""

from __future__ import annotations

from memest.machines.versions import Version

Release = tuple[int, int]
NEWEST: Release = (3, 12)
RELEASES: dict[Version, Release] = {
    (2, 9): (3, 7),
    (2, 11): (3, 10),
    (2, 12): (3, 11),
    (2, 13): NEWEST,
    (2, 14): NEWEST,
}


def release_in(torch: Version) -> Release:
    """The oneDNN of a modelled version of torch."""
    return RELEASES[torch]
