"""Checkpointed segments: every event is torch's, what torch refuses is refused, and levers say what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest

import memest
from memest.errors import GraphError, MemestError, UnknownNameError, UsageError
from memest.estimate.estimate import Estimate, estimate
from memest.estimate.summary import read_peak
from memest.levers.checkpoints.modules import named, segment_of
from memest.machines.cpu import Cpu
from memest.network.graph import Graph, Segment
from memest.ops.table import COMPOSITES, OPERATORS
from memest.runtimes.compiling import programs_of
from memest.runtimes.table import play
from memest.sources import models
from memest.sources.builder import Builder

torch = pytest.importorskip("torch")

from tiny import NETWORKS, built  # noqa: E402

from memest.sources.importers.torch.loading import build  # noqa: E402
from memest.sources.importers.torch.network import from_torch  # noqa: E402
from validation.checkpointing import checkpoint_modules  # noqa: E402
from validation.execute import GraphModule  # noqa: E402
from validation.packing import measure_packing, predict_packing  # noqa: E402
from validation.protocol import inputs_for, measure_training  # noqa: E402
from validation.streams import first_difference  # noqa: E402


@pytest.mark.parametrize("row", [*OPERATORS.values(), *COMPOSITES.values()], ids=[*OPERATORS, *COMPOSITES])
def test_tensors_are_saved_when_torch_saves_them(row: Any, cpu: Cpu) -> None:
    for i, example in enumerate(row.examples):
        assert predict_packing(row, example, cpu) == measure_packing(row, example), f"{row.name}-{i}"


def same(graph: Graph, module: Any, shape: Sequence[int], levers: Sequence[str], cpu: Cpu, **recipe: Any) -> Estimate:
    """The step with ``levers`` is the one torch does with ``module``, event by event."""
    recipe = {"optimizer": "sgd", "loss": "cross_entropy", **recipe}
    predicted = estimate(graph, input_shape=shape, levers=levers, machine=cpu, **recipe)
    measured = measure_training(module.train(), inputs_for([shape]), **recipe)
    difference = first_difference(predicted.events, measured.events)
    assert difference is None, f"\n{difference}"
    assert predicted.peak_bytes == measured.peak_bytes
    return predicted


def lever(*names: str) -> list[str]:
    """The lever that checkpoints these modules."""
    return [f"checkpoint:modules={'+'.join(names)}"]


@pytest.mark.parametrize("every", [8, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", NETWORKS)
def test_two_segments_wherever_they_meet(name: str, every: int, cpu: Cpu) -> None:
    """Every network cut in two at every so many layers; torch refuses where a later layer writes into an argument, and so do we."""
    module, shape = built(name)
    graph = from_torch(module, shape)
    layers = [layer.name for layer in graph.layers]
    for cut in range(1, len(layers), every):
        segments = (Segment(0, cut, "first"), Segment(cut, len(layers), "second"))
        text = lever(f"{layers[0]}..{layers[cut - 1]}", f"{layers[cut]}..{layers[-1]}")
        try:
            estimate(graph, input_shape=shape, levers=text, machine=cpu)
        except GraphError as e:
            assert "changed in place" in str(e)
            with pytest.raises(RuntimeError):
                measure_training(GraphModule(graph, segments).train(), inputs_for([shape]), "sgd", "cross_entropy")
        else:
            same(graph, GraphModule(graph, segments), shape, text, cpu)


MODULES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("residual", ("stem",)),
    ("skip", ("down", "deep", "up")),
    ("frozen", ("stem", "first")),
    ("heads", ("body", "aux")),
    ("volume", ("0", "1", "3")),
    ("branches", ("short", "long")),
)


@pytest.mark.parametrize(("name", "modules"), MODULES, ids=lambda v: str(v))
@pytest.mark.parametrize("recipe", [{"optimizer": "adam"}, {"hold_output": True}], ids=str)
def test_wrapped_modules_are_those_of_torch(name: str, modules: tuple[str, ...], recipe: dict[str, Any], cpu: Cpu) -> None:
    module, shape = built(name)
    graph = from_torch(module, shape)
    same(graph, checkpoint_modules(module, modules), shape, lever(*modules), cpu, **recipe)


@pytest.mark.slow
def test_blocks_of_a_residual_network(cpu: Cpu) -> None:
    graph, shape = memest.model("resnet18"), (2, 3, 33, 40)
    segments = estimate(graph, input_shape=shape, levers=["checkpoint:every=1"], machine=cpu).recipe.segments
    assert [s.name for s in segments] == [f"layer{i}.{j}" for i in range(1, 5) for j in range(2)]
    same(graph, GraphModule(graph, segments), shape, ["checkpoint:every=1"], cpu)


TORCHVISION = "torchvision.models:"
RESNET50 = tuple(f"layer{i}.{j}" for i, n in enumerate((3, 4, 6, 3), 1) for j in range(n))
LARGE: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("resnet18", ("layer1", "layer2", "layer3", "layer4"), "adam"),
    ("resnet50", RESNET50, "sgd"),
    ("resnet50", ("layer1", "layer2.1", "layer3"), "adam"),
    ("mobilenet_v2", tuple(f"features.{i}" for i in range(18)), "sgd"),
    ("mobilenet_v2", ("features.0", "classifier"), "adam"),
    ("densenet121", ("features.denseblock1", "features.denseblock2", "features.transition2"), "sgd"),
    ("efficientnet_b0", tuple(f"features.{i}" for i in range(1, 8)), "sgd"),
    ("convnext_tiny", tuple(f"features.{i}" for i in range(1, 8)), "sgd"),
    ("swin_t", tuple(f"features.{i}" for i in range(1, 8)), "sgd"),
)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(2, 3, 65, 75)], ids=str)
@pytest.mark.parametrize(("name", "modules", "optimizer"), LARGE, ids=lambda v: str(v)[:30])
def test_networks_with_wrapped_modules(name: str, modules: tuple[str, ...], optimizer: str, shape: tuple[int, ...], cpu: Cpu) -> None:
    module = build(TORCHVISION + name).train()
    graph = from_torch(module, shape)
    same(graph, checkpoint_modules(module, modules), shape, lever(*modules), cpu, optimizer=optimizer)


DESCRIBED: tuple[tuple[str, dict[str, Any], tuple[int, ...], str], ...] = (
    ("unet3d", {}, (1, 1, 32, 32, 48), "modules=encoder.0+encoder.1+encoder.3+decoder.3"),
    ("unet3d", {}, (2, 1, 32, 32, 32), "every=2"),
    ("plain_conv_unet", {}, (1, 1, 64, 64, 64), "every=1"),
    ("plain_conv_unet", {"dims": 2}, (2, 1, 64, 96), "modules=encoder.stages.0+encoder.stages.1+decoder.stages.4"),
    ("residual_encoder_unet", {}, (1, 1, 64, 64, 64), "every=1"),
    ("densenet121", {}, (2, 3, 64, 64), "every=3"),
)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options", "shape", "how"), DESCRIBED, ids=str)
@pytest.mark.parametrize("optimizer", ["adam"])
def test_described_networks(name: str, options: dict[str, Any], shape: tuple[int, ...], how: str, optimizer: str, cpu: Cpu) -> None:
    graph, levers = memest.model(name, **options), [f"checkpoint:{how}"]
    segments = estimate(graph, input_shape=shape, levers=levers, machine=cpu).recipe.segments
    same(graph, GraphModule(graph, segments), shape, levers, cpu, optimizer=optimizer)


# compiled, and on its own ------------------------------------------------------------------------------------------------


def test_a_compiled_step_says_what_the_played_one_says(cpu: Cpu) -> None:
    graph, levers = memest.model("resnet18"), ["checkpoint:modules=layer1+layer2.0+layer3"]
    for n, h, w in ((1, 64, 64), (2, 64, 64), (3, 64, 96), (4, 96, 64), (7, 128, 96), (2, 64, 160)):
        found = estimate(graph, input_shape=(n, 3, h, w), levers=levers, machine=cpu)
        assert found.summary == read_peak(play(graph, found.input_shapes, found.sizes, found.recipe))
    assert programs_of(graph, found.recipe).known, "a step of many sizes is compiled"


def test_segments_keep_less_and_run_again() -> None:
    graph, shape = memest.model("resnet18"), (8, 3, 64, 64)
    plain = estimate(graph, input_shape=shape, machine=Cpu())
    segmented = estimate(graph, input_shape=shape, levers=["checkpoint:every=1"], machine=Cpu())
    assert segmented.peak_bytes < plain.peak_bytes
    assert not plain.timeline.ran_again
    ran = segmented.timeline.ran_again
    assert "layer1.0.conv1" in ran and "conv1" not in ran
    assert sum(s.delta for s in segmented.events) == sum(s.delta for s in plain.events)


OTHERS = (
    ["micro_batch:size=2"],
    ["accumulate:steps=2"],
    ["freeze:modules=0"],
    ["clip:norm=1", "ema"],
    ["autocast"],
    ["autocast:cache=false,loss=outside", "inplace", "accumulate:steps=2"],
)


@pytest.mark.parametrize("others", OTHERS, ids=str)
def test_segments_beside_other_levers(others: list[str], cpu: Cpu) -> None:
    """A batch in slices of two sizes, gradients that accumulate, frozen layers, casts: recomputed as torch does, too."""
    module, shape = built("volume")
    graph, levers = from_torch(module, (3, *shape[1:])), [*others, *lever("0", "1", "3")]
    predicted = estimate(graph, input_shape=(3, *shape[1:]), levers=levers, machine=cpu)
    measured = measure_training(module.train(), inputs_for([(3, *shape[1:])]), "sgd", "cross_entropy", levers=levers)
    difference = first_difference(predicted.events, measured.events)
    assert difference is None, f"\n{difference}"


ENDING_WITH_CONVOLUTIONS = (
    ("resnet18", "conv1+maxpool..layer2.0.conv2"),
    ("unet2d:base_filters=4,levels=2,inplace=false", "encoder.0.conv1..encoder.1.conv2+encoder.1.norm2..decoder.0.relu2"),
)


@pytest.mark.slow
@pytest.mark.parametrize("levers", [["autocast"], ["inplace"], ["inplace", "autocast"]], ids="+".join)
@pytest.mark.parametrize(("model", "modules"), ENDING_WITH_CONVOLUTIONS)
def test_networks_under_levers(model: str, modules: str, levers: list[str], cpu: Cpu) -> None:
    """Segments that end with a convolution, whose recomputation ends before its kernel runs."""
    graph, shape, pulled = models.build(model), (2, 3, 40, 48), [*levers, f"checkpoint:modules={modules}"]
    predicted = estimate(graph, input_shape=shape, levers=pulled, machine=cpu)
    measured = measure_training(GraphModule(graph).train(), inputs_for([shape]), "sgd", "cross_entropy", levers=pulled)
    difference = first_difference(predicted.events, measured.events)
    assert difference is None, f"\n{difference}"


def overwritable() -> Graph:
    """Activations that save their input or their result, before and after each other; none cuts gradients off where it is negative."""
    b = Builder("activations")
    x = b.layer("conv2d", b.input("x", ("N", 3, "H", "W")), name="first", out_channels=4, kernel_size=3)
    for i, op in enumerate(("tanh", "elu", "silu", "tanh", "elu", "elu", "silu", "tanh")):
        x = b.layer(op, x, name=f"act{i}")
    y = b.layer("conv2d", x, name="second", out_channels=4, kernel_size=1)
    return b.build(b.layer("relu", b.layer("add", b.layer("batch_norm", y, name="norm"), x, name="sum"), name="last"))


@pytest.mark.parametrize("cut", range(1, 12))
def test_overwriting_in_segments_leaves_gradients_as_they_are(cut: int) -> None:
    """The lever inplace beside checkpoints: no check of torch's tells when a tensor that is made again was written over, gradients do."""
    graph, shape = overwritable(), (2, 3, 9, 8)
    names = [layer.name for layer in graph.layers]
    text = lever(f"{names[0]}..{names[cut - 1]}", f"{names[cut]}..{names[-1]}")
    estimated = estimate(graph, input_shape=shape, loss="mse_loss", levers=["inplace", *text], machine=Cpu())
    assert estimated.timeline.overwriting
    gradients = []
    for overwriting in ((), estimated.timeline.overwriting):
        torch.manual_seed(0)
        layers = tuple(replace(y, attributes=(*y.attributes, ("inplace", True))) if y.name in overwriting else y for y in graph.layers)
        module = GraphModule(graph.with_(layers=layers), estimated.recipe.segments if overwriting else ())
        for p in module.parameters():
            p.data.copy_(torch.randn(p.shape))  # of both signs: positive values often stay what they are
        module.train()(torch.rand(shape)).square().mean().backward()
        gradients.append([p.grad for p in module.parameters()])
    for a, b in zip(*gradients, strict=True):
        assert torch.equal(a, b)


def test_inference_knows_no_checkpoints() -> None:
    with pytest.raises(UsageError, match="means nothing in mode 'infer'"):
        estimate(memest.model("resnet18"), input_shape=(1, 3, 64, 64), mode="infer", levers=["checkpoint:every=1"])


# names -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("modules=layer9", UnknownNameError, "no module 'layer9'.*did you mean 'layer"),
        ("modules=layer1+layer1.1", UsageError, "'layer1' and 'layer1.1' overlap"),
        ("modules=layer2..layer1", UsageError, "last layer runs before the first"),
        ("modules=layer1,every=2", UsageError, "modules, every contradict"),
        ("", UsageError, "are all missing"),
        ("every=0", UsageError, "at least 1"),
        ("budget=12", UsageError, "has no unit"),
        ("budget=1MiB", UsageError, "no segments found.*the least is"),
    ],
)
def test_what_cannot_be_checkpointed_is_refused(text: str, error: type[MemestError], says: str) -> None:
    with pytest.raises(error, match=says):
        estimate(memest.model("resnet18"), input_shape=(1, 3, 64, 64), levers=[f"checkpoint:{text}"], machine=Cpu())


def test_a_segment_is_found_again_under_its_name() -> None:
    graph = memest.model("resnet18")
    count = len(graph.layers)
    for start, end in combinations(range(count + 1), 2):
        named_so = named(graph, start, end)
        assert segment_of(graph, named_so.name) == named_so
    assert named(graph, 0, 1).name == "conv1" and named(graph, 4, 11).name == "layer1.0" and named(graph, 4, 18).name == "layer1"


def test_modules_that_do_not_run_in_one_go_are_refused() -> None:
    b = Builder("apart")
    x = b.input("input", ("N", 3, "H", "W"))
    for name in ("a.one", "b.one", "a.two"):
        x = b.layer("conv2d", x, name=name, out_channels=3, kernel_size=1)
    with pytest.raises(UsageError, match=r"'a' do not run one after the other: 'b\.one'"):
        estimate(b.build(x), input_shape=(1, 3, 4, 4), levers=lever("a"), machine=Cpu())
    with pytest.raises(UsageError, match="no blocks found"):
        estimate(b.build(x), input_shape=(1, 3, 4, 4), levers=["checkpoint:every=1"], machine=Cpu())


def test_segments_that_overlap_or_leave_the_graph_are_refused() -> None:
    graph, shape = memest.model("resnet18"), (1, 3, 64, 64)
    plain = estimate(graph, input_shape=shape, machine=Cpu())
    for segments in ((Segment(0, 5), Segment(4, 8)), (Segment(4, 8), Segment(0, 4)), (Segment(3, 3),), (Segment(0, 999),)):
        with pytest.raises(UsageError, match="segment"):
            play(graph, plain.input_shapes, plain.sizes, replace(plain.recipe, segments=segments))
