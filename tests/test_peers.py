"""Other estimators' figures, rebuilt: equal to what the tools say where they are installed, and always added up to ours, to the byte."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import nn

import memest
from memest.cli.app import main
from memest.estimate.question import resolved
from memest.network.modules import Modules
from memest.planning.peers.accelerate import accelerate
from memest.planning.peers.deepspeed import zero2, zero3
from memest.planning.peers.explaining import Explanation, explain
from memest.planning.peers.mem_tracker import CATEGORIES, mem_tracker, silent
from memest.planning.peers.of_graph import modules_of_graph
from memest.planning.peers.torchinfo import torchinfo
from memest.planning.peers.torchsummary import torchsummary
from memest.sources.importers.torch.loading import build
from memest.sources.importers.torch.others.tracked import tracked
from memest.sources.importers.torch.others.walked import modules_of

CPU = memest.Cpu.detect().with_(isa="avx2", threads=1)


class Block(nn.Module):
    """Calls one ReLU twice, adds a function's result, and owns a parameter of its own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.scale = nn.Parameter(torch.ones(width, 1, 1))
        self.shortcut = nn.Sequential()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.conv2(y) * self.scale + self.shortcut(x))


class Plain(nn.Module):
    """A block called twice, a shared weight, dropout, and a head that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.GroupNorm(2, 8), nn.SiLU())
        self.block = Block(8)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(8, 4)
        self.tied = nn.Linear(8, 4, bias=False)
        self.tied.weight = self.head.weight
        self.spare = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.pool(self.block(self.block(self.stem(x)))).flatten(1)
        y = self.drop(y)
        return self.head(y) + self.tied(y)


class Two(nn.Module):
    """Gives two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(8, 2, 1), nn.Conv2d(8, 6, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.a(x), self.b(x)


class Several(nn.Module):
    """A module inside gives several tensors; attention gives one and None, or two."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, stride=4)
        self.two = Two()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.two(self.stem(x))
        y = torch.cat([a, b], 1).flatten(2).transpose(1, 2)
        z, _ = self.attention(y, y, y)
        return self.norm(y + z).mean(1)


NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    "plain": Plain,
    "several": Several,
    "frozen": lambda: Plain().requires_grad_(False),
    "one layer": lambda: nn.Conv2d(3, 4, 3),
    "in a row": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 3)),
}
SHAPE = (3, 3, 16, 16)


def _installed(name: str) -> None:
    """Skip where a tool is not there; one that is but cannot be imported here, such as beside a torchvision of another torch, counts as
    absent."""
    try:
        import_module(name)
    except Exception as e:
        pytest.skip(f"{name}: {e}")


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> nn.Module:
    return NETWORKS[request.param]()


def test_torchinfo_says_so(network: nn.Module) -> None:
    tool = pytest.importorskip("torchinfo")
    said = torchinfo(modules_of(network, SHAPE))
    theirs = tool.summary(network, input_size=SHAPE, verbose=0, device="cpu")
    assert said.nbytes == theirs.total_input + theirs.total_output_bytes + theirs.total_param_bytes
    assert said.printed.partition(" (of")[0] in str(theirs)


def test_torchsummary_says_so(network: nn.Module) -> None:
    tool = pytest.importorskip("torchsummary")
    said = torchsummary(modules_of(network, SHAPE))
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            tool.summary(network, SHAPE[1:], batch_size=SHAPE[0], device="cpu")
    except Exception:
        assert said.reason
        return
    assert said.printed.partition(" (of")[0] in printed.getvalue()
    assert said.nbytes is not None


def test_accelerate_says_so(network: nn.Module) -> None:
    _installed("accelerate.commands.estimate")
    estimate = pytest.importorskip("accelerate.commands.estimate")
    sizes = pytest.importorskip("accelerate.utils")
    total, _ = sizes.calculate_maximum_sizes(network)
    for training, theirs in ((False, total), (True, max(estimate.estimate_training_usage(total, "float32").values()))):
        said = accelerate(modules_of(network, SHAPE), training)
        assert said.nbytes == theirs and sizes.convert_bytes(theirs) in said.printed


def test_deepspeed_says_so(network: nn.Module) -> None:
    one = pytest.importorskip("deepspeed.runtime.zero.stage_1_and_2")
    three = pytest.importorskip("deepspeed.runtime.zero.stage3")
    modules = modules_of(network, SHAPE)
    assert zero2(modules).nbytes == one.estimate_zero2_model_states_mem_needs(one.model_to_params(network), cpu_offload=False)[1]
    total, largest = three.model_to_params(network)
    needs = three.estimate_zero3_model_states_mem_needs(total, largest, cpu_offload=False, cpu_offload_params=False)
    assert zero3(modules).nbytes == needs[1]


def _explained(module: nn.Module, **asked: Any) -> Explanation:
    graph = memest.from_torch(module, SHAPE)
    found = memest.estimate(graph, input_shape=SHAPE, machine=CPU, **asked)
    names = resolved(found.question)
    try:
        said = mem_tracker(tracked(module, SHAPE, names.optimizer, names.loss), "installed")
    except memest.UnsupportedError as e:  # it cannot follow a network of which nothing is trained
        assert not any(p.requires_grad for p in module.parameters())
        said = silent(str(e), "installed")
    return explain(found, modules_of(module, SHAPE), said)


ASKED: tuple[dict[str, Any], ...] = ({"optimizer": "adam", "loss": "mse_loss"}, {"mode": "infer"})


@pytest.mark.slow
@pytest.mark.parametrize("asked", ASKED, ids=["train", "infer"])
def test_items_add_up_to_ours(asked: dict[str, Any]) -> None:
    for make in NETWORKS.values():
        if asked.get("mode") != "infer" and not any(p.requires_grad for p in make().parameters()):
            continue
        found = _explained(make(), **asked)
        tools = {b.said.tool for b in found.tools}
        assert {"torchinfo", "torchsummary", "MemTracker", "accelerate estimate-memory"} <= tools
        for beside in found.tools:
            if beside.said.nbytes is not None:
                assert beside.said.nbytes + sum(i.nbytes for i in beside.items) == found.estimate.peak_bytes, beside.said.tool
                assert all(i.nbytes and i.what for i in beside.items)


@pytest.mark.slow
def test_mem_tracker_counts_what_stands_as_we_do() -> None:
    module = Plain()
    found = tracked(module, SHAPE, resolved(memest.estimate(memest.from_torch(module, SHAPE), input_shape=SHAPE).question).optimizer, None)
    assert set(CATEGORIES) | {"Total"} == set(found)
    assert found["Parameter"] == sum(p.nbytes for p in module.parameters())
    assert found["Buffer"] == sum(b.nbytes for b in module.buffers())
    assert sum(found[name] for name in CATEGORIES) == found["Total"]
    assert all(not p.is_meta and type(p) is nn.Parameter for p in module.parameters()) and module.training


@pytest.mark.slow
def test_a_built_in_network_is_explained_as_its_torch_twin() -> None:
    if find_spec("torchvision") is None:  # imported through the loader, which registers what a CPU build of torch lacks
        pytest.skip("torchvision is not installed")
    shape = (2, 3, 64, 64)
    twin = modules_of(build("torchvision.models:resnet18(weights=None)"), shape)
    ours = modules_of_graph(memest.estimate(memest.model("resnet18"), input_shape=shape, machine=CPU))
    for rule in (lambda m: accelerate(m, True), zero2, zero3):
        assert rule(twin).nbytes == rule(ours).nbytes
    said, held = torchinfo(ours).nbytes, twin.held
    assert said is not None and torchinfo(twin).nbytes == said + held
    assert torchsummary(ours).reason


def test_what_cannot_be_asked_has_a_reason() -> None:
    graph = memest.model("vgg11")
    found = explain(e := memest.estimate(graph, input_shape=(1, 3, 32, 32)), modules_of_graph(e), silent("no module", None))
    reasons = {b.said.tool: b.said.reason for b in found.tools if b.said.reason}
    assert set(reasons) == {"torchsummary", "MemTracker"}
    assert all(not b.items for b in found.tools if b.said.reason)


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    code = "tests.test_peers:Plain"
    assert main(["explain", code, "--input", "3x16x16", "--batch", "3", "--loss", "mse_loss", "--format", "json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert len(data["tools"]) == 6
    for tool in data["tools"]:
        assert tool["bytes"] + sum(i["bytes"] for i in tool["items"]) == data["peak_bytes"] == tool["bytes"] + tool["difference_bytes"]
    assert main(["explain", code, "--input", "3x16x16", "--batch", "3", "--loss", "mse_loss", "--infer"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"From torchinfo to memest: -", shown) and "a second time, 'for gradients'" in shown


def test_modules_of_a_layer_are_found_by_its_name() -> None:
    modules: Modules = modules_of(Plain(), SHAPE)
    assert modules.module_of("block.conv1_2") == "block.conv1"
    assert modules.module_of("block.mul") == "block"
    assert modules.module_of("stem.0") == "stem.0"
    assert modules.module_of("flatten") == ""
