"""What a stranger gets: one version everywhere, a licence, and advice that works."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import memest

ROOT = Path(__file__).parents[1]
SPOKEN = [ROOT / "README.md", *sorted((ROOT / "memest").rglob("*.py")), *sorted((ROOT / "validation").glob("*.py"))]


def project() -> dict[str, Any]:
    """The table ``project`` of pyproject.toml."""
    tomllib = pytest.importorskip("tomllib")
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found


def citation() -> dict[str, Any]:
    """The fields of CITATION.cff."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    return found


def test_the_version_is_the_same_everywhere() -> None:
    assert project()["version"] == citation()["version"] == memest.__version__


def test_the_licence_is_the_same_everywhere() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert project()["license"] == citation()["license"] == "Apache-2.0"
    assert project()["license-files"] == ["LICENSE"]
    assert "Apache License" in text and "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text


def test_nobody_is_told_to_install_from_an_index_what_is_on_none() -> None:
    told = [(str(p.relative_to(ROOT)), t) for p in SPOKEN for t in re.findall(r"pip install\s+[\"']?(memest\S*)", p.read_text("utf-8"))]
    assert [t for t in told if ".whl" not in t[1]] == []


def test_every_lowest_version_is_stated() -> None:
    """What has no lowest version has not been tried at one."""
    extras = project()["optional-dependencies"]
    wanted = [*project()["dependencies"], *(w for extra in extras.values() for w in extra)]
    assert [w for w in wanted if not re.fullmatch(r"[\w.-]+(==|>=)\d[\w.]*(,<\d[\w.]*)?(; .*)?", w)] == []


def test_the_lowest_versions_are_read_from_the_project() -> None:
    extras = project()["optional-dependencies"]
    wanted = {re.split(r"[=<>;]", w)[0] for w in (*project()["dependencies"], *(w for extra in extras.values() for w in extra))}
    done = subprocess.run([sys.executable, str(ROOT / ".ci" / "lowest.py")], capture_output=True, text=True, check=True)
    lowest = dict(line.split("==") for line in done.stdout.splitlines())
    assert lowest.keys() == wanted
    assert f"pydantic>={lowest['pydantic']}" in project()["dependencies"]
    assert ("python_version" in next(w for w in project()["dependencies"] if f"numpy>={lowest['numpy']}" in w)) == (
        sys.version_info >= (3, 12)
    )


@pytest.mark.parametrize("text", ["os:system('echo hi')", "os:getcwd", "net.yaml", "-"])
def test_a_built_in_model_is_all_that_model_opens(text: str) -> None:
    with pytest.raises(memest.MemestError, match="unknown model"):
        memest.model(text)
