"""The torch importer: the module is left as found, sizes stay symbolic, what has no rule is named."""

from __future__ import annotations

import copy
import subprocess
import sys
from typing import Any

import pytest

import memest
from memest.errors import GraphError, UnsupportedError, UsageError
from memest.estimate.estimate import Estimate, estimate
from memest.machines.cpu import Cpu
from memest.network.graph import Graph
from memest.sizes.dims import Expr

torch = pytest.importorskip("torch")

from tiny import NETWORKS, OTHER_SIZES, built  # noqa: E402
from torch import nn  # noqa: E402

from memest.sources.importers.torch.network import from_torch  # noqa: E402

every_network = pytest.mark.parametrize("name", NETWORKS)
CPU = Cpu()


def stream(graph: Graph, shape: Any, mode: str = "train") -> list[int]:
    """The predicted events of one step."""
    return [s.delta for s in played(graph, shape, mode).events]


def played(graph: Graph, shape: Any, mode: str = "train") -> Estimate:
    """One step on a described processor."""
    return estimate(graph, input_shape=shape, mode=mode, machine=CPU)


# the module is left as found ------------------------------------------------------------------------------------------------


def hooks_of(module: nn.Module) -> list[int]:
    """How many hooks each submodule has, of every kind."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_state_dict_hooks")
    return [len(getattr(m, kind)) for m in module.modules() for kind in kinds]


@every_network
@pytest.mark.parametrize("training", [True, False])
def test_module_is_left_as_found(name: str, training: bool) -> None:
    module, shape = built(name)
    module.train(training)
    next(module.children()).eval()  # a flag of its own
    module.register_forward_hook(lambda *_: None)
    before = [(n, id(t), t._version, t.requires_grad, t.device) for n, t in [*module.named_parameters(), *module.named_buffers()]]
    values = copy.deepcopy(module.state_dict())
    flags, hooks = [m.training for m in module.modules()], hooks_of(module)
    from_torch(module, shape)
    after = [(n, id(t), t._version, t.requires_grad, t.device) for n, t in [*module.named_parameters(), *module.named_buffers()]]
    assert after == before
    assert [m.training for m in module.modules()] == flags
    assert hooks_of(module) == hooks
    assert all(torch.equal(values[k], v) for k, v in module.state_dict().items())
    assert all(p.grad is None for p in module.parameters())


def test_a_module_that_stands_under_two_names_keeps_its_parameters() -> None:
    layer = nn.Linear(4, 4)
    module = nn.Sequential(layer, nn.ReLU(), layer)
    own = [layer.weight, layer.bias]
    graph = from_torch(module, (2, 4))
    assert all(a is b for a, b in zip(module.parameters(), own, strict=True))
    assert [p.name for p in graph.parameters] == ["0.weight", "0.bias"]


def test_module_is_left_as_found_when_import_fails() -> None:
    class Unsupported(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, x: Any) -> Any:
            return torch.linalg.ldl_factor(self.norm(x))

    module = Unsupported()
    function, parameters = torch.overrides.has_torch_function, [id(p) for p in module.parameters()]
    called, handed = nn.Module._call_impl, nn.functional.handle_torch_function
    with pytest.raises(UnsupportedError):
        from_torch(module, (2, 3, 4, 4))
    assert torch.overrides.has_torch_function is function
    assert nn.Module._call_impl is called and nn.functional.handle_torch_function is handed
    assert [id(p) for p in module.parameters()] == parameters
    assert not nn.modules.module._global_forward_hooks and not nn.modules.module._global_forward_pre_hooks
    assert module(torch.rand(2, 3, 4, 4))[0].shape == (2, 3, 4, 4), "calls are ordinary again"


def test_meta_and_cpu_modules_give_one_graph() -> None:
    module, shape = built("skip")
    assert from_torch(copy.deepcopy(module).to("meta"), shape) == from_torch(module, shape)


def test_random_state_is_not_touched() -> None:
    module, shape = built("volume")
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    from_torch(module, shape)
    assert torch.equal(torch.rand(3), expected)


# examples -------------------------------------------------------------------------------------------------------------------


def test_shapes_tensors_and_sequences_of_them_are_examples() -> None:
    module, shape = built("plain")
    graph = from_torch(module, shape)
    for example in (list(shape), torch.rand(shape), torch.empty(shape, device="meta"), [shape], {"input": shape}):
        assert from_torch(module, example) == graph


@pytest.mark.parametrize("example", [(), "two by three", (2, 0, 4, 4), (2, -3, 4, 4), [], 5])
def test_what_is_no_example_is_refused(example: Any) -> None:
    module, _ = built("plain")
    with pytest.raises(UsageError):
        from_torch(module, example)


def test_only_modules_are_imported() -> None:
    with pytest.raises(UsageError, match=r"torch\.nn\.Module"):
        from_torch(torch.relu, (2, 3))  # type: ignore[arg-type]


# symbolic sizes -------------------------------------------------------------------------------------------------------------


@every_network
@pytest.mark.parametrize("mode", ["train", "infer"])
def test_one_import_serves_all_sizes(name: str, mode: str) -> None:
    """Imported at one size and estimated at another: just as if imported at the other."""
    module, shape = built(name)
    other = OTHER_SIZES[name]
    here, there = from_torch(module, shape), from_torch(module, other)
    assert stream(here, other, mode) == stream(there, other, mode)
    assert played(here, other, mode).peak_bytes == played(there, other, mode).peak_bytes
    assert stream(here, shape, mode) != stream(there, other, mode), "sizes that give one stream show nothing"


def test_sizes_are_written_as_formulas() -> None:
    module, shape = built("shuffle")
    graph = from_torch(module, shape)
    assert [str(d) for d in graph.inputs[0].shape] == ["N", "4", "H", "W"]
    view = next(layer for layer in graph.layers if layer.op == "view")
    assert any(isinstance(d, Expr) for d in dict(view.attributes)["shape"])


# what is recorded -----------------------------------------------------------------------------------------------------------


def test_layers_carry_module_paths() -> None:
    module, shape = built("residual")
    names = [layer.name for layer in from_torch(module, shape).layers]
    assert {"stem", "head"} <= set(names)
    assert any(n.startswith("body.0") for n in names)
    assert len(set(names)) == len(names)


def test_parameters_keep_names_shapes_and_flags() -> None:
    module, shape = built("frozen")
    owned = {p.name: (p.shape, p.trainable, p.buffer) for p in from_torch(module, shape).parameters}
    assert owned == {n: (tuple(p.shape), p.requires_grad, False) for n, p in module.named_parameters()}


def test_shared_modules_own_one_set_of_parameters() -> None:
    module, shape = built("shared")
    graph = from_torch(module, shape)
    assert [p.name for p in graph.parameters if not p.buffer] == [n for n, _ in module.named_parameters()]
    assert sum("conv.weight" in layer.reads for layer in graph.layers) == 2


def test_a_module_with_hooks_of_its_own_stands_where_one_without_does() -> None:
    """Modules without hooks are told of by a shorter way than torch's."""
    names: list[list[str]] = []
    for hooked in (False, True):
        module = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU()))
        if hooked:
            module[1].register_forward_hook(lambda module, args, result: result + 1)
            module[1][0].register_forward_pre_hook(lambda module, args: None)
        names.append([layer.name for layer in from_torch(module, (2, 3, 5, 5)).layers])
    assert names == [["0", "1.0", "1.1"], ["0", "1.0", "1.1", "add"]]


def test_tied_parameters_are_one() -> None:
    module = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Conv2d(3, 3, 1))
    module[2].weight = module[0].weight
    graph = from_torch(module, (2, 3, 5, 5))
    assert [p.name for p in graph.parameters] == ["0.weight", "0.bias", "2.bias"]


def test_loss_takes_out_of_a_mapping() -> None:
    module, shape = built("heads")
    graph = from_torch(module, shape)
    made_by = {out: layer.name for layer in graph.layers for out in layer.outputs}
    assert [made_by[o] for o in graph.outputs] == ["main", "aux"]


def test_eval_has_a_graph_of_its_own() -> None:
    module, shape = built("volume")
    graph = from_torch(module, shape)
    assert graph.inference is not None
    assert graph.inference.layers != graph.layers
    module.eval()
    assert stream(from_torch(module, shape), shape, "infer") == stream(graph, shape, "infer")


def test_frames_hold_what_python_holds() -> None:
    """A local that is no longer read lives as long as its function runs; ``del`` ends it."""

    class Local(nn.Module):
        def __init__(self, early: bool) -> None:
            super().__init__()
            self.early = early

        def forward(self, x: Any) -> Any:
            y = torch.sigmoid(x)
            z = torch.exp(y)
            if self.early:
                del y
            return torch.exp(z)

    shape = (2, 3, 4, 4)
    size = 2 * 3 * 4 * 4 * 4
    assert stream(from_torch(Local(True).eval(), shape), shape, "infer") == [size, size, -size, size, -size]
    held = stream(from_torch(Local(False).eval(), shape), shape, "infer")
    assert held == [size, size, size, -size, -size]


# what is refused ------------------------------------------------------------------------------------------------------------


def refusal(forward: Any, error: type[Exception]) -> str:
    """The message of an import that fails, inside a module called ``block``."""

    class Inner(nn.Module):
        def forward(self, x: Any) -> Any:
            return forward(x)

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = Inner()

        def forward(self, x: Any) -> Any:
            return self.block(x)

    with pytest.raises(error) as caught:
        from_torch(Outer(), (2, 3, 4, 4))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_unsupported_call_names_call_module_and_line() -> None:
    line = test_unsupported_call_names_call_module_and_line.__code__.co_firstlineno
    message = refusal(lambda x: torch.linalg.ldl_factor(x), UnsupportedError)
    assert "ldl_factor" in message
    assert "block" in message
    assert f"test_importer.py:{line + 2}" in message


@pytest.mark.parametrize(
    "forward",
    [
        lambda x: x[x > 0],
        lambda x: x * 2 if x.sum() > 0 else x,
        lambda x: x * 2 if x.max().item() > 0 else x,
        lambda x: torch.nonzero(x),
        lambda x: torch.where(x > 0)[0],
        lambda x: x[:, : int(x.argmax())],
    ],
    ids=["mask", "branch", "item", "nonzero", "where", "int"],
)
def test_data_dependent_networks_are_refused(forward: Any) -> None:
    message = refusal(forward, UnsupportedError)
    assert "block" in message
    assert "test_importer.py:" in message


def test_impossible_shapes_are_refused_with_their_place() -> None:
    message = refusal(lambda x: torch.cat([x, x[:, :, 1:]], 1), GraphError)
    assert "block" in message
    assert "test_importer.py:" in message


class UnprintableError(Exception):
    """An exception that cannot say what it is."""

    def __str__(self) -> str:
        raise ValueError


@pytest.mark.parametrize(
    "error",
    [
        AttributeError("no\nsuch"), KeyError("k"), IndexError(3), ZeroDivisionError(), StopIteration(), NotImplementedError(),
        SystemExit(3), RecursionError(), MemoryError(), ImportError("apex"), AssertionError(), GeneratorExit(), UnprintableError(),
    ],
    ids=lambda e: type(e).__name__,
)  # fmt: skip
def test_an_exception_of_their_code_is_one_line_with_its_place(error: BaseException) -> None:
    def forward(x: Any) -> Any:
        raise error

    message = refusal(forward, GraphError)
    assert message.startswith(f"block (test_importer.py:{forward.__code__.co_firstlineno + 1}): {type(error).__name__}")


@pytest.mark.parametrize("name", ["train", "parameters", "named_modules"])
def test_an_exception_outside_of_forward_has_its_place_too(name: str) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise LookupError("not\nthis")

    module = type("Net", (nn.ReLU,), {name: fails})()
    for mode in ("infer", None):
        with pytest.raises(GraphError, match=rf"^Net \(test_importer.py:{fails.__code__.co_firstlineno + 1}\): LookupError: not this$"):
            from_torch(module, (2, 3, 4, 4), mode=mode)
        with pytest.raises(GraphError, match="LookupError: not this"):
            memest.from_torch(module, (2, 3, 4, 4), mode=mode)


def test_moves_between_devices_are_none() -> None:
    def kernels(forward: Any) -> list[int]:
        class Moving(nn.Module):
            def forward(self, x: Any) -> Any:
                return forward(torch.sigmoid(x)).exp()

        return stream(from_torch(Moving(), (2, 3, 4, 4)), (2, 3, 4, 4), "infer")

    plain = kernels(lambda x: x)
    assert kernels(lambda x: x.cuda()) == kernels(lambda x: x.cpu()) == kernels(lambda x: x.to("cuda:0")) == plain


@pytest.mark.parametrize("mode", ["reflect", "replicate"])
def test_what_torch_has_no_kernel_for_is_refused(mode: str) -> None:
    """torch's meta kernels cannot say so: what they lack is taken from our rows."""
    message = refusal(lambda x: nn.functional.pad(x[..., None, None], (1,) * 8, mode=mode), GraphError)
    assert "at most 3 dimensions" in message


def test_a_forward_without_tensors_is_refused() -> None:
    class Nothing(nn.Module):
        def forward(self, x: Any) -> Any:
            return None

    with pytest.raises(UnsupportedError, match="no tensor"):
        from_torch(Nothing(), (2, 3))


def test_lazy_modules_are_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"^0: .*a lazy module that never ran"):
        from_torch(nn.Sequential(nn.LazyConv2d(3, 1)), (2, 3, 4, 4))


def test_lazy_modules_that_do_not_run_are_in_nobodys_way() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.other = nn.Conv2d(3, 4, 1), nn.LazyLinear(2)

        def forward(self, x: Any) -> Any:
            return self.conv(x)

    module = Unused()
    assert len(from_torch(module, (2, 3, 4, 4)).parameters) == 2 and module.other.has_uninitialized_params()


GARBAGE = """
import gc, sys
if sys.argv[1] == "never":
    gc.set_threshold(0)
from torch import nn
import memest
layers = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Upsample(scale_factor=2), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1)
module = nn.Sequential(*layers)
for p in module.parameters():
    p.requires_grad_(False)
print(memest.dumps(memest.from_torch(module, (2, 3, 16, 16))))
"""


@pytest.mark.slow
def test_a_recording_does_not_depend_on_when_garbage_is_collected() -> None:
    commands = ([sys.executable, "-c", GARBAGE, how] for how in ("often", "never"))
    often, never = (subprocess.run(c, capture_output=True, text=True, check=True).stdout for c in commands)
    assert often == never and "drops" not in often


def test_what_was_recorded_at_a_size_is_read_back_at_it() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 3))
    graph = from_torch(module, (2, 3, 8, 8))
    assert memest.loads(memest.dumps(graph)) == graph and memest.loads(memest.dumps(memest.loads(memest.dumps(graph)))) == graph


def test_what_was_recorded_for_one_mode_is_refused_in_the_other() -> None:
    for mode, other in (("train", "infer"), ("infer", "train")):
        graph = from_torch(nn.Sequential(nn.Conv2d(3, 4, 3)), (2, 3, 8, 8), mode=mode)
        with pytest.raises(UnsupportedError, match="recorded for"):
            estimate(graph, input_shape=(2, 3, 8, 8), mode=other)
