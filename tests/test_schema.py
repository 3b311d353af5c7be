"""Graph files: lossless both ways, short where they can be, and checked before anything is built."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from memest.errors import GraphError, UsageError
from memest.estimate.estimate import estimate
from memest.machines.cpu import Cpu
from memest.network.graph import Graph
from memest.sizes.dims import Guard, symbol
from memest.sources import files as schema
from memest.sources import models
from memest.sources.builder import Builder

DATA = Path(__file__).parent / "data"
CPU = Cpu()
BUILT_IN = (
    "unet3d",
    "unet2d",
    "vnet",
    "plain_conv_unet",
    "residual_encoder_unet",
    "resnet18",
    "densenet121",
    "mobilenet_v2",
    "alexnet",
    "vgg11_bn",
)


def _shared() -> Graph:
    """One module called twice, another frozen, a parameter of its own, explicit lifetimes, a size in an attribute."""
    b = Builder("shared")
    x = b.input("image", ("N", 4, "H", "W"), layout="channels_last")
    y = b.input("extra", ("N", 4, "H", "W"))
    scale = b.parameter("scale", (4, 1, 1))
    a = b.layer("conv2d", x, name="conv", out_channels=4, kernel_size=(3, 1), padding=(1, 0), groups=2)
    c = b.layer("conv2d", a, name="again", padding=(1, 0), groups=2, shares="conv")
    with b.holding(a):
        n = b.layer("batch_norm", c, name="norm", trainable=False)
        s = b.layer("mul", n, scale)
        t = b.layer("add", s, y)
    r = b.layer("reshape", t, shape=(t.shape[0], t.shape[1], t.shape[2] * t.shape[3]))
    return b.build(r, c)


def _graphs() -> dict[str, Graph]:
    shared = _shared()
    changed = replace(shared.parameters[0], trainable=False)
    return {
        "shared": shared,
        "reordered": shared.with_(parameters=tuple(reversed(shared.parameters))),
        "partly frozen": shared.with_(parameters=(changed, *shared.parameters[1:])),
        "channels_last weights": shared.with_(parameters=tuple(replace(p, layout="channels_last") for p in shared.parameters)),
        "guarded": shared.with_(guards=(Guard(">", symbol("H"), 3),)),
        "inference": shared.with_(inference=shared.with_(layers=shared.layers[:-1], outputs=("add",))),
        "half": shared.with_(inputs=tuple(replace(i, dtype="float64") for i in shared.inputs)),
    }


@pytest.mark.parametrize("form", ["yaml", "json"])
@pytest.mark.parametrize("name", list(_graphs()))
def test_every_graph_survives_the_file(name: str, form: str) -> None:
    graph = _graphs()[name]
    assert schema.loads(schema.dumps(graph, form=form), form=form) == graph


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_models_survive_the_file_without_listing_parameters(name: str) -> None:
    graph = models.build(name)
    text = schema.dumps(graph)
    assert schema.loads(text) == graph
    read = {name for layer in graph.layers for name in layer.reads}
    listed = schema.to_dict(graph).get("parameters", {})
    assert not read & set(listed), "torch.nn's keywords should say it all, but for modules that are never called"


@pytest.mark.parametrize("name", ["resnet18", "googlenet", "shufflenet_v2_x0_5", pytest.param("densenet121", marks=pytest.mark.slow)])
def test_imported_networks_survive_the_file(name: str) -> None:
    pytest.importorskip("torch")
    if find_spec("torchvision") is None:
        pytest.skip("no torchvision")
    from memest.sources.importers.torch.loading import build
    from memest.sources.importers.torch.network import from_torch

    options = "(init_weights=False)" if name == "googlenet" else ""
    graph = from_torch(build(f"torchvision.models:{name}{options}"), (2, 3, 96, 96))
    text = schema.dumps(graph, examples={"H": 96, "W": 96})
    assert schema.loads(text) == graph
    assert len(text.splitlines()) < 6 * len(graph.layers)


def test_a_short_file_is_the_built_in_unet() -> None:
    assert schema.load(DATA / "unet3d.yaml") == models.build("unet3d")


@pytest.mark.parametrize("mode", ["train", "infer"])
@pytest.mark.parametrize("shape", [(2, 3, 64, 64), (1, 3, 97, 65)])
def test_a_short_file_takes_the_bytes_of_resnet152(mode: str, shape: tuple[int, ...]) -> None:
    short, built = schema.load(DATA / "resnet152.yaml"), models.build("resnet152")
    a, b = (estimate(g, input_shape=shape, mode=mode, optimizer="adam", machine=CPU) for g in (short, built))
    assert a.peak_bytes == b.peak_bytes
    assert [s.delta for s in a.events] == [s.delta for s in b.events]
    assert [p.shape for p in short.parameters] == [p.shape for p in built.parameters]
    assert len((DATA / "resnet152.yaml").read_text().splitlines()) < 60


@pytest.mark.parametrize("name", ["resnet152.yaml", "unet3d.yaml", "mutable.yaml"])
def test_what_a_file_says_survives_writing_it(name: str) -> None:
    graph = schema.load(DATA / name)
    assert schema.loads(schema.dumps(graph)) == graph
    assert schema.from_dict(schema.to_dict(graph)) == graph


def test_yaml_and_json_are_the_same_file() -> None:
    assert schema.load(DATA / "mutable.yaml") == schema.load(DATA / "mutable.json")


def _net(layers: str, head: str = "inputs: {x: [N, 3, H, W]}") -> Graph:
    return schema.loads(f"{head}\nlayers:\n{layers}")


def test_blocks_repeat_and_name_their_uses() -> None:
    head = "inputs: {x: [N, 8, H, W]}\nblocks: {unit: {arguments: [k], layers: [conv2d: {name: c, out_channels: $(2*k), kernel_size: $k}]}}"
    graph = _net("  - unit: {k: 1}\n  - unit: {k: 3}\n  - unit: {name: deep, k: 1, repeat: 2, first: 5}\n  - unit: {k: 1, repeat: 0}", head)
    assert [layer.name for layer in graph.layers] == ["unit_1.c", "unit_2.c", "deep.5.c", "deep.6.c"]
    assert [p.shape for p in graph.parameters if p.name.endswith("weight")] == [(2, 8, 1, 1), (6, 2, 3, 3), (2, 6, 1, 1), (2, 2, 1, 1)]
    assert graph.outputs == ("deep.6.c",)


def test_a_block_holds_its_inputs_and_what_it_says() -> None:
    head = "inputs: {x: [N, 3, H, W]}\nblocks: {unit: {HOLDS layers: [relu: {name: a}, gelu: {name: b}, gelu: {name: c}]}}"
    layers = "  - gelu: {name: before}\n  - unit: {name: u}"
    plain, held = (_net(layers, head.replace("HOLDS", words)) for words in ("", "holds: [a],"))
    assert [layer.drops for layer in plain.layers] == [(), (), ("u.a",), ("u.b", "before")]
    assert [layer.drops for layer in held.layers] == [(), (), (), ("u.b", "u.a", "before")]


def test_names_that_yaml_would_read_as_something_else() -> None:
    b = Builder("1")
    x = b.input("true", (2, 4, 8, 8))
    graph = b.build(b.layer("relu", b.layer("relu", x, name="null"), name="2.5"))
    assert schema.loads(schema.dumps(graph)) == graph


def test_examples_are_the_sizes_a_file_is_checked_at() -> None:
    layers = "  - flatten: {start_dim: 1}\n  - linear: {in_features: 3000, out_features: 2}"
    with pytest.raises(GraphError, match="line 4"):
        _net(layers)
    graph = _net(layers, "inputs: {x: [N, 3, H, W]}\nexamples: {H: 40, W: 25}".replace("\n", "\n"))
    assert estimate(graph, input_shape=(1, 3, 40, 25), machine=CPU).peak_bytes > 0


def test_guards_of_a_file_hold() -> None:
    graph = _net("  - conv2d: {out_channels: 2, kernel_size: 1}", "inputs: {x: [N, 3, H, W]}\nguards: [H > 8]")
    with pytest.raises(UsageError, match="H > 8"):
        estimate(graph, input_shape=(1, 3, 8, 8), machine=CPU)


def test_the_schema_lists_every_operator_and_refuses_strangers() -> None:
    from memest.ops.table import COMPOSITES, OPERATORS

    data = schema.json_schema()
    json.dumps(data)
    entries = data["$defs"]["layer"]["anyOf"][1]["properties"]
    assert set(entries) == {*OPERATORS, *COMPOSITES}
    assert {"in", "name", "kernel_size", "stride"} <= set(entries["conv2d"]["properties"])
    assert "$ref" in json.dumps(data["$defs"]["BlockModel"]["properties"]["layers"])


def test_ten_thousand_layers_are_read_in_proportion() -> None:
    from time import process_time

    def seconds(n: int) -> float:
        text = "inputs: {x: [N, 3, H, W]}\nlayers:\n" + "- relu\n" * n
        start = process_time()
        schema.loads(text)
        return process_time() - start

    seconds(100)
    assert seconds(8000) < 20 * seconds(800) + 0.5
