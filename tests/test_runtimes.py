"""Runtimes: another kernel is one row in another table, what a table does not speak of is refused, and nothing above asks which runtime
it is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import fields
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest

import memest
from memest.cli.app import COMMANDS, main
from memest.cli.words import taken
from memest.errors import MemestError, UnsupportedError, UsageError
from memest.estimate.question import Question, Settings
from memest.memory.figure import Figure
from memest.ops.families.unary import ROWS as UNARY
from memest.ops.operator import Operator, Tensor
from memest.ops.table import OPERATORS
from memest.ops.tape import Tape
from memest.runtimes.runtime import AS_DESCRIBED, EVERY, Rows
from memest.runtimes.table import RUNTIMES
from memest.runtimes.torch.cpu import TorchCpu

SCRATCH = 5000
NET = """
inputs: {x: [N, 3, H, W]}
layers:
  - conv2d: {name: c, out_channels: 4, kernel_size: 3, padding: 1}
  - relu: {name: r}
  - max_pool2d: {name: p, kernel_size: 2}
outputs: [p]
"""


def relu_with_scratch(k: Tape, input: Tensor, **attributes: Any) -> Any:
    """A kernel of another runtime: the same result, and scratch while it runs."""
    scratch = k.scratch(SCRATCH * input.shape[0])
    out = OPERATORS["relu"].forward(k, input, **attributes)
    k.free(scratch)
    return out


RELU = Operator(**{f: getattr(OPERATORS["relu"], f) for f in Operator.__dataclass_fields__ if f != "forward"}, forward=relu_with_scratch)


class Toy(TorchCpu):
    """torch's kernels, but for relu; pooling is not known."""

    name = "toy"
    rows = Rows("toy", own={"relu": RELU}, same={"convolution", "conv2d"})


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Toy]:
    """The toy in the table."""
    module = ModuleType("toy_runtime")
    module.RUNTIME = Toy()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "toy_runtime", module)
    monkeypatch.setitem(RUNTIMES, "toy", "toy_runtime")
    yield module.RUNTIME
    memest.clear_caches()


def network(layers: str = NET) -> memest.Graph:
    return memest.loads(layers)


def test_another_kernel_is_one_row_of_its_runtime(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Toy, "rows", Rows("toy", own={"relu": RELU}, same=EVERY))
    graph, how = network(), {"input_shape": (2, 3, 16, 16), "mode": "infer"}
    ours, theirs = (memest.estimate(graph, **how, runtime=r) for r in ("torch-cpu", "toy"))  # type: ignore[arg-type]
    extra = [e for e in theirs.events if e.op == "relu" and abs(e.delta) == 2 * SCRATCH]
    assert [e.delta for e in extra] == [2 * SCRATCH, -2 * SCRATCH]
    assert [e.delta for e in theirs.events if e not in extra] == [e.delta for e in ours.events]
    assert theirs.runtime == "toy" and ours.runtime == "torch-cpu"


def test_everything_that_plans_takes_another_runtime(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Toy, "rows", Rows("toy", own={"relu": RELU}, same=EVERY))
    graph = network()
    formula = memest.estimate(graph, input_shape=(2, 3, 64, 64), mode="infer", runtime="toy").formula()
    played = memest.estimate(network(), input_shape=(5, 3, 32, 32), mode="infer", runtime="toy").peak_bytes
    assert formula(N=5, H=32, W=32) == played
    swept = memest.sweep(graph, batch=[5], H=32, W=32, mode="infer", runtime=["torch-cpu", "toy"])
    rows = {row["runtime"]: row["peak_bytes"] for row in swept.rows()}
    assert rows["toy"] == played and rows["torch-cpu"] == memest.estimate(graph, input_shape=(5, 3, 32, 32), mode="infer").peak_bytes
    assert memest.fit(graph, played, H=32, W=32, mode="infer", runtime="toy").sizes == {"batch": 5, "H": 32, "W": 32}
    assert memest.advise(graph, played * 2, input_shape=(5, 3, 32, 32), mode="infer", runtime="toy").fits
    assert memest.plan_inference(graph, input_shape=(5, 3, 32, 32), runtime="toy").estimate.runtime == "toy"


def test_what_a_runtime_does_not_speak_of_is_refused_at_its_layer(toy: Toy) -> None:
    with pytest.raises(UnsupportedError, match=r"layer 'p' \(max_pool2d\): no rule for 'max_pool2d.*' on toy; memest ops max_pool2d"):
        memest.estimate(network(), input_shape=(2, 3, 16, 16), mode="infer", runtime="toy")


def test_torch_cpu_says_of_every_operator_that_it_runs_as_described() -> None:
    assert {AS_DESCRIBED.how(op) for op in OPERATORS} == {"same"}
    assert all(AS_DESCRIBED[row.name] is row for row in UNARY)


# null --------------------------------------------------------------------------------------------------------------------


def test_the_null_runtime_allocates_outputs_and_nothing_else() -> None:
    found = memest.estimate(network(), input_shape=(2, 3, 16, 16), mode="infer", runtime="null")
    c, p = 4 * 2 * 4 * 16 * 16, 4 * 2 * 4 * 8 * 8
    indices = 8 * 2 * 4 * 8 * 8  # of max_pool2d's second output, which nobody names
    assert [e.delta for e in found.events] in ([c, c, -c, p, -c], [c, c, -c, p, indices, -indices, -c])
    assert found.standing_bytes == 4 * (2 * 3 * 16 * 16 + 4 * 3 * 9 + 4)
    assert found.allocated == Figure(
        bytes=found.peak_bytes, low=found.peak_bytes, high=found.peak_bytes, claim="exact", reason=found.allocated.reason
    )
    assert (found.reserved.bytes, found.process.claim) == (None, "unknown")


@pytest.mark.parametrize("name", ["resnet18", "unet3d:base_filters=4,levels=3", "densenet121", "vnet"])
def test_null_is_no_more_than_torch_and_its_formula_is_its_estimate(name: str) -> None:
    graph = memest.model(name)
    side = 64
    shape = (2, graph.inputs[0].shape[1], *(side,) * (len(graph.inputs[0].shape) - 2))
    null, torch = (memest.estimate(graph, input_shape=shape, mode="infer", runtime=r) for r in ("null", "torch-cpu"))
    assert null.standing_bytes == torch.standing_bytes and 0 < null.peak_bytes <= torch.peak_bytes
    sizes = {s: 2 * n for s, n in null.sizes.items()}
    assert null.formula()(**sizes) == null.at(**sizes).peak_bytes


def test_what_the_null_runtime_cannot_do_is_said() -> None:
    how: dict[str, Any] = {"input_shape": (2, 3, 16, 16), "runtime": "null"}
    for extra, words in (
        ({}, "runtime null has no mode 'train'; it has 'infer'"),
        ({"mode": "infer", "levers": ["tiles:size=8,halo=1"]}, "leave out levers"),
        ({"mode": "infer", "machine": memest.Cpu()}, "no machine in particular"),
    ):
        with pytest.raises(MemestError, match=words):
            memest.estimate(network(), **how, **extra)


# the words of a question -------------------------------------------------------------------------------------------------


def test_old_names_say_their_new_ones() -> None:
    graph, cpu = network(), memest.Cpu(isa="avx2", threads=3)
    with pytest.warns(DeprecationWarning, match="machine="):
        old = memest.estimate(graph, input_shape=(2, 3, 16, 16), cpu=cpu)  # type: ignore[call-arg]
    assert old.machine == cpu and old.peak_bytes == memest.estimate(graph, input_shape=(2, 3, 16, 16), machine=cpu).peak_bytes
    with pytest.warns(DeprecationWarning, match="standing_bytes"):
        assert old.resident_bytes == old.standing_bytes


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"device": "cuda"}, "name one, such as"),
        ({"runtime": "torch-cpu", "machine": "h100-80gb"}, "h100-80gb is an accelerator"),
        ({"machine": "server-1.5tb"}, "not its processor"),
        ({"machine": "h100-81gb"}, "h100-80gb"),
        ({"machine": 3}, "machine is memest.Cpu"),
        ({"device": "cuda", "runtime": "torch-cpu"}, "give one of them"),
        ({"runtime": "torch"}, "torch-cpu"),
        ({"runtime": 7}, "runtime is a name"),
        ({"optimzer": "adam"}, "did you mean 'optimizer'|did you mean optimizer"),
    ],
)
def test_what_cannot_be_asked_is_one_line(given: dict[str, Any], words: str) -> None:
    with pytest.raises(MemestError, match=words):
        memest.estimate(network(), input_shape=(2, 3, 16, 16), **given)


def test_figures_of_torch_cpu() -> None:
    found = memest.estimate(network(), input_shape=(2, 3, 16, 16), device="cpu")
    assert found.allocated.bytes == found.reserved.bytes == found.reserved.low == found.reserved.high == found.peak_bytes
    assert (found.allocated.claim, found.reserved.claim, found.figures.process.claim) == ("exact", "exact", "unknown")
    data = found.to_dict()
    assert data["allocated"]["claim"] == "exact" and data["process"]["bytes"] is None and data["runtime"] == "torch-cpu"


def test_settings_are_checked_where_they_are_many() -> None:
    with pytest.raises(UsageError, match=r"no size .optimzer.*optimizer"):
        memest.fit(network(), "1GiB", optimzer="adam", H=16, W=16)
    with pytest.raises(UsageError, match=r"no size .optimzer.*optimizer"):
        memest.sweep(network(), batch=1, optimzer="adam", H=16, W=16)


def test_verdicts_say_whose_bytes_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    found = memest.fit(network(), "1MiB", H=16, W=16, mode="infer", runtime="null")
    assert found.fits is None and found.bytes_fit and "an ideal runtime; missing are kernels' scratch" in found.claim.note
    assert memest.fit(network(), "1MiB", H=16, W=16, mode="infer").claim.note == "compared are bytes of torch's CPU allocator"
    assert main(["estimate", "resnet18", "--input", "3x64x64", "--batch", "2", "--infer", "--runtime", "null", "--budget", "1GiB"]) == 0
    assert "the ideal runtime's bytes fit" in capsys.readouterr().out


def test_the_keywords_of_a_question_are_its_fields() -> None:
    assert set(Settings.__annotations__) == {f.name for f in fields(Question)} | {"device"}


@pytest.mark.parametrize("command", ["advise", "compare", "estimate", "fit", "formula", "layers", "report", "sweep", "timeline"])
def test_every_command_that_estimates_takes_every_setting(command: str) -> None:
    words = taken(import_module(COMMANDS[command]).run)
    own = {"report": {"optimizer": "optimizers", "dtype": "dtypes"}}.get(command, {})
    renamed = {"mode": "train", "machine": "threads", **own}
    asked = {renamed.get(f.name, f.name) for f in fields(Question) if f.name != "loader"}  # counted by estimate and cluster alone
    assert asked | {"device", "threads", "isa", "inputs", "batch"} <= set(words)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_an_engine_on_a_processor_is_held_against_no_card(runtime: str) -> None:
    found = memest.estimate(
        memest.model("resnet18"), input_shape=(1, 3, 64, 64), mode="infer", runtime=runtime, machine=memest.Cpu(isa="avx512")
    )
    with pytest.raises(UsageError, match=f"runtime {runtime} runs on a processor, t4 is an accelerator"):
        found.on(memest.hardware_named("t4"))
    assert found.on(memest.budget("24GiB")).fits
