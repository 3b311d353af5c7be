"""What code around the calls does to autograd: played as torch does it, or refused by name."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import pytest

import memest
from memest.errors import GraphError, MemestError, UnsupportedError, UsageError
from memest.machines.cpu import Cpu

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.utils.checkpoint import checkpoint, checkpoint_sequential  # noqa: E402

from memest.sources.importers.torch.network import from_torch  # noqa: E402
from validation.protocol import Measurement, inputs_for, measure_inference, measure_training, storage_bytes  # noqa: E402
from validation.streams import first_difference, of_the_step  # noqa: E402

SHAPE = (2, 3, 12, 10)
Forward = Callable[[Any, Any], Any]


def block(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU(inplace=True))


class Net(nn.Module):
    """Two blocks and a head, called by ``forward``."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        self.first, self.second, self.head = block(3, 8), block(8, 8), nn.Conv2d(8, 4, 1)
        self.drop = nn.Dropout(0.3)
        self.register_buffer("average", torch.zeros(8))
        self.register_buffer("queue", torch.zeros(6, 8))
        self.register_buffer("pointer", torch.zeros(1, dtype=torch.long))
        self.run = forward
        self.cache: Any = None

    def forward(self, x: Any) -> Any:
        return self.run(self, x)


def same(predicted: Any, measured: Measurement) -> None:
    """Resident bytes, every event and the peak agree; releases of residents are left out of both."""
    assert predicted.standing_bytes == measured.standing_bytes
    seen, events = of_the_step(predicted, measured.events)
    difference = first_difference(seen, events)
    assert difference is None, f"\n{difference}"
    peak = predicted.standing_bytes + max(accumulate((e.delta for e in seen), initial=0))
    assert peak == Measurement(measured.standing_bytes, events).peak_bytes


def trains_as_torch(forward: Forward, cpu: Cpu, **recipe: Any) -> None:
    module, recipe = Net(forward), {"optimizer": "adam", "loss": "mse_loss", **recipe}
    predicted = memest.estimate(from_torch(module, SHAPE), input_shape=SHAPE, machine=cpu, **recipe)
    same(predicted, measure_training(module, inputs_for([SHAPE]), **recipe))


def infers_as_torch(forward: Forward, cpu: Cpu) -> None:
    module = Net(forward)
    predicted = memest.estimate(from_torch(module, SHAPE), input_shape=SHAPE, mode="infer", machine=cpu)
    same(predicted, measure_inference(module, inputs_for([SHAPE])))


# what is played -----------------------------------------------------------------------------------------------------------


def frozen_first(self: Any, x: Any) -> Any:
    with torch.no_grad():
        y = self.first(x)
    return self.head(self.second(y))


@torch.no_grad()
def _features(self: Any, x: Any) -> Any:
    return self.first(x)


def decorated(self: Any, x: Any) -> Any:
    return self.head(self.second(_features(self, x)))


def switched(self: Any, x: Any) -> Any:
    with torch.set_grad_enabled(False):
        y = self.first(x)
        with torch.enable_grad():
            z = self.second(y)
    return self.head(z)


def teacher(self: Any, x: Any) -> Any:
    y = self.first(x)
    with torch.no_grad():
        goal = self.second(y.detach()).mean((2, 3), keepdim=True)
    return self.head(self.second(y) - goal)


def counted(self: Any, x: Any) -> Any:
    y = self.first(x)
    with torch.no_grad():
        self.average.mul_(0.9).add_(y.mean((0, 2, 3)), alpha=0.1)
        self.queue[:2] = y.mean((2, 3))
    return self.head(y + self.average.view(1, -1, 1, 1))


def exchanged(self: Any, x: Any) -> Any:
    y = self.first(x)
    self.average = 0.9 * self.average + 0.1 * y.detach().mean((0, 2, 3))
    return self.head(self.second(y) * self.average.view(1, -1, 1, 1))


def wrapped(self: Any, x: Any) -> Any:
    return self.head(checkpoint(self.second, checkpoint(self.first, x, use_reentrant=False), use_reentrant=False))


def wrapped_function(self: Any, x: Any) -> Any:
    y = self.first(x)

    def body(a: Any, b: Any) -> Any:
        return self.drop(self.second(a)) + b

    return self.head(checkpoint(body, y, y * 2, use_reentrant=False))


def wrapped_with_frozen(self: Any, x: Any) -> Any:
    def body(a: Any) -> Any:
        with torch.no_grad():
            scale = a.mean((2, 3), keepdim=True)
        return self.second(a) * scale

    return self.head(checkpoint(body, self.first(x), use_reentrant=False))


def sequential(self: Any, x: Any) -> Any:
    return checkpoint_sequential([self.first, self.second, self.head], 3, x, use_reentrant=False)


PLAYED = (frozen_first, decorated, switched, teacher, counted, exchanged, wrapped, wrapped_function, wrapped_with_frozen, sequential)
by_name = pytest.mark.parametrize("forward", PLAYED, ids=lambda f: f.__name__)


@by_name
@pytest.mark.parametrize("recipe", [{}, {"hold_output": True, "optimizer": "sgd"}], ids=["plain", "held"])
def test_a_training_step_with_contexts_is_that_of_torch(forward: Forward, recipe: dict[str, Any], cpu: Cpu) -> None:
    trains_as_torch(forward, cpu, **recipe)


def reentrant(self: Any, x: Any) -> Any:
    return self.head(checkpoint(self.second, self.first(x), use_reentrant=True))


class Swish(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        (x,) = ctx.saved_tensors
        return grad * torch.sigmoid(x)


class Shifted(torch.autograd.Function):
    @staticmethod
    def forward(x: Any, by: float) -> Any:
        return x + by

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.by = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        return grad, None


apply_swish = Swish.apply  # taken before anything is recorded, as modules do at import


def custom(self: Any, x: Any) -> Any:
    return Shifted.apply(self.head(self.second(apply_swish(self.first(x)))), 2.0)


@pytest.mark.parametrize("forward", [*PLAYED, reentrant, custom], ids=lambda f: f.__name__)
def test_an_inference_with_contexts_is_that_of_torch(forward: Forward, cpu: Cpu) -> None:
    infers_as_torch(forward, cpu)


def test_a_custom_function_that_no_gradient_reaches_is_played(cpu: Cpu) -> None:
    trains_as_torch(lambda self, x: self.head(self.first(Swish.apply(x))), cpu)


def remembering(self: Any, x: Any) -> Any:
    """A table made in the first call and used in all."""
    if self.cache is None:
        self.cache = torch.arange(8).float().view(1, 8, 1, 1)
    return self.head(self.first(x) + self.cache)


def replacing(self: Any, x: Any) -> Any:
    """An attribute that is new in every call."""
    y = self.first(x)
    self.cache = y.detach().mean((0, 2, 3)) * 2
    return self.head(self.second(y))


def kept_map(self: Any, x: Any) -> Any:
    y = self.first(x)
    self.cache = y.detach() * 2
    return self.head(y)


def following(self: Any, x: Any) -> Any:
    """A table as large as the input asks, made where it is not (anchors)."""
    y = self.first(x)
    if self.cache is None or self.cache.shape[-1] != y.shape[-1]:
        self.cache = torch.arange(y.shape[-1]).float().view(1, 1, 1, -1)
    return self.head(y + self.cache)


@pytest.mark.parametrize("forward", [remembering, replacing, kept_map, following], ids=lambda f: f.__name__)
@pytest.mark.parametrize("mode", ["train", "infer"])
def test_what_a_module_keeps_from_call_to_call_stands_beside_its_buffers(forward: Forward, mode: str, cpu: Cpu) -> None:
    module = Net(forward)
    predicted = memest.estimate(
        from_torch(module, SHAPE, mode=mode), input_shape=SHAPE, mode=mode, optimizer="adam", loss="mse_loss", machine=cpu
    )
    inputs = inputs_for([SHAPE])
    measured = measure_training(module, inputs, "adam", "mse_loss") if mode == "train" else measure_inference(module, inputs)
    same(predicted, measured)
    assert predicted.unregistered_bytes == storage_bytes([module.cache]) > 0


def test_what_is_kept_follows_the_size(cpu: Cpu) -> None:
    for forward in (kept_map, following):
        module, shape = Net(forward), (3, 3, 9, 14)
        graph = from_torch(module, SHAPE, mode="infer")
        predicted = memest.estimate(graph, input_shape=shape, mode="infer", machine=cpu)
        measured = measure_inference(module, inputs_for([shape]))
        same(predicted, measured)
        assert predicted.unregistered_bytes == storage_bytes([module.cache])
        assert memest.loads(memest.dumps(graph)) == graph


def test_a_graph_that_leads_nowhere_is_refused_by_its_line(cpu: Cpu) -> None:
    def looked_at(self: Any, x: Any) -> Any:
        features = self.first(x)
        with torch.no_grad():
            rows = features.view(features.shape[0], -1)
        return self.head(features) + rows.sigmoid().mean()

    with pytest.raises(MemestError, match=r"test_contexts.py:\d+: torch makes a graph from a view .* detach\(\) the view"):
        memest.estimate(from_torch(Net(looked_at), SHAPE), input_shape=SHAPE, loss="mse_loss")

    def advised(self: Any, x: Any) -> Any:
        features = self.first(x)
        with torch.no_grad():
            rows = features.view(features.shape[0], -1)
        return self.head(features) + rows.detach().sigmoid().mean() * (rows > 0).float().mean()

    trains_as_torch(advised, cpu)
    infers_as_torch(looked_at, cpu)


def test_what_stands_beside_buffers_is_told_and_counts_against_a_limit() -> None:
    graph = from_torch(Net(kept_map), SHAPE, mode="infer")
    predicted = memest.estimate(graph, input_shape=SHAPE, mode="infer")
    more = predicted.unregistered_bytes
    assert any(f"on top come {more:,} bytes" in note for note in predicted.notes)
    assert predicted.held_bytes == predicted.peak_bytes + more
    assert memest.estimate(graph, input_shape=SHAPE, mode="infer", machine="t4").unregistered_bytes == 0
    alone = memest.estimate(graph, input_shape=SHAPE, mode="infer", runtime="null")
    assert alone.unregistered_bytes == 0 and alone.standing_bytes == predicted.standing_bytes + more
    found = memest.fit(graph, predicted.held_bytes, vary="batch", mode="infer", H=SHAPE[2], W=SHAPE[3])
    assert found.sizes is not None and found.sizes["batch"] == SHAPE[0] and found.peak_bytes == predicted.held_bytes
    assert found.next_bytes == memest.estimate(graph, input_shape=(SHAPE[0] + 1, *SHAPE[1:]), mode="infer").held_bytes
    with pytest.raises(MemestError, match="what is not registered is a buffer"):
        memest.loads("memest: 1\nname: n\ninputs: {x: [B, 3]}\nparameters: {p: {shape: [3], registered: false}}\nlayers: [relu: {}]")


def test_the_value_that_a_replaced_attribute_had_goes_in_the_next_call() -> None:
    layers = {layer.name: layer for layer in from_torch(Net(replacing), SHAPE).layers}
    assert "kept" in layers["mul"].drops


def test_the_module_is_left_as_it_was() -> None:
    module = Net(replacing)
    module.history = [1]  # type: ignore[assignment]
    before = {k: (v.data_ptr(), v._version) for k, v in module.state_dict().items()}
    from_torch(module, SHAPE)
    assert module.cache is None and module.training
    assert {k: (v.data_ptr(), v._version) for k, v in module.state_dict().items()} == before
    assert all(isinstance(p, nn.Parameter) and not p.is_meta for p in module.parameters())


def test_a_graph_with_contexts_reads_back_equal() -> None:
    for forward in (teacher, wrapped_function, exchanged, remembering):
        graph = from_torch(Net(forward), SHAPE)
        assert memest.loads(memest.dumps(graph)) == graph


def test_a_described_network_has_the_contexts_too(cpu: Cpu) -> None:
    def graph(wrap: bool) -> Any:
        b = memest.Builder("described")
        x = b.input("input", ("N", 3, "H", "W"))
        with b.no_grad():
            x = b.layer("relu", b.layer("conv2d", x, name="frozen", out_channels=8, kernel_size=3), name="act")
        if not wrap:
            return b.build(b.layer("conv2d", x, name="head", out_channels=4, kernel_size=1))
        with b.checkpoint("part"):
            y = b.layer("sigmoid", b.layer("conv2d", x, name="inner", out_channels=8, kernel_size=3), name="end")
        return b.build(b.layer("conv2d", y, name="head", out_channels=4, kernel_size=1))

    frozen = memest.estimate(graph(False), input_shape=SHAPE, machine=cpu)
    assert not any(e.layer == "frozen" and e.phase == "backward" for e in frozen.events)
    again = memest.estimate(graph(True), input_shape=SHAPE, machine=cpu)
    assert any(e.layer == "inner" and e.op == "convolution" and e.phase == "backward" for e in again.events)
    with pytest.raises(UsageError, match="checkpoint"):
        memest.estimate(graph(True), input_shape=SHAPE, levers=["checkpoint:modules=inner"], machine=cpu)
    with pytest.raises(MemestError, match="checkpoint"):
        memest.plan_checkpoints(graph(True), input_shape=SHAPE, machine=cpu)
    assert any(r.change.startswith("checkpoint") for r in memest.advise(graph(True), "1KiB", input_shape=SHAPE, machine=cpu).refused)


# what is refused ----------------------------------------------------------------------------------------------------------


def gradient_inside(self: Any, x: Any) -> Any:
    y = self.head(self.first(x))
    return y + torch.autograd.grad(y.sum(), self.head.weight)[0].sum()


def backward_inside(self: Any, x: Any) -> Any:
    y = self.head(self.first(x))
    y.sum().backward()
    return y


@pytest.mark.parametrize("forward", [gradient_inside, backward_inside], ids=lambda f: f.__name__)
def test_a_backward_inside_that_frees_what_the_loss_needs_is_refused_as_by_torch(forward: Forward, cpu: Cpu) -> None:
    graph = from_torch(Net(forward), SHAPE, mode="train")
    with pytest.raises(GraphError, match=r"a second time through .*retain_graph=True"):
        memest.estimate(graph, input_shape=SHAPE, machine=cpu, optimizer="adam", loss="mse_loss")


def made_leaf(self: Any, x: Any) -> Any:
    return self.head(self.first(x.requires_grad_()))


def kept_graph(self: Any, x: Any) -> Any:
    y = self.first(x)
    self.cache = y.mean()
    return self.head(y)


def growing(self: Any, x: Any) -> Any:
    y = self.first(x)
    self.cache = [*(self.cache or ()), y.detach().mean((0, 2, 3))]
    return self.head(y)


def written_out(self: Any, x: Any) -> Any:
    y = self.first(x)
    return self.head(torch.mul(y, 2, out=torch.empty_like(y)))


def branching(self: Any, x: Any) -> Any:
    y = self.first(x)
    return self.head(y) if y.mean() > 0 else self.head(y * 2)


def own_error(self: Any, x: Any) -> Any:
    return self.head(self.first(x)).no_such_attribute


REFUSED: tuple[tuple[Forward, str, str], ...] = (
    (made_leaf, "train", "requires_grad_(True) of an input itself"),
    (kept_graph, "train", "its autograd graph with it"),
    (growing, "both", "every forward keeps more tensors"),
    (written_out, "both", "argument out=a tensor has no rule"),
    (branching, "both", "branches on a tensor's value"),
    (own_error, "both", "no_such_attribute"),
)


@pytest.mark.parametrize(("forward", "modes", "reason"), REFUSED, ids=[f.__name__ for f, _, _ in REFUSED])
def test_what_is_not_modelled_is_refused_by_name(forward: Forward, modes: str, reason: str) -> None:
    """In one line, with the line of the user's code, in the mode that it would be wrong in, and in no other."""
    module = Net(forward)
    for mode in ("train", "infer"):
        if modes in (mode, "both"):
            with pytest.raises(GraphError if forward is own_error else UnsupportedError, match=re.escape(reason)) as caught:
                from_torch(module, SHAPE, mode=mode)
            text = str(caught.value)
            assert "\n" not in text and len(text) < 400
            assert re.search(r"test_contexts\.py:\d+", text) or "kept" in reason or "its" in reason or "keeps" in reason
            assert "did you mean" not in text
        else:
            from_torch(module, SHAPE, mode=mode)


def test_a_forward_hook_that_collects_is_refused() -> None:
    module, seen = Net(wrapped), []
    module.first.register_forward_hook(lambda m, i, o: seen.append(o))
    with pytest.raises(UnsupportedError, match="every forward keeps more tensors"):
        from_torch(module, SHAPE, mode="infer")


@pytest.mark.parametrize("mode", ["train", "infer"])
def test_the_weight_that_old_spectral_norm_leaves_in_the_module_stands_beside_its_buffers(mode: str, cpu: Cpu) -> None:
    module = nn.Sequential(nn.utils.spectral_norm(nn.Conv2d(3, 8, 3)), nn.ReLU())
    predicted = memest.estimate(
        from_torch(module, SHAPE, mode=mode), input_shape=SHAPE, mode=mode, optimizer="adam", loss="mse_loss", machine=cpu
    )
    inputs = inputs_for([SHAPE])
    measured = measure_training(module, inputs, "adam", "mse_loss") if mode == "train" else measure_inference(module, inputs)
    same(predicted, measured)
    assert predicted.unregistered_bytes == storage_bytes([module[0].weight])


def test_a_refusal_that_the_module_catches_is_still_one() -> None:
    def forward(self: Any, x: Any) -> Any:
        try:
            return self.head(self.first(x) if x.mean() > 0 else x)
        except Exception:
            return self.head(self.first(x))

    with pytest.raises(UnsupportedError, match="branches on a tensor's value"):
        from_torch(Net(forward), SHAPE)


def test_a_buffer_exchanged_inside_a_checkpoint_is_refused() -> None:
    def forward(self: Any, x: Any) -> Any:
        return self.head(checkpoint(lambda a: exchanged_part(self, a), self.first(x), use_reentrant=False))

    def exchanged_part(self: Any, a: Any) -> Any:
        self.average = self.average * 2
        return self.second(a) * self.average.view(1, -1, 1, 1)

    with pytest.raises(UnsupportedError, match="exchanged inside a checkpoint"):
        from_torch(Net(forward), SHAPE)


@pytest.mark.parametrize("given", ["a, b", "[a, b]", "xy", "ij"])
def test_meshgrid_is_recorded_in_every_form(given: str, cpu: Cpu) -> None:
    def forward(self: Any, x: Any) -> Any:
        y = self.head(self.first(x))
        a, b = torch.arange(y.shape[2]), torch.arange(y.shape[3])
        grids: Any = {
            "a, b": lambda: torch.meshgrid(a, b),
            "[a, b]": lambda: torch.meshgrid([a, b]),
            "xy": lambda: torch.meshgrid(a, b, indexing="xy"),
            "ij": lambda: torch.meshgrid((a, b), indexing="ij"),
        }[given]()
        return y * (grids[0] + grids[1]).float().sum() + y.new_full((2, 1), a[1])[0]

    trains_as_torch(forward, cpu)


def test_a_tensor_made_with_another_s_dtype_is_recorded() -> None:
    graph = from_torch(Net(lambda self, x: self.head(self.first(x) + torch.ones(1, dtype=x.dtype))), SHAPE, mode="infer")
    assert "new_ones" in {layer.op for layer in graph.layers}


def test_outputs_in_a_dataclass_are_found() -> None:
    @dataclass
    class Answer:
        logits: Any
        scale: float

    assert from_torch(Net(lambda self, x: Answer(self.head(self.first(x)), 2.0)), SHAPE).outputs == ("head",)


@torch.jit.script
def scripted_function(x):  # type: ignore[no-untyped-def]
    return x * torch.sigmoid(x)


def test_compiled_parts_are_refused_wherever_they_stand() -> None:
    module = Net(wrapped)
    module.second = torch.jit.trace(module.second.eval(), torch.zeros(1, 8, 4, 4))  # type: ignore[assignment]
    with pytest.raises(UnsupportedError, match=r"second \(test_contexts.py:\d+\): no rule for a compiled ScriptModule"):
        from_torch(module, SHAPE, mode="infer")
    with pytest.raises(UnsupportedError, match="no rule for"):
        from_torch(Net(lambda self, x: self.head(scripted_function(self.first(x)))), SHAPE, mode="infer")
    with pytest.raises(UnsupportedError, match=r"torch\.vmap"):
        from_torch(Net(lambda self, x: self.head(torch.vmap(lambda a: a * 2)(self.first(x)))), SHAPE, mode="infer")


def test_dtypes_that_do_not_meet_are_told_in_torchs_words() -> None:
    with pytest.raises(GraphError, match=r"0: RuntimeError: .*dtype|0: RuntimeError: .*type"):
        from_torch(nn.Sequential(nn.Conv2d(3, 4, 1).half()), torch.zeros(1, 3, 4, 4))


class Counting(nn.Module):
    """Another path from the second call on, or at every call."""

    def __init__(self, alternates: bool) -> None:
        super().__init__()
        self.conv, self.calls, self.alternates = nn.Conv2d(3, 4, 3), 0, alternates

    def forward(self, x: Any) -> Any:
        self.calls += 1
        y = self.conv(x)
        return y * y * 2 if (self.calls % 2 if self.alternates else self.calls > 1) else y


def test_a_module_that_remembers_is_recorded_at_its_second_call(cpu: Cpu) -> None:
    module = Counting(False)
    graph = from_torch(module, SHAPE)
    assert module.calls == 0
    predicted = memest.estimate(graph, input_shape=SHAPE, optimizer="sgd", loss="mse_loss", machine=cpu)
    same(predicted, measure_training(module, inputs_for([SHAPE]), "sgd", "mse_loss"))
    with pytest.raises(UnsupportedError, match="no step is like the next"):
        from_torch(Counting(True), SHAPE)


def test_a_draw_of_python_s_random_is_noted(cpu: Cpu) -> None:
    graph = from_torch(Net(lambda self, x: self.head(self.first(x)) * (2 if random.random() < 0.5 else 3)), SHAPE)
    assert any("random" in n for n in memest.estimate(graph, input_shape=SHAPE, loss="mse_loss", machine=cpu).notes)


def _hooked(where: str) -> Any:
    module = Net(lambda self, x: self.head(self.first(x)))
    if where == "accumulated":
        module.head.weight.register_post_accumulate_grad_hook(lambda p: None)
    else:
        module.head.register_backward_hook(lambda m, i, o: None)
    return module


@pytest.mark.parametrize(
    ("where", "said"),
    [("accumulated", "register_post_accumulate_grad_hook"), ("module", "backward hook")],
)
def test_hooks_that_run_in_backward_are_refused_in_training_alone(where: str, said: str) -> None:
    module = _hooked(where)
    with pytest.raises(UnsupportedError, match=f"head.*{said}"):
        from_torch(module, SHAPE, mode="train")
    from_torch(module, SHAPE, mode="infer")


def test_autograd_s_graph_is_not_asked_in_vain(cpu: Cpu) -> None:
    with pytest.raises(UnsupportedError, match="grad_fn"):
        from_torch(Net(lambda self, x: self.head(self.first(x)) if x.grad_fn is None and self.first(x).grad_fn else x), SHAPE, mode="train")
    trains_as_torch(lambda self, x: self.head(self.first(x) * (3 if self.first(x).is_leaf else torch.ones(1))), cpu)


def test_constants_that_are_no_attributes_are_the_network_s_own(cpu: Cpu) -> None:
    scale, offset = torch.rand(1, 8, 1, 1), [torch.rand(8)]
    before = scale.clone()

    def forward(self: Any, x: Any) -> Any:
        return self.head(self.first(x) * scale + offset[0].view(1, -1, 1, 1))

    module = Net(forward)
    predicted = memest.estimate(from_torch(module, SHAPE), input_shape=SHAPE, loss="mse_loss", optimizer="adam", machine=cpu)
    measured = measure_training(module, inputs_for([SHAPE]), "adam", "mse_loss")
    same(predicted, measured)
    assert predicted.unregistered_bytes == storage_bytes([scale, *offset])
    with pytest.raises(MemestError):
        from_torch(Net(lambda self, x: self.head(self.first(x) * scale.mul_(2)).no_such), SHAPE)
    assert torch.equal(scale, before)


def test_what_a_forward_raises_is_an_error_of_ours() -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise ZeroDivisionError

    def failing(error: BaseException) -> Forward:
        def forward(self: Any, x: Any) -> Any:
            raise error

        return forward

    for error in (SystemExit(0), GeneratorExit(), MuteError(), ValueError("a\nb\x1b[31m")):
        with pytest.raises(GraphError, match=type(error).__name__) as caught:
            from_torch(Net(failing(error)), SHAPE)
        assert str(caught.value).isprintable()

    def holds_itself(self: Any, x: Any) -> Any:
        found: list[Any] = [self.head(self.first(x))]
        return [*found, found]

    assert from_torch(Net(holds_itself), SHAPE).outputs == ("head", "head")


# one of two modes ---------------------------------------------------------------------------------------------------------


class OnlyInference(nn.Module):
    """Batch norm after a global pool: torch refuses to train it at batch 1."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(4))

    def forward(self, x: Any) -> Any:
        return self.net(x)


def test_a_mode_that_cannot_be_recorded_is_refused_when_it_is_asked_for(cpu: Cpu) -> None:
    shape = (1, 3, 8, 8)
    graph = from_torch(OnlyInference(), shape)
    assert memest.estimate(graph, input_shape=shape, mode="infer", machine=cpu).peak_bytes > 0
    with pytest.raises(UnsupportedError, match=r"net\.2 \(test_contexts.py:\d+\): ValueError"):
        memest.estimate(graph, input_shape=shape, mode="train", machine=cpu)
    assert memest.loads(memest.dumps(graph)).refused == graph.refused
    assert from_torch(OnlyInference(), shape, mode="infer").refused[0][0] == "train"
    with pytest.raises(GraphError, match=r"net\.2 \(test_contexts.py:\d+\): ValueError"):
        from_torch(OnlyInference(), shape, mode="train")


def test_the_other_way_round(cpu: Cpu) -> None:
    def forward(self: Any, x: Any) -> Any:
        y = self.head(self.first(x))
        return y if self.training else y.nonzero()

    graph = from_torch(Net(forward), SHAPE)
    assert memest.estimate(graph, input_shape=SHAPE, loss="mse_loss", machine=cpu).peak_bytes > 0
    with pytest.raises(UnsupportedError, match=r"nonzero\(\) depends on values"):
        memest.estimate(graph, input_shape=SHAPE, mode="infer", machine=cpu)


def test_a_module_in_eval_mode_trains_with_its_contexts(cpu: Cpu) -> None:
    """Frozen batch norms, and a backbone under no_grad: what its inference looks like does not tell what its training keeps."""
    module = Net(frozen_first).eval()
    predicted = memest.estimate(from_torch(module, SHAPE), input_shape=SHAPE, optimizer="sgd", loss="mse_loss", machine=cpu)
    same(predicted, measure_training(module, inputs_for([SHAPE]), "sgd", "mse_loss"))


# wrappers and what is no module -------------------------------------------------------------------------------------------


def test_wrappers_are_taken_off_and_said() -> None:
    module = Net(wrapped)
    plain = from_torch(module, SHAPE)
    parallel = from_torch(nn.DataParallel(module), SHAPE)
    assert parallel.with_(notes=()) == plain and "DataParallel" in parallel.notes[0]
    compiled = from_torch(torch.compile(module), SHAPE)
    assert compiled.with_(notes=()) == plain and "torch.compile" in compiled.notes[0]
    with pytest.raises(UnsupportedError, match="the module it was made from"):
        from_torch(torch.jit.trace(nn.ReLU(), torch.zeros(1)), SHAPE)


def test_what_is_no_module_or_example_is_said_in_one_line() -> None:
    module = Net(wrapped)
    for given, words in ((Net, "make one first: Net(…)"), (module.state_dict(), "give the module"), (3, "got 3"), (None, "got None")):
        with pytest.raises(UsageError, match=re.escape(words)):
            from_torch(given, SHAPE)
    for example, words in (
        ("two", "is written as 2x3x224x224"),
        (None, "got None"),
        ((2, 0, 4), "sizes are positive"),
        ((2.0, 3), "lists, tuples and dicts of them"),
        ({"x": "a"}, "lists, tuples and dicts of them"),
    ):
        with pytest.raises(UsageError, match=re.escape(words)) as caught:
            from_torch(module, example)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 300
    with pytest.raises(UsageError, match="unknown mode"):
        from_torch(module, SHAPE, mode="test")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_modules_of_another_dtype_are_recorded(dtype: str, cpu: Cpu) -> None:
    module = nn.Sequential(nn.Linear(8, 4), nn.ReLU()).to(getattr(torch, dtype))
    graph = from_torch(module, torch.zeros(2, 8, dtype=getattr(torch, dtype)))
    assert from_torch(module, (2, 8)) == graph
    measured = measure_inference(module, inputs_for([(2, 8)], dtype=dtype))
    same(memest.estimate(graph, input_shape=(2, 8), mode="infer", machine=cpu), measured)


def test_of_several_outputs_the_one_that_the_loss_takes_is_said(cpu: Cpu) -> None:
    def two_heads(self: Any, x: Any) -> Any:
        y = self.first(x)
        return {"aux": self.head(y), "out": self.head(self.second(y))}

    graph = from_torch(Net(two_heads), SHAPE)
    found = memest.estimate(graph, input_shape=SHAPE, loss="mse_loss", machine=cpu)
    assert found.loss_output == graph.outputs[0] and found.to_dict()["loss_output"] == found.loss_output
    assert f"the loss takes {found.loss_output!r}, the first of 2 outputs" in found.notes
    alone = memest.estimate(graph, input_shape=SHAPE, mode="infer", machine=cpu)
    assert alone.loss_output is None and not alone.notes
