"""Calls that repeat: a graph is the same whether its calls were seen before, in it or in another network, or not."""

# mypy: disable-error-code="misc,no-any-return"

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from memest import clear_caches, dumps
from memest.errors import GraphError, ShapeError, UnsupportedError
from memest.network.graph import Graph

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from tiny import NETWORKS, built  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from memest.sources.importers.torch.network import from_torch  # noqa: E402
from memest.sources.importers.torch.recording import repeats  # noqa: E402

SHAPE = (2, 4, 8, 8)


class Passing(TorchDispatchMode):
    """Looks at every call that reaches torch's kernels, and counts; under it nothing is remembered."""

    calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        return func(*args, **(kwargs or {}))


def module(forward: Callable[..., Any], *inside: nn.Module) -> nn.Module:
    """A module with this forward, which finds ``inside`` in ``self.inside``."""
    made = type("Repeating", (nn.Module,), {"forward": forward})()
    made.inside = nn.ModuleList(inside)
    return made


def each_by_itself(net: nn.Module, *shapes: Any) -> Graph:
    """The graph when no call is remembered."""
    with Passing() as mode:
        graph = from_torch(net, list(shapes) if len(shapes) > 1 else shapes[0])
    assert mode.calls
    return graph


def agree(net: nn.Module, *shapes: Any) -> str:
    """The text of the graph, the same with nothing remembered, with all forgotten, and from memory."""
    clear_caches()
    example = list(shapes) if len(shapes) > 1 else shapes[0]
    alone = each_by_itself(net, *shapes)
    first, again = from_torch(net, example), from_torch(net, example)
    assert first == again == alone
    assert dumps(first) == dumps(again) == dumps(alone)
    return dumps(alone)


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The operators that torch's own functions were called for."""
    from memest.sources.importers.torch.recording import writing

    seen: list[str] = []
    honest = writing.execute

    def execute(live: Any, request: Any, *rest: Any) -> Any:
        seen.append(request.op)
        return honest(live, request, *rest)

    monkeypatch.setattr(writing, "execute", execute)
    clear_caches()
    yield seen


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_the_same_from_memory(name: str) -> None:
    net, shape = built(name)
    agree(net, shape)


def test_equal_blocks_cost_one(executed: list[str]) -> None:
    net = nn.Sequential(*[m for _ in range(5) for m in (nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())])
    from_torch(net, SHAPE)
    assert sorted(executed) == ["add", "batch_norm", "batch_norm", "conv2d", "relu"]  # batch_norm: one of training, one of eval
    from_torch(nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)), SHAPE)
    assert executed.count("conv2d") == executed.count("relu") == 1


def test_a_call_that_keeps_sizes_is_asked_once_for_all_of_them(executed: list[str]) -> None:
    net = nn.Sequential(*[m for n in (4, 5, 6) for m in (nn.Conv2d(n, n + 1, 3), nn.BatchNorm2d(n + 1), nn.GELU())])
    from_torch(net, (2, 4, 32, 32), mode="train")
    assert sorted(executed) == ["add", "batch_norm", "conv2d", "gelu"]
    other = module(lambda self, x: F.batch_norm(self.inside[0](x), torch.zeros(3), torch.ones(3), training=True), nn.Conv2d(4, 7, 3))
    with pytest.raises(GraphError, match="3"):
        from_torch(other, SHAPE)
    broadcast = module(lambda self, x: x + x[:, :1], nn.Identity())
    assert from_torch(broadcast, SHAPE).layers and "add" in executed[4:]


def test_sizes_that_follow_by_arithmetic_are_asked_once(executed: list[str]) -> None:
    from_torch(nn.Sequential(*[nn.Linear(n, n + 1) for n in (4, 5, 6)]), (2, 4))
    assert executed == ["linear"]
    shape = (2, 3, 16, 16)
    from_torch(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Conv2d(5, 4, 3, padding=1)), shape)
    for wrong, given in ((nn.Linear(9, 2), (2, 4)), (nn.Conv2d(4, 5, 3), shape), (nn.Conv2d(3, 5, 30), shape)):
        with pytest.raises(ShapeError):
            from_torch(wrong, given)
    assert executed.count("linear") == 1 and executed.count("conv2d") == 2  # where dims are of one element, torch may see another layout


def test_what_was_forgotten_is_asked_again(executed: list[str]) -> None:
    from_torch(nn.ReLU(), SHAPE)
    clear_caches()
    from_torch(nn.ReLU(), SHAPE)
    assert executed == ["relu", "relu"]


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    clear_caches()
    monkeypatch.setattr(repeats, "_MOST", 3)
    net = nn.Sequential(*[nn.Linear(n, n + 1) for n in range(4, 16)])
    graph = from_torch(net, (2, 4))
    assert len(repeats._CALLS.shelf("known", 3)) == len(repeats._CALLS.shelf("answers", 3)) == 3
    clear_caches()
    assert graph == from_torch(net, (2, 4))


# forms that are told apart ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", [(1, 1.0), (2.0, 2), (0.0, -0.0)])
def test_numbers_of_other_types_are_other_calls(pair: tuple[Any, Any]) -> None:
    def forward(self: Any, x: Any) -> Any:
        counts = torch.zeros(2, dtype=torch.int64)
        return x * pair[0] + x * pair[1], counts * pair[0], counts * pair[1]

    agree(module(forward), SHAPE)


def test_a_flag_is_told_from_the_number_it_equals() -> None:
    net = module(lambda self, x: x * 1 + x * True)
    for run in (each_by_itself, from_torch, from_torch):
        with pytest.raises(GraphError, match="expected a number, got True"):
            run(net, SHAPE)


def test_a_size_of_the_input_is_told_from_a_number_of_its_value() -> None:
    def forward(self: Any, x: Any) -> Any:
        return x.new_zeros(x.shape[0], 8), x.new_zeros(2, x.shape[2]), x.new_zeros(2, 8), x.new_zeros(x.shape[0], x.shape[3])

    text = agree(module(forward), SHAPE)
    assert [text.count(f"size: {size}") for size in ("[=N, 8]", "[2, =H]", "[2, 8]", "[=N, =W]")] == [1, 1, 1, 1]


def test_one_tensor_twice_is_told_from_two() -> None:
    def forward(self: Any, x: Any) -> Any:
        a, b = x + 1, x + 2
        return a * b, a * a, b * a, torch.cat([a, a]), torch.cat([a, b]), a.add_(a), b.add_(a)

    agree(module(forward), SHAPE)


def test_tensors_that_share_memory_are_told_from_others() -> None:
    def forward(self: Any, x: Any) -> Any:
        a, b = x.chunk(2, 1)
        c, d = a.clone(), b.clone()
        return a.to(b.dtype), a * b, c * d, a.contiguous() * b, c.contiguous() * d, c.contiguous().mul_(d)

    agree(module(forward), SHAPE)


def test_layouts_are_told_apart() -> None:
    def forward(self: Any, x: Any) -> Any:
        y = x.to(memory_format=torch.channels_last)
        return self.inside[0](x) + 1, self.inside[0](y) + 1, x.mT.contiguous().view(2, -1), y.contiguous().view(2, -1)

    agree(module(forward, nn.Conv2d(4, 4, 3)), SHAPE)


def test_a_dtype_that_was_asked_of_a_tensor_is_told_from_one_that_was_named() -> None:
    def forward(self: Any, x: Any) -> Any:
        named = x.to(torch.float32), torch.zeros(2, 3, dtype=torch.float32)
        asked = x.to(x.dtype), torch.zeros(2, 3, dtype=x.dtype)
        return *named, *asked, x.to(torch.float32), x.to(x.dtype), torch.zeros(2, 3, dtype=x.dtype)

    text = agree(module(forward), SHAPE)
    assert [text.count(f"- {op}:") for op in ("to", "zeros", "new_zeros")] == [4, 1, 2]


def test_a_default_dtype_set_in_between_counts() -> None:
    def forward(self: Any, x: Any) -> Any:
        whole = x.argmax(1)
        once = whole / 2
        torch.set_default_dtype(torch.float64)
        try:
            return once, whole / 2
        finally:
            torch.set_default_dtype(torch.float32)

    for run in (each_by_itself, from_torch, from_torch):
        with pytest.raises(GraphError, match=r"torch gives div the shape .* float64"):
            run(module(forward), SHAPE)


def test_a_flag_that_follows_the_mode_is_written_by_the_mode() -> None:
    net = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm2d(4), nn.Dropout(0.5))
    training, inference = from_torch(net, SHAPE, mode="train"), from_torch(net, SHAPE, mode="infer")
    assert training != inference
    frozen = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm2d(4).eval(), nn.Dropout(0.5).eval())
    assert '"training", False' in repr(from_torch(frozen, SHAPE).layers).replace("'", '"')
    agree(net, SHAPE)
    agree(frozen, SHAPE)


# what may come to something else is asked every time ------------------------------------------------------------------------


def test_a_call_that_changes_what_it_was_given_is_not_remembered() -> None:
    def forward(self: Any, x: Any) -> Any:
        a, b = x[:, :1].clone(), x[:, :1].clone()
        a.squeeze_(1)
        b.squeeze_(1)
        return a + 1, b + 1

    net = module(forward)
    outcomes = []
    for run in (each_by_itself, from_torch, from_torch):
        try:
            outcomes.append(dumps(run(net, SHAPE)))
        except (GraphError, UnsupportedError) as e:
            outcomes.append(str(e))
    assert outcomes[0] == outcomes[1] == outcomes[2]


def test_sizes_that_were_compared_are_conditions_each_time() -> None:
    def forward(self: Any, x: Any) -> Any:
        for _ in range(2):
            x = F.pad(x[..., : x.shape[-1] - 1], (0, 1)).expand(x.shape[0], -1, -1, -1)
        return x

    net = module(forward)
    clear_caches()
    assert each_by_itself(net, SHAPE).guards == from_torch(net, SHAPE).guards == from_torch(net, SHAPE).guards


def test_writes_masks_and_results_in_parts_repeat() -> None:
    def forward(self: Any, x: Any) -> Any:
        for _ in range(2):
            mask = x.new_zeros(x.shape[-2:])
            mask[:4, :] = 1
            values, indices = x.max(1)
            low, high = x.chunk(2, 1)
            x = torch.where(mask > 0, x, 0.0) + values.unsqueeze(1) * indices.unsqueeze(1) + torch.cat((high, low), 1)
        return x

    agree(module(forward), SHAPE)


def test_tensors_in_plain_attributes_keep_their_names() -> None:
    def forward(self: Any, x: Any) -> Any:
        return x * self.scale + x * self.scale + x * self.other

    net = module(forward)
    net.scale, net.other = torch.ones(1), torch.ones(1)
    assert "constant_2" in agree(net, SHAPE)


def test_a_shape_that_torch_does_not_give_is_said_at_every_import(monkeypatch: pytest.MonkeyPatch) -> None:
    from memest.sources.importers.torch.calls.plain import signature
    from memest.sources.importers.torch.calls.table import CALLS

    clear_caches()
    monkeypatch.setitem(CALLS, "relu", signature("argmax", "input"))
    for _ in range(2):
        with pytest.raises(GraphError, match="torch gives argmax the shape"):
            from_torch(nn.ReLU(), SHAPE)


def test_the_same_sizes_under_other_names_are_other_sizes() -> None:
    def forward(self: Any, x: Any, y: Any) -> Any:
        return x * 2, y * 2, x.mean((2, 3)), y.mean((2, 3))

    text = agree(module(forward), (2, 4, 8, 8), (2, 4, 6, 6))
    assert "H1" in text
    agree(module(forward), (2, 4, 8, 8), (2, 4, 8, 8))


def test_another_rule_for_a_call_is_asked_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from memest.ops.table import OPERATORS
    from memest.sources.importers.torch.calls.plain import signature
    from memest.sources.importers.torch.calls.table import CALLS

    assert [layer.op for layer in from_torch(nn.ReLU(), SHAPE).layers] == ["relu"]
    with monkeypatch.context() as other:
        other.setitem(CALLS, "relu", signature("sigmoid", "input"))
        assert [layer.op for layer in from_torch(nn.ReLU(), SHAPE).layers] == ["sigmoid"]
    row = OPERATORS["relu"]

    def smaller(k: Any, input: Any, **attributes: Any) -> Any:
        return k.empty(input.shape[1:])

    with monkeypatch.context() as other:
        other.setitem(OPERATORS, "relu", replace(row, forward=smaller))
        with pytest.raises(GraphError, match="torch gives relu the shape"):
            from_torch(nn.ReLU(), SHAPE)
    assert [layer.op for layer in from_torch(nn.ReLU(), SHAPE).layers] == ["relu"]
