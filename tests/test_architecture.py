"""Imports point down, heavy libraries stay behind their doors, and the contracts that say so leave nothing out."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import pytest

import memest
import memest.render
from memest.ops.table import FAMILIES

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "torchvision", "sympy", "rich", "typer", "numpy", "pydantic", "matplotlib"}


def contracts() -> dict[str, Any]:
    """The import contracts of pyproject.toml, by name."""
    tomllib = pytest.importorskip("tomllib")
    data = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return {c["name"]: c for c in data["tool"]["importlinter"]["contracts"]}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """A command in the repository."""
    return subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.skipif(find_spec("importlinter") is None, reason="import-linter is not installed")
def test_import_contracts_are_kept() -> None:
    done = run("-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-cache")
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(find_spec("ruff") is None, reason="ruff is not installed")
def test_banned_imports_are_absent() -> None:
    done = run("-m", "ruff", "check", "--select", "TID251", "memest", "validation", "tests")
    assert done.returncode == 0, done.stdout


def test_every_module_has_a_layer() -> None:
    layers = {part.strip() for layer in contracts()["imports point down"]["layers"] for part in layer.replace("|", ":").split(":")}
    assert layers == {f"memest.{m.name}" for m in iter_modules(memest.__path__) if m.name != "__main__"}


def test_every_family_is_a_stranger() -> None:
    named = contracts()["operator families are strangers to one another"]["modules"]
    assert sorted(named) == sorted(f.__name__ for f in FAMILIES)


@pytest.mark.parametrize(
    ("name", "doors"),
    [
        ("importers is a leaf, reached by memest.sources alone", {"sources", "importers"}),
        ("torch only in importers", {"importers"}),
        ("typer only in cli", {"cli"}),
        ("rich only in render and cli", {"render", "cli"}),
        ("matplotlib only in render", {"render"}),
    ],
)
def test_bans_cover_every_module_but_the_doors(name: str, doors: set[str]) -> None:
    expected = {f"memest.{m.name}" for m in iter_modules(memest.__path__) if m.name not in doors and m.name != "__main__"}
    assert set(contracts()[name]["source_modules"]) == expected


def test_in_render_only_plot_may_touch_matplotlib() -> None:
    expected = {f"memest.render.{m.name}" for m in iter_modules(memest.render.__path__)} - {"memest.render.plot"}
    assert set(contracts()["and there only in render.plot"]["source_modules"]) == expected


def loaded_by(program: str) -> set[str]:
    """The heavy libraries a fresh interpreter has loaded after ``program``."""
    done = run("-c", f"{program}\nimport sys\nprint(*({HEAVY!r} & set(sys.modules)))")
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_importing_memest_loads_nothing_heavy() -> None:
    assert loaded_by("import memest") == set()


def test_an_estimate_of_a_built_in_loads_nothing_heavy() -> None:
    program = "import memest\nmemest.estimate(memest.model('resnet18'), input_shape=(2, 3, 64, 64), optimizer='adam').peak_bytes"
    assert loaded_by(program) == set()


def test_reading_a_file_loads_neither_torch_nor_sympy() -> None:
    program = "import memest\nmemest.loads('inputs: {x: [N, 3, H, W]}\\nlayers: [relu: {in: x}]')"
    assert not loaded_by(program) & {"torch", "sympy", "rich", "typer"}


def test_the_list_of_heavy_libraries_is_seen_when_loaded() -> None:
    assert loaded_by("import numpy") == {"numpy"}
