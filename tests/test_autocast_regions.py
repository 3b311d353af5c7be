"""``torch.autocast`` inside a network's own forward: casts, their cache, and where both end."""

from __future__ import annotations

from typing import Any

import pytest

import memest
from memest.machines.cpu import Cpu

torch = pytest.importorskip("torch")

from test_contexts import SHAPE, Forward, Net, infers_as_torch, same, trains_as_torch  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from memest.sources.importers.torch.network import from_torch  # noqa: E402
from validation.protocol import inputs_for, measure_inference, measure_training  # noqa: E402


def around_all(self: Any, x: Any) -> Any:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return self.head(self.second(self.first(x))).float()


def around_a_part(self: Any, x: Any) -> Any:
    with torch.autocast("cpu", torch.bfloat16):
        y = self.second(self.first(x))
    return self.head(y.float())


def off_in_the_middle(self: Any, x: Any) -> Any:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = self.first(x)
        with torch.autocast("cpu", enabled=False):
            z = self.second(y.float())
        return self.head(z).float()


def twice(self: Any, x: Any) -> Any:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = self.first(x)
        y = self.second(y) + self.second(y)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = self.second(y)
    return self.head(y.float())


def without_cache(self: Any, x: Any) -> Any:
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        y = self.second(self.second(self.first(x)))
    return self.head(y.float())


@torch.autocast("cpu", dtype=torch.bfloat16)
def _features(self: Any, x: Any) -> Any:
    return self.second(self.first(x))


def decorated(self: Any, x: Any) -> Any:
    return self.head(_features(self, x).float())


def asked_inside(self: Any, x: Any) -> Any:
    """Code that goes by the type it finds."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = self.first(x)
        assert torch.is_autocast_enabled("cpu")
        z = self.second(y)
        if y.dtype == torch.bfloat16:
            z = z + torch.zeros_like(y)
    return self.head(z.to(x.dtype))


def frozen_inside(self: Any, x: Any) -> Any:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with torch.no_grad():
            y = self.first(x)
        return self.head(self.second(y)).float()


def frozen_then_trained(self: Any, x: Any) -> Any:
    """The cast that is kept was made under no_grad, and has a history all the same."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = self.first(x)
        with torch.no_grad():
            goal = self.second(y)
        return self.head(self.second(y) + goal).float()


def checkpoint_inside(self: Any, x: Any) -> Any:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = checkpoint(self.second, self.first(x), use_reentrant=False)
        return self.head(y).float()


def inside_a_checkpoint(self: Any, x: Any) -> Any:
    def body(a: Any) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            b = self.second(a)
        return b.float() * 2

    return self.head(checkpoint(body, self.first(x), use_reentrant=False))


def for_a_card(self: Any, x: Any) -> Any:
    with torch.autocast("cuda", enabled=False):
        y = self.second(self.first(x).float())
    return self.head(y)


def losses_inside(self: Any, x: Any) -> Any:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = self.head(self.first(x))
        weight = torch.softmax(y, 1) * torch.cat([y, y], 1).mean()
        return torch.nn.functional.interpolate(y, scale_factor=2.0)[..., :12, :10].float() + weight.float()


def half(self: Any, x: Any) -> Any:
    with torch.autocast("cpu", dtype=torch.float16):
        return self.head(self.second(self.first(x))).float()


PLAYED = (
    around_all, around_a_part, off_in_the_middle, twice, without_cache, decorated, asked_inside, frozen_inside,
    frozen_then_trained, checkpoint_inside, inside_a_checkpoint, for_a_card, losses_inside, half,
)  # fmt: skip
by_name = pytest.mark.parametrize("forward", PLAYED, ids=lambda f: f.__name__)


@by_name
def test_a_training_step_is_that_of_torch(forward: Forward, cpu: Cpu) -> None:
    trains_as_torch(forward, cpu)


@by_name
def test_an_inference_is_that_of_torch(forward: Forward, cpu: Cpu) -> None:
    infers_as_torch(forward, cpu)


@pytest.mark.parametrize("forward", [around_all, off_in_the_middle, checkpoint_inside, inside_a_checkpoint], ids=lambda f: f.__name__)
def test_inside_the_lever_the_outer_context_keeps_the_casts(forward: Forward, cpu: Cpu) -> None:
    module = Net(forward)
    recipe: dict[str, Any] = {"optimizer": "adam", "loss": "mse_loss", "levers": ["autocast:dtype=bfloat16"]}
    predicted = memest.estimate(from_torch(module, SHAPE), input_shape=SHAPE, machine=cpu, **recipe)
    same(predicted, measure_training(module, inputs_for([SHAPE]), **recipe))


def test_a_graph_with_regions_reads_back_equal_and_is_played_the_same(cpu: Cpu) -> None:
    for forward in PLAYED:
        graph = from_torch(Net(forward), SHAPE)
        again = memest.loads(memest.dumps(graph))
        assert again == graph
        first, second = (memest.estimate(g, input_shape=SHAPE, machine=cpu, loss="mse_loss") for g in (graph, again))
        assert [e.delta for e in first.events] == [e.delta for e in second.events]


def test_a_context_of_cuda_counts_on_a_card_alone(cpu: Cpu) -> None:
    def forward(self: Any, x: Any) -> Any:
        with torch.autocast("cuda"):
            return self.head(self.second(self.first(x))).float()

    regions = from_torch(Net(forward), SHAPE)
    assert any(
        e.layer == "first.0" and e.op == "_to_copy"
        for e in memest.estimate(regions, input_shape=SHAPE, machine="h100-80gb", loss="mse").events
    )
    assert not any(e.op == "_to_copy" for e in memest.estimate(regions, input_shape=SHAPE, machine=cpu, loss="mse").events)


def test_code_that_asks_for_a_context_of_cuda_finds_it() -> None:
    def forward(self: Any, x: Any) -> Any:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            assert torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda") == torch.bfloat16
            with torch.autocast("cuda", enabled=False):
                assert not torch.is_autocast_enabled("cuda")
        return self.head(self.second(self.first(x)))

    from_torch(Net(forward), SHAPE)
    assert not torch.is_autocast_enabled("cuda")


def test_a_described_network_has_regions(cpu: Cpu) -> None:
    b = memest.Builder("described")
    x = b.input("input", ("N", 3, "H", "W"))
    with b.autocast("cpu", "bfloat16"):
        x = b.layer("conv2d", x, name="low", out_channels=8, kernel_size=3)
        with b.autocast("cpu", None):
            x = b.layer("to", x, name="back", dtype="float32")
        x = b.layer("conv2d", x, name="again", out_channels=8, kernel_size=3)
    graph = b.build(b.layer("to", x, name="out", dtype="float32"))
    assert [layer.autocast[0].dtype if layer.autocast else "-" for layer in graph.layers] == ["bfloat16", None, "bfloat16", "-"]
    assert graph.layers[0].autocast[0].scope in graph.layers[2].drops
    assert memest.loads(memest.dumps(graph)) == graph


def test_what_a_file_says_wrongly_is_named() -> None:
    text = memest.dumps(from_torch(Net(around_a_part), SHAPE))
    with pytest.raises(memest.GraphError, match=r"autocast: no layer 'frist\.0'; did you mean 'first\.0'"):
        memest.loads(text.replace("layers: [first.0", "layers: [frist.0"))
    with pytest.raises(memest.MemestError, match=r"device: expected 'cpu' or 'cuda', got 'tpu'"):
        memest.loads(text.replace("device: cpu", "device: tpu"))


@pytest.mark.parametrize("strides", ["transposed", "permuted"])
def test_a_product_with_a_cached_cast_is_folded_in_inference(strides: str, cpu: Cpu) -> None:
    """A cast that is cached says that it requires a gradient under ``no_grad``, too: one matrix product, after a copy."""

    class Mixing(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix = torch.nn.Linear(6 if strides == "transposed" else 12, 8)

        def forward(self, x: Any) -> Any:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return self.mix(x.transpose(1, 2) if strides == "transposed" else x.permute(1, 0, 2)).float()

    module, shape = Mixing(), (2, 6, 12)
    predicted = memest.estimate(from_torch(module, shape), input_shape=shape, mode="infer", machine=cpu)
    same(predicted, measure_inference(module, inputs_for([shape])))
