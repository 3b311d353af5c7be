"""Keras on TensorFlow's CPU kernels: nodes, tensors and peaks as in TensorFlow's log (tensorflow-cpu 2.21.0, keras 3.15.1, one thread)."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest

import memest
from memest.cli.app import main
from memest.errors import MemestError, UnsupportedError, UsageError
from memest.network.graph import Graph
from memest.runtimes.table import runtime_named
from memest.runtimes.tensorflow.building.stepping import built
from memest.runtimes.tensorflow.grappler import optimized
from memest.runtimes.tensorflow.heap import resident_of
from memest.runtimes.tensorflow.memory import Step
from memest.runtimes.tensorflow.nodes import Net, Node
from memest.runtimes.tensorflow.runtime import peak_of
from memest.runtimes.tensorflow.scheduling import Way, dealt, scheduled
from memest.runtimes.tensorflow.sharding import blocks
from memest.sources.builder import Builder
from validation.engines.tensorflow.comparing import compare, failures, ours

CPU = memest.Cpu(threads=1, l3_total_bytes=320 << 20)
IMAGES = (4, 3, 16, 16)
SMALL = """
inputs: {x: [N, 3, 16, 16]}
layers:
  - conv2d: {name: c, out_channels: 8, kernel_size: 3, padding: 1}
  - batch_norm: {name: n}
  - relu: {name: r}
  - max_pool2d: {name: p, kernel_size: 2}
  - flatten: {name: f, start_dim: 1}
  - linear: {name: d, in_features: 512, out_features: 10}
outputs: [d]
"""


def small() -> Graph:
    """A convolution, a norm, a pool and a dense layer."""
    return memest.loads(SMALL)


def estimated(graph: Graph, shape: tuple[int, ...] = IMAGES, **asked: Any) -> memest.Estimate:
    return memest.estimate(graph, input_shape=shape, runtime="tensorflow-cpu", machine=CPU, **asked)


def nodes(graph: Graph, shape: tuple[int, ...] = IMAGES, *, onednn: str = "on", **asked: Any) -> dict[str, Node]:
    found = estimated(graph, shape, onednn=onednn, **asked)
    net = built(found.played, found.input_shapes, found.sizes, found.recipe, remember=True)
    return {n.name: n for n in optimized(net, onednn == "on")}


def test_stored_steps_are_predicted() -> None:
    """Tensors and their peak for the order that TensorFlow took, of every small step that is stored."""
    found = list(compare("small 4x16"))
    assert len(found) == 4 and all(c.equal and not c.differing for c in found)


@pytest.mark.parametrize("network", ["group-norms", "lines"])
def test_kinds_of_layers_are_as_in_the_log(network: str) -> None:
    found = list(compare(network))
    assert len(found) == 4 and all(c.equal and not c.differing for c in found), [str(c) for c in found]


@pytest.mark.slow
def test_all_stored_steps_are_predicted() -> None:
    assert not failures(list(compare()))


@pytest.mark.parametrize(("onednn", "largest"), [("on", 32_768), ("off", 23_721_984)])
def test_a_filters_gradient_takes_columns_without_onednn(onednn: str, largest: int) -> None:
    """[858, 256, 27] floats: as many images as 30 MiB hold, whatever the batch; with oneDNN nothing is larger than an activation."""
    found = estimated(small(), optimizer="adam", onednn=onednn)
    assert max(e.delta for e in found.timeline.events) == largest
    assert (found.allocated.claim, found.figures.reserved.claim) == ("modelled", "modelled")


def test_a_step_of_the_small_network() -> None:
    """The nodes of one layer after another, and what is written over what: one activation is made by the norm, none by the ReLU."""
    names = nodes(small(), optimizer="adam", onednn="off")
    assert names["c/BiasAdd"].op == "_FusedConv2D"
    assert {"n/moments/SquaredDifference", "n/batchnorm/add_1", "gradient_tape/n/moments/Tile_1", "adam/truediv_11"} <= set(names)
    found = estimated(small(), optimizer="adam", onednn="off")
    made = [e.op for e in found.timeline.events if e.delta == 32_768 and e.phase == "forward"]
    assert made == ["_FusedConv2D", "SquaredDifference", "Mul"]


def test_bias_and_filter_are_one_kernel_with_onednn() -> None:
    names = nodes(small(), optimizer="sgd")
    assert names["gradient_tape/c/convolution/Conv2DBackpropFilter"].op == "Conv2DBackpropFilterWithBias"
    assert "gradient_tape/c/BiasAdd/BiasAddGrad" not in names
    assert "gradient_tape/c/BiasAdd/BiasAddGrad" in nodes(small(), optimizer="sgd", onednn="off")


def test_inference_pools_before_it_activates() -> None:
    names = nodes(small(), mode="infer")
    assert names["p/MaxPool2d"].inputs == ("n/batchnorm/add_1",) and names["r/Relu"].inputs == ("p/MaxPool2d",)


def test_a_pad_that_one_convolution_reads_is_inside_it_with_onednn() -> None:
    b = Builder("padded")
    x = b.layer("pad", b.input("x", IMAGES), pad=(1, 1, 1, 1), name="z")
    graph = b.build(b.layer("conv2d", x, out_channels=4, kernel_size=3, name="c"))
    assert nodes(graph, mode="infer")["c/BiasAdd"].inputs[0] == "x" and "z/Pad" in nodes(graph, mode="infer", onednn="off")
    assert "z/Pad" in nodes(b.build(b.layer("flatten", b.layer("relu", x), start_dim=1)), mode="infer")


def residual() -> Graph:
    b = Builder("residual")
    x = b.input("x", (4, 3, 16, 16))
    ways = [b.layer("batch_norm", b.layer("conv2d", x, out_channels=8, kernel_size=1), name=f"n{n}") for n in range(2)]
    y = b.layer("flatten", b.layer("relu", b.layer("add", *ways, name="a")), start_dim=1)
    return b.build(b.layer("linear", y, out_features=4))


def test_sums_are_put_together_by_shape() -> None:
    """Two norms that are added: their large parts first, their small ones, then the two; what is the same twice is done once."""
    names = nodes(residual(), optimizer="sgd")
    leaf = names["a/ArithmeticOptimizer/AddOpsRewrite_Leaf_1_Add"]
    assert (leaf.op, leaf.inputs) == ("AddN", ("n0/batchnorm/mul_1", "n1/batchnorm/mul_1"))
    assert "a/ArithmeticOptimizer/AddOpsRewrite_Add" in names and "n0/batchnorm/add_1" not in names
    assert names["gradient_tape/n0/batchnorm/add_1/Sum"].merged == ("gradient_tape/n1/batchnorm/add_1/Sum",)


def volumes(width: int) -> Graph:
    b = Builder("volumes")
    x = b.input("x", (1, 1, 16, 16, 16))
    same = {"out_channels": width, "kernel_size": 3, "padding": 1}
    y = b.layer("conv3d", b.layer("conv3d", x, **same), name="second", **same)
    return b.build(b.layer("sigmoid", b.layer("conv3d", y, out_channels=1, kernel_size=1)))


@pytest.mark.parametrize(("l3", "buffer"), [(1 << 20, 3_538_944), (32 << 20, 0)])
def test_volumes_take_what_the_processor_reports(l3: int, buffer: int) -> None:
    """Columns of 16**3 places of 27 * 8 values: as many volumes as the cache holds; none where that would be far more than the tensors."""
    machine = memest.Cpu(threads=1, l3_total_bytes=l3)
    asked: dict[str, Any] = {"input_shape": (1, 1, 16, 16, 16), "loss": "binary_cross_entropy", "onednn": "off"}
    found = memest.estimate(volumes(8), runtime="tensorflow-cpu", machine=machine, **asked)
    kernel = [e.delta for e in found.timeline.events if e.layer == "second" and e.op == "Conv3DBackpropFilterV2" and e.delta > 0]
    assert kernel == [27 * 8 * 8 * 4, *([buffer] if buffer else [])]


def test_gradients_of_filters_may_all_wait() -> None:
    """A range holds that order too: what the filters' gradients read stands until then."""
    machine = memest.Cpu(threads=1, l3_total_bytes=1 << 20)
    asked: dict[str, Any] = {"input_shape": (1, 1, 16, 16, 16), "loss": "binary_cross_entropy", "runtime": "tensorflow-cpu"}
    found = memest.estimate(volumes(8), machine=machine, **asked)
    net = built(found.played, found.input_shapes, found.sizes, found.recipe, remember=True)
    made = [n.op for n in scheduled(optimized(net, onednn=True), Way(filters_last=True))]
    filters, others = ([n for n, op in enumerate(made) if part in op] for part in ("BackpropFilter", "BackpropInput"))
    assert len(filters) == 3 and min(filters) > max(others)


def of_branches() -> list[Node]:
    """A node, two that need it, and one that needs both."""
    net = Net()
    start = net.input("x", (4, 4), "float32")
    first = net.op("Square", "first", [start], (4, 4))
    left, right = (net.op("Exp", name, [first], (4, 4)) for name in ("left", "right"))
    net.op("AddV2", "sum", [left, right], (4, 4))
    return list(net.nodes.values())


def test_what_is_ready_at_once_runs_side_by_side_on_two_threads() -> None:
    def beside(workers: int) -> int:
        most = now = 0
        for moment in dealt(of_branches(), Way(), workers, lambda node: 1.0):
            now += -1 if moment.ends else 1
            most = max(most, now)
        return most

    assert (beside(1), beside(2), beside(8)) == (1, 2, 2)


def test_two_gradients_of_a_convolution_have_their_columns_at_once_on_two_threads() -> None:
    def peak(threads: int) -> int:
        cpu = memest.Cpu(threads=threads, l3_total_bytes=1 << 20)
        asked: dict[str, Any] = {"loss": "binary_cross_entropy", "runtime": "tensorflow-cpu", "onednn": "off"}
        return memest.estimate(volumes(8), input_shape=(1, 1, 16, 16, 16), machine=cpu, **asked).peak_bytes

    assert peak(2) > 1.2 * peak(1)


def test_without_onednn_tensors_lie_on_the_heaps_of_the_threads_that_asked() -> None:
    """What malloc keeps between tensors is resident, too: more than what is alive at once."""
    step = estimated(memest.model("unet3d", base_filters=4), (1, 1, 32, 32, 32), loss="binary_cross_entropy", onednn="off").timeline
    assert isinstance(step, Step)
    assert peak_of(step) < resident_of(step) < 2 * peak_of(step)


@pytest.mark.parametrize(
    ("units", "cost", "threads", "count"), [(4 * 48, 3840, 2, 8), (4 * 12, 4320, 2, 1), (4 * 12, 7200, 2, 8), (192, 3840, 1, 1)]
)
def test_work_is_cut_as_eigen_does(units: int, cost: int, threads: int, count: int) -> None:
    """Buffers of EfficientNet-B0's depthwise kernels as logged: 48 rows of 48 * 32 values, 12 of 12 * 144, 12 of 12 * 240; one thread."""
    assert blocks(units, cost, threads) == count


def test_each_block_of_a_depthwise_kernel_has_a_buffer() -> None:
    """Eight blocks of rows on two threads: as many buffers, two at once."""
    b = Builder("depthwise")
    graph = b.build(b.layer("conv2d", b.input("x", (4, 32, 48, 48)), out_channels=32, kernel_size=3, padding=1, groups=32, name="d"))
    asked: dict[str, Any] = {"input_shape": (4, 32, 48, 48), "mode": "infer", "runtime": "tensorflow-cpu", "onednn": "off"}
    found = memest.estimate(graph, machine=CPU.with_(threads=2), **asked)
    buffers = [e.delta for e in found.timeline.events if abs(e.delta) == 4 * 9 * 32]
    alive = list(accumulate(buffers))
    assert sum(n > 0 for n in buffers) == 8 and max(alive) == 2 * 4 * 9 * 32


def test_without_onednn_volumes_cost_several_times_as_much() -> None:
    machine = memest.Cpu(threads=1, l3_total_bytes=1 << 20)
    asked: dict[str, Any] = {"input_shape": (1, 1, 16, 16, 16), "loss": "binary_cross_entropy", "runtime": "tensorflow-cpu"}
    on, off = (memest.estimate(volumes(8), machine=machine, onednn=onednn, **asked) for onednn in ("on", "off"))
    assert off.peak_bytes > 4 * on.peak_bytes
    assert any("--onednn on" in note for note in runtime_named("tensorflow-cpu").notes(off.recipe.target))


def test_ranges_hold_the_orders_that_may_be_taken() -> None:
    found = estimated(small(), optimizer="adam", onednn="on")
    allocated, process = found.allocated, found.process
    assert allocated.low is not None and allocated.high is not None and process.low is not None and process.high is not None
    assert allocated.low <= peak_of(found.timeline) == found.peak_bytes <= allocated.high
    assert process.low < (process.bytes or 0) < process.high
    more = memest.estimate(small(), input_shape=IMAGES, optimizer="adam", runtime="tensorflow-cpu", machine=CPU.with_(threads=4))
    assert (more.allocated.high or 0) > allocated.high


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"jit": True}, "XLA"),
        ({"onednn": "maybe"}, "onednn is on or off"),
        ({"inter_op": 0}, "inter_op is a whole number"),
        ({"ov_streams": 2}, "settings of"),
        ({"optimizer": "lamb"}, "lamb"),
        ({"optimizer": "adagrad"}, "no rule for optimizer"),
        ({"loss": "kl_div"}, "no rule for loss"),
        ({"loss": "binary_cross_entropy"}, "no sigmoid"),
        ({"levers": ["accumulate:steps=2"]}, "plain step"),
        ({"hold_output": True}, "leave out hold_output"),
        ({"torch": "2.13"}, "leave out torch"),
    ],
)
def test_what_is_not_modelled_is_refused_in_one_line(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(MemestError, match=words) as told:
        estimated(small(), **{"onednn": "off", **asked})
    assert "\n" not in str(told.value)


def test_layers_without_a_rule_are_refused_by_name() -> None:
    b = Builder("grouped")
    x = b.input("x", (1, 4, 8, 8))
    with pytest.raises(UnsupportedError, match=r"layer 'g' .*XLA"):
        estimated(b.build(b.layer("conv2d", x, out_channels=4, kernel_size=1, groups=2, name="g")), (1, 4, 8, 8), mode="infer")
    c = Builder("other")
    with pytest.raises(UnsupportedError, match=r"no rule for 'tril' on tensorflow-cpu"):
        estimated(c.build(c.layer("tril", c.input("x", (1, 4, 8, 8)), name="t")), (1, 4, 8, 8), mode="infer")


def test_groups_of_one_channel_are_no_depthwise_convolution_in_keras() -> None:
    """Conv2D(groups=channels), as ConvNeXt has it, is compiled by XLA; DepthwiseConv2D has a kernel of its own."""
    b = Builder("grouped")
    x = b.input("x", (1, 4, 8, 8))
    same = {"out_channels": 4, "kernel_size": 3, "padding": 1, "groups": 4}
    estimated(b.build(b.layer("conv2d", x, name="c", **same)), (1, 4, 8, 8), mode="infer")
    c = Builder("grouped")
    y = c.input("x", (1, 4, 8, 8))
    with pytest.raises(UnsupportedError, match="XLA"):
        estimated(c.build(c.layer("conv2d", y, name="c.grouped", **same)), (1, 4, 8, 8), mode="infer")


def test_settings_are_those_of_one_runtime() -> None:
    with pytest.raises(UsageError, match="onednn"):
        memest.estimate(small(), input_shape=IMAGES, onednn="off")


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(SMALL, encoding="utf-8")
    asked = ["estimate", str(path), "--input", "3x16x16", "--batch", "4", "--optimizer", "adam", "--threads", "1", "--top", "0"]
    assert main([*asked, "--runtime", "tensorflow-cpu", "--onednn", "off", "--inter-op", "1"]) == 0
    said = capsys.readouterr().out
    assert "oneDNN off" in said and "inter_op 1" in said
    assert main([*asked, "--runtime", "tensorflow-cpu", "--jit"]) == 2
    assert "XLA" in capsys.readouterr().err


def test_names_of_the_log() -> None:
    layers = frozenset({"conv2d", "conv2d_1"})
    assert ours("functional_1/conv2d_1/convolution", layers) == "conv2d/convolution"
    assert ours("gradient_tape/functional_1/conv2d_1_2/BiasAdd/BiasAddGrad", layers) == "gradient_tape/conv2d_1/BiasAdd/BiasAddGrad"
    assert ours("compile_loss/mse/sub", layers) == "compile_loss/mse/sub"
    assert ours("sgd_1/Mul_3", layers) == "sgd/Mul_3"


def test_advice_names_onednn_on_volumes() -> None:
    """A change at no price: Eigen's buffers are gone."""
    asked: dict[str, Any] = {"loss": "binary_cross_entropy", "runtime": "tensorflow-cpu", "onednn": "off"}
    machine = memest.Cpu(threads=1, l3_total_bytes=1 << 20)
    found = memest.advise(volumes(8), input_shape=(1, 1, 16, 16, 16), machine=machine, budget="1MiB", **asked)
    (best,) = [option for option in found.alone if option.changes == ("onednn=on",)]
    assert best.kind == "free" and best.estimate.peak_bytes < found.start.peak_bytes - 3_000_000
