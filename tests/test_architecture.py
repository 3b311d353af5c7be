"""Imports point down and in no circle, and heavy libraries stay behind their doors."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "torchvision", "sympy", "rich", "typer", "numpy", "pydantic", "matplotlib"}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """A command in the repository."""
    return subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.skipif(find_spec("importlinter") is None, reason="import-linter is not installed")
@pytest.mark.parametrize("config", ["pyproject.toml", ".ci/circles.toml"])
def test_import_contracts_are_kept(config: str) -> None:
    done = run("-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-cache", "--config", config)
    assert done.returncode == 0, done.stdout


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


@pytest.mark.parametrize("command", ["estimate", "layers", "timeline"])
def test_a_plain_command_loads_nothing_heavy(command: str) -> None:
    assert loaded_by_command(command) == set()


@pytest.mark.parametrize("command", ["formula", "formula --as latex", "formula --as python", "formula --as javascript"])
def test_a_formula_is_written_without_sympy(command: str) -> None:
    assert not loaded_by_command(command) - {"numpy", "rich"}  # rich for the width of letters


def loaded_by_command(command: str) -> set[str]:
    """The heavy libraries that a command line on a small network has loaded."""
    arguments = [*command.split(), "resnet18", "--input", "3x64x64", "--batch", "2"]
    program = "import contextlib, io, memest.cli.app\nwith contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO())):\n    "
    return loaded_by(f"{program}assert memest.cli.app.main({arguments}) == 0")


def test_reading_a_file_loads_neither_torch_nor_sympy() -> None:
    program = "import memest\nmemest.loads('inputs: {x: [N, 3, H, W]}\\nlayers: [relu: {in: x}]')"
    assert not loaded_by(program) & {"torch", "sympy", "rich", "typer"}


def test_the_list_of_heavy_libraries_is_seen_when_loaded() -> None:
    assert loaded_by("import numpy") == {"numpy"}
