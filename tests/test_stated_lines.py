"""What is stated of a line of code: which way a branch on a value goes, and which number is read there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import memest
from memest.errors import UnsupportedError, UsageError
from memest.machines.cpu import Cpu

torch = pytest.importorskip("torch")

from test_assumptions import SHAPE, Net, first  # noqa: E402

from memest.sources.importers.torch.assuming import assumed  # noqa: E402
from memest.sources.importers.torch.network import from_torch  # noqa: E402
from validation.protocol import inputs_for, measure_inference, measure_training  # noqa: E402
from validation.streams import first_difference  # noqa: E402


def item(y: Any) -> Any:
    if y.mean().item() > 9.0:
        y = y * 2
    return y


def two_items(y: Any) -> Any:
    return y.clamp(0, 1) if y.min().item() < 9 and y.max().item() < 9 else y


def whole(y: Any) -> Any:
    for _ in range(int(y.mean().abs().item()) + 2):
        y = y * 2
    return y


def plain(y: Any) -> Any:
    return y * 2 if float(y.mean()) > 9 else y


def nonzero(y: Any) -> Any:
    return y * 2 if y.sum().is_nonzero() else y


def equal(y: Any) -> Any:
    return y * 2 if torch.equal(y, y + 1) else y


def close(y: Any) -> Any:
    return y * 2 if torch.allclose(y, y + 1) else y


def within(y: Any) -> Any:
    return y * 2 if 3.5 in y else y


def counted(y: Any) -> Any:
    return y * 2 if (y == y).sum().item() > 5 else y


def loop(y: Any) -> Any:
    start, passes = y, 0
    while y.sum() > 0 or passes < 2:
        y, passes = start * 2, passes + 1
    return y


CASES: list[tuple[Callable[[Any], Any], Any]] = [
    *((f, False) for f in (item, equal, close, within)),
    *((f, True) for f in (two_items, nonzero, counted)),
    (whole, 0),
    (plain, 0),
]


def line_of(function: Callable[..., Any]) -> str:
    return f"test_stated_lines.py:{function.__code__.co_firstlineno + 1}"


@pytest.mark.parametrize(("function", "value"), CASES, ids=[f.__name__ for f, _ in CASES])
@pytest.mark.parametrize("mode", ["train", "infer"])
def test_what_is_stated_of_a_line_is_the_step_of_torch(function: Any, value: Any, mode: str, cpu: Cpu) -> None:
    module = Net(function)
    graph = from_torch(module, SHAPE, mode=mode, assume={line_of(function): value})
    assert any(f"assumed as stated: {line_of(function)}={str(value).lower()} (" in note for note in graph.notes)
    if mode == "train":
        predicted = memest.estimate(graph, input_shape=SHAPE, loss="mse_loss", optimizer="sgd", machine=cpu)
        measured = measure_training(module, inputs_for([SHAPE]), "sgd", "mse_loss")
    else:
        predicted = memest.estimate(graph, input_shape=SHAPE, mode="infer", machine=cpu)
        measured = measure_inference(module.eval(), inputs_for([SHAPE]))
    difference = first_difference(predicted.events, measured.events)
    assert difference is None, f"\n{difference}"
    assert predicted.peak_bytes == measured.peak_bytes


IN_LOOP = loop.__code__.co_firstlineno + 2


@pytest.mark.parametrize(
    ("function", "said"),
    [
        *((f, "which way it goes: assume={'LINE': True}, in a command --assume LINE=true") for f in (item, equal, close, within, nonzero)),
        *((f, "the number: assume={'LINE': N}, in a command --assume LINE=N") for f in (whole, plain)),
        (loop, f"in each pass of the loop: assume={{'test_stated_lines.py:{IN_LOOP}': [True, False]}}, in a command --assume"),
    ],
)
def test_who_states_nothing_is_told_the_line_and_the_statement(function: Any, said: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        from_torch(Net(function), SHAPE)
    assert said.replace("LINE", line_of(function)) in str(caught.value) and "\n" not in str(caught.value)


def test_a_loop_that_is_stated_never_to_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assumed, "MOST_PASSES", 50)
    line = f"test_stated_lines.py:{IN_LOOP}"
    with pytest.raises(UsageError, match=r"the loop never ends; list a value for each pass, such as \[True, True, False\]"):
        from_torch(Net(loop), SHAPE, assume={line: True})
    passes = [
        sum(layer.op == "mul" for layer in from_torch(Net(loop), SHAPE, assume={line: way}).layers) for way in (False, [True] * 3 + [False])
    ]
    assert passes == [2, 3]


def spread(y: Any) -> Any:
    return torch.masked_select(y, first(8, 24).view(4, 6, 1, 1)).view(-1, 8)


def spread_on(y: Any) -> Any:
    return y.masked_select(first(6, 36).view(6, 6, 1)).view(-1, 8)


@pytest.mark.parametrize(("function", "selected"), [(spread, 384), (spread_on, 192)])
def test_a_mask_that_is_spread_picks_as_torch_does(function: Any, selected: int, cpu: Cpu) -> None:
    module = Net(function)
    graph = from_torch(module, SHAPE, mode="train", assume={"selected": selected})
    predicted = memest.estimate(graph, input_shape=SHAPE, loss="mse_loss", optimizer="sgd", machine=cpu)
    assert first_difference(predicted.events, measure_training(module, inputs_for([SHAPE]), "sgd", "mse_loss").events) is None


def test_a_tensor_that_its_mask_spreads_is_refused_with_its_line() -> None:
    with pytest.raises(
        UnsupportedError, match=r"^Net \(test_stated_lines.py:\d+\): masked_select of a tensor that its mask spreads .*expand"
    ):
        from_torch(Net(lambda y: y[:, :1].masked_select(y > 0)), SHAPE, assume={})


def test_a_window_between_two_numbers_takes_both() -> None:
    def window(y: Any) -> Any:
        return y.flatten()[(y > 0).sum() : (y > -1).sum()].exp()

    with pytest.raises(UnsupportedError, match=r"a window between two numbers in tensors.* state both, assume="):
        from_torch(Net(window), SHAPE, mode="infer", assume={line_of(window): 7})
    graph = from_torch(Net(window), SHAPE, mode="infer", assume={line_of(window): [3, 11]})
    found = next(layer for layer in graph.layers if layer.op == "getitem")
    assert dict(found.attributes)["index"] == ((3, 11, 1),)


def between(y: Any) -> Any:
    begins, ends = y.argmin(), y.argmax()
    return y[:, begins:ends].mean(1, keepdim=True)


def test_a_window_between_two_numbers_wants_both() -> None:
    with pytest.raises(UnsupportedError, match=r"state both, where it begins and where it ends: assume={'(.*:\d+)': \[0, 9\]}") as caught:
        from_torch(Net(between), SHAPE)
    line = str(caught.value).partition("{'")[2].partition("'")[0]
    assert from_torch(Net(between), SHAPE, assume={line: [0, 3]}).layers
