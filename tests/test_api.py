"""The public API: every name is there, and importing it costs nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import memest

HEAVY = ("torch", "sympy", "numpy", "pydantic", "rich", "typer", "yaml")


def test_import_memest_imports_nothing_heavy() -> None:
    code = "import sys, memest; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not set(HEAVY) & set(modules)
    assert [m for m in modules if m.startswith("memest")] == ["memest"]


@pytest.mark.parametrize("name", memest.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(memest, name) is not None
    assert name in dir(memest)


def test_types_and_names_are_the_same_list() -> None:
    tree = ast.parse(Path(memest.__file__).read_text())
    typed = {
        a.asname for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module != "typing" for a in node.names if a.asname
    }
    assert typed | {"__version__"} == set(memest.__all__)


def test_an_unknown_name() -> None:
    with pytest.raises(AttributeError, match="estimat"):
        memest.estimat  # noqa: B018


def test_the_file_estimate_does_not_hide_the_function() -> None:
    code = "import memest.estimate.estimate; from memest.estimate.estimate import Estimate; import memest; print(callable(memest.estimate))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "True\n"


def test_options_of_models_as_keywords_or_in_the_name() -> None:
    assert memest.model("unet3d", base_filters=8, levels=3) == memest.model("unet3d:base_filters=8,levels=3")
    assert memest.model("unet3d:base_filters=8", levels=3) == memest.model("unet3d:base_filters=8,levels=3")


def test_without_torch_a_torch_model_is_a_usage_error() -> None:
    code = """
import sys
sys.modules["torch"] = None
import memest
from memest.cli.app import main
try:
    memest.from_torch(object(), (1,))
except memest.UsageError as e:
    print("api", e)
print(main(["estimate", "torchvision.models:resnet18", "--input", "1x3x8x8"]))
print(main(["estimate", "resnet18", "--input", "1x3x64x64", "--format", "csv"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("api a torch model needs torch") and lines[1] == "2" and lines[-1] == "0"
    assert done.stderr.count("\n") == 1 and "pip install torch" in done.stderr
