"""Pip constraints that hold every dependency of pyproject.toml, of the extras too, at the lowest version it allows here.

What they depend on in turn (click, mpmath, …) stays free: pip takes its newest beside them, as it would for a user whose versions are old.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def requirements() -> Iterator[Requirement]:
    """Every requirement that applies to this Python."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for text in (*project["dependencies"], *(t for extra in project["optional-dependencies"].values() for t in extra)):
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate():
            yield requirement


def lowest() -> dict[str, Version]:
    """The lowest version of each that has one; several statements of one package hold together."""
    found: dict[str, Version] = {}
    for requirement in requirements():
        for bound in requirement.specifier:
            if bound.operator in (">=", "=="):
                version = Version(bound.version)
                found[requirement.name] = max(version, found.get(requirement.name, version))
    return found


if __name__ == "__main__":
    print(*(f"{name}=={version}" for name, version in lowest().items()), sep="\n")
