"""Modules around modules: taken off or stepped through, which is said, or refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import memest
from memest.errors import UnsupportedError, UsageError

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from memest.sources.importers.torch.network import from_torch  # noqa: E402

SHAPE = (2, 3, 8, 8)


def compiled_in_place(module: Any) -> Any:
    module.compile()
    return module


WRAPPERS: dict[str, Callable[[nn.Module], Any]] = {"torch.compile": torch.compile, "DataParallel": nn.DataParallel}
IN_PLACE = {**WRAPPERS, "torch.compile in place": compiled_in_place}


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(288, 4))


def deltas(graph: Any) -> list[int]:
    return [e.delta for e in memest.estimate(graph, input_shape=SHAPE).events]


def training(model: Any) -> Callable[[Any], None]:
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def step(x: Any) -> None:
        model(x).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


@pytest.mark.parametrize("name", IN_PLACE)
def test_wrappers_are_taken_off_wherever_they_are(name: str) -> None:
    wrap, plain = IN_PLACE[name], network()
    expected = deltas(from_torch(plain, SHAPE))
    inner = network()
    inner[0] = wrap(inner[0])
    for module in (wrap(network()), inner, wrap(inner)):
        before = [dict(m.__dict__) for m in module.modules()]
        graph = from_torch(module, SHAPE)
        assert deltas(graph) == expected and any(name.partition(" ")[0] in note for note in graph.notes)
        assert before == [m.__dict__ for m in module.modules()]


@pytest.mark.parametrize("name", IN_PLACE)
def test_a_step_goes_through_wrappers(name: str) -> None:
    plain, wrapped = memest.step(training(network()), SHAPE), memest.step(training(IN_PLACE[name](network())), SHAPE)
    assert [e.delta for e in wrapped.events] == [e.delta for e in plain.events]
    assert any(name.partition(" ")[0] in note for note in wrapped.notes) and not any(name.partition(" ")[0] in note for note in plain.notes)


def test_modules_that_hide_their_code_are_refused() -> None:
    scripted = torch.jit.script(network())
    for module in (scripted, nn.Sequential(scripted)):
        with pytest.raises(UnsupportedError, match=r"give the module it was made from|put in the module it was made from"):
            from_torch(module, SHAPE)
    with pytest.raises(UnsupportedError, match="give the module that was exported"):
        from_torch(torch.export.export(network().eval(), (torch.rand(SHAPE),)).module(), SHAPE)
    program = torch.export.export(network().eval(), (torch.rand(SHAPE),))
    with pytest.raises(UsageError, match=r"give the module that was exported, or torch\.export\.save it and memest\.load the \.pt2"):
        from_torch(program, SHAPE)


def test_the_place_that_is_named_is_inside_the_network() -> None:
    whose = nn.Sequential(nn.Linear(4, 4), nn.utils.parametrizations.orthogonal(nn.Linear(4, 4)))
    with pytest.raises(UnsupportedError, match=r"^1\.parametrizations\.weight\.0: no rule for torch\.matrix_exp"):
        from_torch(whose, (2, 4))


def test_only_the_mode_that_is_asked_is_recorded() -> None:
    pooled = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(8))
    from_torch(pooled, (1, 3, 8, 8), mode="infer")
    with pytest.raises(memest.MemestError, match="more than 1 value per channel"):
        from_torch(pooled, (1, 3, 8, 8), mode="train")
