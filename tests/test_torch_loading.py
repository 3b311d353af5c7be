"""Networks by ``package.module:callable`` and ``path/file.py:callable``: arguments, errors of the user's code, missing operators."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from memest.cli.app import main  # noqa: E402
from memest.errors import UsageError  # noqa: E402
from memest.sources.importers.torch.loading import build  # noqa: E402
from memest.sources.typed import with_arguments  # noqa: E402

NETS = textwrap.dedent(
    """
    import parts
    from torch import nn


    class Net(nn.Module):
        def __init__(self, op=nn.Conv2d, width=4, act=None, sizes=()):
            super().__init__()
            self.first, self.act, self.sizes = op(3, width, 3), act or nn.ReLU(), sizes

        def forward(self, x):
            return self.act(self.first(x)).mean((2, 3))


    def fails():
        raise KeyError("no such part")


    def leaves():
        raise SystemExit(2)


    def number():
        return 3


    def wants(x):
        return x + 1


    made = Net(width=7)
    """
)


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file of networks that imports its neighbour."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "parts.py").write_text("width = 4\n")
    path = tmp_path / "models" / "some_nets.py"
    path.write_text(NETS)
    before = set(sys.modules)
    yield path
    for name in set(sys.modules) - before:
        if not name.startswith(("torch", "numpy")):
            del sys.modules[name]


def test_a_file_is_imported_under_its_path(nets: Path) -> None:
    assert build(f"{nets}:Net").first.out_channels == 4
    assert build("models/some_nets.py:made").first.out_channels == 7
    assert type(build(f"{nets}:Net")) is type(build("models/some_nets.py:Net(width=8)")), "a file is read once"


def test_files_of_one_name_do_not_hide_one_another(nets: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "some_nets.py").write_text("from torch import nn\nmade = nn.ReLU()\n")
    assert type(build(f"{nets}:made")).__name__ == "Net"
    assert type(build("other/some_nets.py:made")).__name__ == "ReLU"


def test_a_file_is_estimated_from_the_shell(nets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["estimate", "models/some_nets.py:Net(width=5)", "--input", "3x8x8", "--batch", "2"]) == 0
    assert "Net" in capsys.readouterr().out


def test_arguments_are_literals_and_dotted_names(nets: Path) -> None:
    made = build(
        f"{nets}:Net(torch.nn.modules.conv.Conv2d, 6, act=nn.Tanh(), sizes=[1, -2, (3.5, 'x', None), {{'a': True, 'b': nn.ReLU}}])"
    )
    assert made.first.out_channels == 6 and type(made.act) is torch.nn.Tanh
    assert made.sizes == [1, -2, (3.5, "x", None), {"a": True, "b": torch.nn.ReLU}]
    assert build(f"{nets}:Net(act=torch.nn.Sequential(nn.ReLU(), torch.nn.Dropout(p=0.5)))").act[1].p == 0.5
    assert build(f"{nets}:Net(sizes=int)").sizes is int


def test_arguments_are_typed_one_by_one_and_in_files(nets: Path, tmp_path: Path) -> None:
    (tmp_path / "net.yaml").write_text("width: 6\nsizes: {depths: [1, 2], act: nn.ReLU}\n")
    (tmp_path / "net.json").write_text('{"width": 5}')

    def made(text: str, *arguments: str, file: str | None = None) -> Any:
        return build(with_arguments(text, arguments, file))

    text = f"{nets}:Net"
    assert type(made(text, "op=torch.nn.Conv3d", file="net.yaml").first) is torch.nn.Conv3d
    assert made(text, file="net.yaml").sizes == {"depths": [1, 2], "act": "nn.ReLU"}
    assert [
        made(f"{text}(width=3,)", *a, file=f).first.out_channels for a, f in (((), None), ((), "net.json"), (("width=9",), "net.json"))
    ] == [3, 5, 9]
    given = {
        "gelu": "gelu",
        "[1, 'a b']": [1, "a b"],
        "false": False,
        "None": None,
        "1x2": "1x2",
        "-2.5": -2.5,
        "'a.b'": "a.b",
        "nn.ReLU()": ...,
    }
    for typed, value in given.items():
        found = made(text, f"sizes={typed}").sizes
        assert found == value or type(found) is torch.nn.ReLU, typed


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--arg", "width"], "--arg 'width': write NAME=VALUE"),
        (["--arg", "a b=3"], "write NAME=VALUE"),
        (["--arg", "width=3", "--arg", "width=4"], "width is given twice"),
        (["--arg", "width=1+1"], "'1 + 1' is neither a literal nor a dotted name"),
        (["--arg", "op=torch.nn.Conv9d"], "did you mean 'Conv3d'"),
        (["--arg", "depth=3"], "unexpected keyword argument 'depth'"),
        (["--args", "nothing.yaml"], "arguments in nothing.yaml: No such file"),
        (["--args", "list.yaml"], "arguments in list.yaml: a mapping of names"),
        (["--args", "broken.yaml"], "broken.yaml: line 2"),
    ],
)
def test_arguments_that_cannot_be_are_one_line(options: list[str], words: str, nets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("list.yaml").write_text("[1]")
    Path("broken.yaml").write_text("a: [")
    assert main(["estimate", f"{nets}:Net", "--input", "3x8x8", "--batch", "2", *options]) == (3 if "broken.yaml" in options else 2)
    said = capsys.readouterr().err.splitlines()
    assert words in said[-1] and said[-1].startswith("memest: ")


def test_arguments_are_for_torch_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["estimate", "resnet18", "--input", "3x64x64", "--batch", "2", "--arg", "width=3"]) == 2
    assert "are for torch code" in capsys.readouterr().err


def test_what_their_code_prints_is_talk(nets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with nets.open("a") as f:
        f.write("print('loud')\n")
    assert main(["estimate", f"{nets}:Net", "--input", "3x8x8", "--batch", "2", "--format", "json", "--arg", "width=3"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["graph"] == "Net" and "loud" in err


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("Net(width=1 + 1)", ("'1 + 1'", "neither a literal nor a dotted name")),
        ("Net(width=[n for n in (1,)])", ("neither a literal",)),
        ("Net(width=(lambda: 3)())", ("neither a literal",)),
        ("Net(width=parts.width.real[0])", ("neither a literal",)),
        ("Net(**{})", ("write package.module:callable",)),
        ("Net(sizes={**{}})", ("more than a literal",)),
        ("Net(", ("write package.module:callable",)),
        ("Net(width=-Net)", ("more than a literal",)),
        ("Net(width=eval('3'))", ("'eval' is no name of some_nets",)),
        ("Net(op=torch.nn.Conv9d)", ("torch.nn has no 'Conv9d'", "did you mean 'Conv3d'")),
        ("Net(op=nothing.Conv)", ("'nothing.Conv' is no name of some_nets", "No module named 'nothing'")),
        ("Nett", ("did you mean 'Net'",)),
        ("Net(width='wide')", ("TypeError", "some_nets.py:9")),
        ("fails", ("KeyError: 'no such part'", "some_nets.py:16")),
        ("leaves", ("SystemExit: 2", "some_nets.py:20")),
        ("number", ("gives 3, not a torch.nn.Module",)),
        ("wants", ("write wants(x=…)", "taken for a training step where")),
    ],
)
def test_what_fails_is_one_line_with_the_place(call: str, words: tuple[str, ...], nets: Path) -> None:
    with pytest.raises(UsageError) as raised:
        build(f"{nets}:{call}")
    assert "\n" not in str(raised.value)
    for word in words:
        assert word in str(raised.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import torch\nx = 1 +\n", ("importing broken.py fails: SyntaxError", "broken.py:2")),
        ("import torch\n\nopen('/nowhere/at/all')\n", ("FileNotFoundError", "broken.py:3")),
        ("from .parts import width\n", ("write package.module:callable",)),
        ("raise SystemExit('usage: train')\n", ("SystemExit: usage: train", "broken.py:1")),
    ],
)
def test_a_file_that_cannot_be_imported_says_where(text: str, words: tuple[str, ...], nets: Path) -> None:
    (nets.parent / "broken.py").write_text(text)
    with pytest.raises(UsageError) as raised:
        build("models/broken.py:Net")
    for word in words:
        assert word in str(raised.value)
    assert "broken" not in sys.modules


def test_no_such_file(nets: Path) -> None:
    with pytest.raises(UsageError, match=r"no such file: nets\.py in .*models"):
        build("models/nets.py:Net")


# operators of an extension that does not load ----------------------------------------------------------------------------

PACKAGE = {
    "__init__.py": "from lacking_ops import helper, rules, nets\n",
    "helper.py": "ready = True\n",
    "rules.py": """
        import torch
        import lacking_ops.helper

        assert lacking_ops.helper.ready

        @torch.library.register_fake("lacking_ops::select")
        def select(boxes, scores):
            return boxes

        @torch.library.register_fake("lacking_ops::pool")
        def pool(x):
            return x
        """,
    "nets.py": """
        from torch import nn

        def small():
            return nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(256, 2))
        """,
}


NAMES = ("lacking_ops.nets:small", "late:net", "direct:net", "wrapped:net", "direct.py:net")
FILES = {
    "direct.py": "import lacking_ops\nnet = lacking_ops.nets.small\n",
    "late.py": "def net():\n    import lacking_ops\n    return lacking_ops.nets.small()\n",
    "wrapped.py": (
        "try:\n    import lacking_ops\nexcept RuntimeError as e:\n    raise ImportError('needs it') from e\nnet = lacking_ops.nets.small\n"
    ),
    "calls.py": "import torch\ndef net():\n    raise RuntimeError('operator lacking_ops::other does not exist')\n",
}
DECLARED = """
import torch
from memest.sources.importers.torch.loading import build
made = build({name!r})
assert isinstance(made, torch.nn.Module)
assert not hasattr(torch.ops.lacking_ops, "select"), "declared for longer than the import"
real = torch.library.Library("lacking_ops", "DEF")  # what the extension does when it is loaded after all
real.define("select(Tensor boxes, Tensor scores) -> Tensor")
import sys
assert sys.modules["lacking_ops"].rules is sys.modules["lacking_ops.rules"]
"""
THERE = """
import torch
defined = torch.library.Library("lacking_ops", "DEF")  # as an extension that loads, under whatever file name, would
defined.define("select(Tensor boxes, Tensor scores) -> Tensor")
defined.define("pool(Tensor x) -> Tensor")
from memest.sources.importers import absent_operators
from memest.sources.importers.torch.loading import build
absent_operators._declare = None
build("direct:net")
assert str(torch.ops.lacking_ops.select.default._schema) == "lacking_ops::select(Tensor boxes, Tensor scores) -> Tensor"
"""
ABSENT = """
from memest.errors import UsageError
from memest.sources.importers.torch.loading import build
try:
    build("calls:net")
except UsageError as e:
    print(e)
"""
CODES = {**{name: DECLARED.format(name=name) for name in NAMES}, "there": THERE, "absent": ABSENT}
EACH_IN_A_FORK = """
import json, os, sys, traceback
import torch

codes, told = json.load(sys.stdin), {}
for name, code in codes.items():
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        try:
            exec(code, {"__name__": "__main__"})
            failed = 0
        except BaseException:
            failed = 1
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(failed)
    os.close(writing)
    with open(reading) as text:
        said = text.read()
    told[name] = os.waitpid(child, 0)[1], said
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """Whether each of ``CODES`` failed, and what it wrote, in a process of its own that has torch already. Beside it lie a package like
    torchvision whose compiled operators are missing, and users' files that import it."""
    folder = tmp_path_factory.mktemp("lacking")
    (folder / "lacking_ops").mkdir()
    for name, text in PACKAGE.items():
        (folder / "lacking_ops" / name).write_text(textwrap.dedent(text))
    for name, text in FILES.items():
        (folder / name).write_text(text)
    given = {"input": json.dumps(CODES), "cwd": folder, "env": _environment()}
    done = subprocess.run([sys.executable, "-c", EACH_IN_A_FORK], capture_output=True, text=True, check=True, **given)  # type: ignore[call-overload]
    found: dict[str, tuple[int, str]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_operators_are_declared_only_after_their_import_has_failed_and_not_for_longer(name: str, told: dict[str, tuple[int, str]]) -> None:
    failed, said = told[name]
    assert not failed, said


def test_operators_that_exist_are_left_alone(told: dict[str, tuple[int, str]]) -> None:
    failed, said = told["there"]
    assert not failed, said


def test_an_operator_that_stays_absent_is_one_line(told: dict[str, tuple[int, str]]) -> None:
    assert told["absent"][1].strip() == "calls:net: RuntimeError: operator lacking_ops::other does not exist (calls.py:3)"


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
