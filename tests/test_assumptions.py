"""Counts that depend on values: what a user states of them, what follows, and what is said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import memest
from memest.errors import UnsupportedError, UsageError
from memest.machines.cpu import Cpu
from memest.sources.assumptions import Assumptions, from_texts

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from memest.sources.importers.torch.network import from_torch  # noqa: E402
from validation.protocol import inputs_for, measure_inference, measure_training  # noqa: E402
from validation.streams import first_difference  # noqa: E402

SHAPE = (4, 3, 6, 6)


class Net(nn.Module):
    """A convolution, what a function makes of it, and a head."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.conv, self.head, self.function = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 5), function

    def forward(self, x: Any) -> Any:
        return self.head(self.function(self.conv(x).permute(0, 2, 3, 1)))


def first(count: int, of: int) -> Any:
    """A mask that is true at the first places."""
    return torch.arange(of) < count


def samples(y: Any) -> Any:
    kept = first(3, 4)
    return torch.cat([y[kept], y[~kept] * 2])


def rows(y: Any) -> Any:
    return y.flatten(0, 2)[first(50, 144)]


def channels_apart(y: Any) -> Any:
    return y[:, first(2, 6)] + y[:, :, torch.nonzero(first(2, 6))[:, 0]].transpose(1, 2)


def everywhere(y: Any) -> Any:
    picked = y.reshape(-1)[first(80, 1152)]
    return picked.view(10, 8) + torch.masked_select(y, first(8, 1152).view(4, 6, 6, 8))


def places(y: Any) -> Any:
    samples, columns = torch.where(torch.arange(24).view(4, 6) < 7)
    return y[samples, columns]


def counted(y: Any) -> Any:
    kept = first(3, 4)
    return y[kept] / max(1, kept.sum().item()) if kept.any() else y


def written(y: Any) -> Any:
    kept, result = first(3, 4), torch.zeros_like(y)
    result[kept] = y[kept] * 2
    result[:, 1:3][first(1, 4)] = 3.0
    return result


def scattered(y: Any) -> Any:
    result = torch.zeros_like(y)
    result[torch.nonzero(first(3, 4))[:, 0]] = y[1:]
    return result


def checked(y: Any) -> Any:
    if (y != y).any():
        raise ValueError("not a number")
    assert not (y > 1e9).any()
    torch._assert((y == y).all(), "not a number")
    return y


def distinct(y: Any) -> Any:
    values, where = torch.unique(torch.arange(4) // 2, return_inverse=True)
    return y[: len(values)] + y[where][:2]


def read(y: Any) -> Any:
    """A number that is read by its line decides sizes."""
    count = int(y.sum().item())
    return y.flatten(0, 2)[:count]


def window(y: Any) -> Any:
    """A window that tensors bound, and a place that max() makes of two."""
    at = y.argmax(3).flatten()
    first, last = max(at[0], 0), at[1] + 2
    return y[:, first:last] * 2


def sized(y: Any) -> Any:
    return y.flatten(0, 2)[: torch.zeros(y.flatten().argmax(), 2).shape[0]]


CASES: list[tuple[Callable[[Any], Any], dict[str, Any] | None]] = [
    (samples, {"selected": 3}),
    (rows, {"selected": 50}),
    (channels_apart, {"selected": 2}),
    (everywhere, {"selected": [80, 8]}),
    (places, {"selected": 7}),
    (counted, {"selected": 3}),
    (written, {"selected": 3}),
    (scattered, {"selected": 3}),
    (checked, None),
    (distinct, {"unique": 2}),
]


@pytest.mark.parametrize(("function", "assume"), CASES, ids=[f.__name__ for f, _ in CASES])
@pytest.mark.parametrize("mode", ["train", "infer"])
def test_a_step_is_that_of_torch_where_values_are_as_assumed(function: Any, assume: Any, mode: str, cpu: Cpu) -> None:
    module = Net(function)
    graph = from_torch(module, SHAPE, mode=mode, assume=assume)
    if mode == "train":
        predicted = memest.estimate(graph, input_shape=SHAPE, loss="mse_loss", optimizer="sgd", machine=cpu)
        measured = measure_training(module, inputs_for([SHAPE]), "sgd", "mse_loss")
    else:
        predicted = memest.estimate(graph, input_shape=SHAPE, mode="infer", machine=cpu)
        measured = measure_inference(module.eval(), inputs_for([SHAPE]))
    difference = first_difference(predicted.events, measured.events)
    assert difference is None, f"\n{difference}"
    assert predicted.peak_bytes == measured.peak_bytes


def test_a_file_answers_like_the_graph_and_repeats_what_was_assumed() -> None:
    graph = from_torch(Net(samples), SHAPE, assume={"selected": 3})
    again = memest.loads(memest.dumps(graph))
    asked: dict[str, Any] = {"input_shape": SHAPE, "loss": "mse_loss"}
    first, second = memest.estimate(graph, **asked), memest.estimate(again, **asked)
    assert first.peak_bytes == second.peak_bytes
    assert "assumed as stated: selected=3 (Net (test_assumptions.py:" in first.notes[0] == second.notes[0]


def test_shares_follow_the_sizes() -> None:
    graph = from_torch(Net(lambda y: y.flatten(0, 2)[y.sum(3).flatten() > 0]), SHAPE, assume={"selected": "25%"})
    for shape in (SHAPE, (8, 3, 6, 6)):
        estimate = memest.estimate(graph, input_shape=shape, mode="infer")
        assert estimate.timeline.values[graph.outputs[0]].shape == (shape[0] * 9, 5)


def test_what_is_not_stated_is_the_most_it_can_be_and_said() -> None:
    graph = from_torch(Net(lambda y: y[y.sum((1, 2, 3)) > 0].flatten(0, 2)[first(9, 144)]), SHAPE, assume={"test_assumptions.py:160": 4})
    assert [n.partition(" (")[0] for n in graph.notes] == ["assumed as stated: test_assumptions.py:160=4"]
    graph = from_torch(Net(lambda y: y[y.sum((1, 2, 3)) > 0]), SHAPE, assume={})
    assert graph.notes[0].startswith("assumed, as nothing is stated: selected=all, the most elements that a mask")


def test_masks_that_share_a_tensor_out_pick_all_of_it_together() -> None:
    def by_level(y: Any) -> Any:
        levels = y.argmax(3)[:, 0, 0]
        return torch.cat([y[levels == level] for level in range(3)])

    graph = from_torch(Net(by_level), SHAPE, assume={})
    counts = [dict(layer.attributes)["counts"] for layer in graph.layers if "counts" in dict(layer.attributes)]
    assert [str(c[0]) for c in counts] == ["N", "0", "0"]


@pytest.mark.parametrize(
    ("function", "assume", "error", "said"),
    [
        (rows, None, UnsupportedError, r"test_assumptions.py:\d+\): .*x\[mask\] depends on values; .* assume={'selected': N}, .*--assume"),
        (
            places,
            None,
            UnsupportedError,
            r"torch.nonzero\(\) .* how many of 24 there are \(elements .*\): assume={'selected': N}",
        ),
        (
            distinct,
            {"selected": 1},
            UnsupportedError,
            r"torch.unique\(\) .* how many of 4 there are \(different .*there is no",
        ),
        (
            lambda y: y * 2 if y.sum() > 0 else y,
            {"selected": 1},
            UnsupportedError,
            r"as a condition .*{'test_assumptions.py:\d+': True}",
        ),
        (rows, {"boxes": 1}, UsageError, "nothing in the network depends on 'boxes'; it goes by selected"),
        (rows, {"select": 1}, UsageError, "'select' is no kind .*did you mean 'selected'"),
        (rows, {"selected": -1}, UsageError, "'selected' is -1; give a number"),
        (rows, {"selected": "120%"}, UsageError, "give a number"),
        (rows, {"selected": []}, UsageError, "an empty list"),
        (rows, {"selected": True}, UsageError, "asks how many"),
        (rows, {"selected": [50, 60]}, UsageError, "lists 2 values for 1 calls"),
        (samples, {"selected": [3], "boxes": 3}, UsageError, "nothing in the network depends on 'boxes'"),
        (channels_apart, {"selected": [2]}, UsageError, "lists 1 values, and there are more calls"),
        (rows, [1], UsageError, "assume takes names and numbers"),
    ],
)
def test_what_is_not_said_or_said_wrongly_is_refused(function: Any, assume: Any, error: Any, said: str) -> None:
    with pytest.raises(error, match=said) as caught:
        from_torch(Net(function), SHAPE, mode="infer", assume=assume)
    assert "\n" not in str(caught.value)


def test_a_branch_goes_as_stated_for_its_line() -> None:
    def branching(y: Any) -> Any:
        return y * 2 if y.sum() > 0 else y

    line = f"test_assumptions.py:{branching.__code__.co_firstlineno + 1}"
    for way in (True, False):
        graph = from_torch(Net(branching), SHAPE, assume={line: way})
        assert ("mul" in [layer.op for layer in graph.layers]) == way
        assert f"assumed as stated: {line}={str(way).lower()}" in graph.notes[0]


@pytest.mark.parametrize(("function", "after", "rows"), [(read, 2, 50), (sized, 1, 7)])
def test_a_number_is_what_is_stated_for_its_line(function: Any, after: int, rows: int) -> None:
    line = f"test_assumptions.py:{function.__code__.co_firstlineno + after}"
    for assume in ({line: rows}, {"size": rows}, {line: [rows]}):
        graph = from_torch(Net(function), SHAPE, mode="infer", assume=assume)
        estimate = memest.estimate(graph, input_shape=SHAPE, mode="infer")
        assert estimate.timeline.values[graph.outputs[0]].shape == (rows, 5)
        assert "assumed as stated: " in graph.notes[0]
    with pytest.raises(UnsupportedError, match=rf"assume={{'{line}': N}}"):
        from_torch(Net(function), SHAPE, mode="infer")


def test_a_window_that_tensors_bound_is_as_long_as_is_stated() -> None:
    first = window.__code__.co_firstlineno
    bounds = {f"test_assumptions.py:{first + 4}": [1, 5], f"test_assumptions.py:{first + 3}": False}
    for assume, rows in ((bounds, 4), ({"size": 3}, 3)):
        graph = from_torch(Net(window), SHAPE, mode="infer", assume=assume)
        estimate = memest.estimate(graph, input_shape=SHAPE, mode="infer")
        assert estimate.timeline.values[graph.outputs[0]].shape == (4, rows, 6, 5)
    assert any("max() and min()" in note for note in graph.notes)


def test_a_line_that_nothing_goes_by_is_told_with_those_that_count() -> None:
    said = r"nothing in the network depends on 'net.py:11'; it goes by selected at test_assumptions.py:\d+$"
    with pytest.raises(UsageError, match=said):
        from_torch(Net(rows), SHAPE, mode="infer", assume={"net.py:11": 3, "selected": 50})


def test_the_nearest_statement_counts() -> None:
    stated, taken = Assumptions({"boxes": 1, "head.boxes": 2, "a.py:3": 4}), dict[str, int]()
    for path, lines, value in (("", ["b.py:1"], 1), ("head.nms", [], 2), ("head", ["a.py:3"], 4)):
        found = stated.found("boxes", path, lines, taken)
        assert found is not None and found.value == value
    assert stated.found("unique", "head", ["a.py:4"], taken) is None


def test_statements_are_read_from_texts() -> None:
    assert from_texts([]) is None
    assert from_texts(["boxes=300", "a.py:3=true", "selected=5,all, 30%"]) == {"boxes": 300, "a.py:3": True, "selected": [5, "all", "30%"]}
    with pytest.raises(UsageError, match="expected NAME=NUMBER"):
        from_texts(["boxes"])


def test_a_step_takes_assumptions() -> None:
    module = Net(rows)

    def step(x: Any) -> None:
        module(x).sum().backward()

    assert any("selected=50" in note for note in memest.step(step, SHAPE, assume={"selected": 50}).notes)
    with pytest.raises(UnsupportedError, match="depends on values"):
        memest.step(step, SHAPE)


def test_all_that_is_asked_for_is_told_at_once() -> None:
    def asks(y: Any) -> Any:
        kept = y[y > 0]
        found = torch.unique(y.argmax(-1))
        return kept.sum() + found.sum() + y[: found[0]].sum() + y[y < -1].sum()

    with pytest.raises(UnsupportedError, match=r"kept = y\[y > 0\]: x\[mask\] depends .* assume={'test_assumptions.py:\d+': N}") as caught:
        from_torch(Net(asks), SHAPE, mode="infer")
    said = str(caught.value).partition("asked for are, in all, ")[2]
    assert [part.partition(" ")[0] for part in said.split("; ")] == ["selected", "size", "unique"] and said.count(".py:") == 4
    with pytest.raises(UnsupportedError, match=r"asked for are, in all, size at test_assumptions.py:\d+$"):
        from_torch(Net(asks), SHAPE, mode="infer", assume={"selected": 3})
