"""What torch loads while a forward is recorded finds torch as it is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from memest import from_torch  # noqa: E402

SOURCE = "import torch\nFOUND = '__new__' in vars(torch.Tensor), torch.FloatTensor, torch.from_numpy\n"


class Net(torch.nn.Module):
    def __init__(self, found: list[Any]) -> None:
        super().__init__()
        self.told = found.extend

    def forward(self, x: Any) -> Any:
        import torch.loaded_in_a_forward as probe

        self.told((*probe.FOUND, "__new__" in vars(torch.Tensor)))
        return x + torch.Tensor([1.0])


def test_a_module_of_torch_that_a_forward_loads_finds_torchs_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loaded_in_a_forward.py").write_text(SOURCE)
    monkeypatch.setattr(torch, "__path__", [*torch.__path__, str(tmp_path)])
    found: list[Any] = []
    own = (torch.FloatTensor, torch.from_numpy)
    graph = from_torch(Net(found), (2, 3), mode="infer")
    del sys.modules["torch.loaded_in_a_forward"], torch.loaded_in_a_forward
    assert found == [False, *own, True]
    assert [layer.op for layer in graph.layers][-1] == "add"


def test_an_extension_that_a_forward_loads_may_ask_itself_for_its_version() -> None:
    library = torch.library.Library("memest_loaded_amid", "DEF")
    library.define("version() -> int")
    library.impl("version", lambda: 7, "CompositeImplicitAutograd")

    class Asking(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return x + torch.ops.memest_loaded_amid.version()

    assert [layer.op for layer in from_torch(Asking(), (2, 3), mode="infer").layers] == ["add"]
    library._destroy()
