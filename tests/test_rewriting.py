"""Networks rewritten for engines: chains folded, readers following, values dying after their last reader."""

from __future__ import annotations

import memest
from memest.network.graph import Graph, Layer
from memest.runtimes.rewriting import Rewriting, described, drop_identities, fold_norms, functional
from memest.runtimes.table import runtime_named


def _folded(name: str) -> Graph:
    rewriting = Rewriting(memest.model(name))
    fold_norms(rewriting)
    return rewriting.graph()


def _by_name(graph: Graph) -> dict[str, Layer]:
    return {layer.name: layer for layer in graph.layers}


def test_norms_go_into_the_convolutions_that_they_follow() -> None:
    graph = _folded("resnet18")
    assert not [layer for layer in graph.layers if layer.op == "batch_norm"]
    conv = _by_name(graph)["conv1"]
    assert conv.tensors == ("input", "conv1.weight", "bn1.bias")
    assert conv.outputs == ("bn1",)
    names = {p.name for p in graph.parameters}
    assert "bn1.bias" in names
    assert not {"bn1.running_mean", "bn1.weight", "bn1.num_batches_tracked"} & names


def test_a_norm_whose_convolution_is_read_twice_stays() -> None:
    b = memest.Builder("twice")
    x = b.input("x", ("N", 3, 8, 8))
    y = b.layer("conv2d", x, out_channels=4, kernel_size=3)
    rewriting = Rewriting(b.build(b.layer("add", b.layer("batch_norm", y), y)))
    fold_norms(rewriting)
    assert "batch_norm" in [layer.op for layer in rewriting.layers]


def test_what_is_written_over_is_read_by_the_name_of_the_result() -> None:
    b = memest.Builder("over")
    x = b.input("x", ("N", 3, 8, 8))
    y = b.layer("conv2d", x, out_channels=4, kernel_size=3)
    z = b.layer("relu", y, inplace=True)
    graph = functional(b.build(b.layer("add", y, z)))
    relu, add = graph.layers[1:]
    assert add.tensors == relu.outputs * 2
    assert dict(relu.attributes).get("inplace") is None


def test_values_die_after_their_last_reader() -> None:
    graph = _folded("resnet18")
    last = {name: layer.name for layer in graph.layers for name in layer.reads}
    for layer in graph.layers:
        assert all(last.get(name, layer.name) == layer.name for name in layer.drops)


def test_dropout_is_left_out_and_its_reader_reads_what_it_read() -> None:
    rewriting = Rewriting(memest.model("vgg11"))
    drop_identities(rewriting)
    assert "dropout" not in [layer.op for layer in rewriting.layers]
    graph = rewriting.graph()
    target = runtime_named("null").target(None, None, None)
    specs = described(graph, {"input": (2, 3, 224, 224)}, {"N": 2, "H": 224, "W": 224}, target, remember=True)
    assert specs[graph.outputs[0]].shape == (2, 1000)
