"""Packed sequences, whose lengths are values: from a list, a tensor or an example, or assumed. And tensors that torch makes unseen."""

from __future__ import annotations

from typing import Any

import pytest

import memest
from memest.errors import UnsupportedError
from memest.machines.cpu import Cpu
from memest.sources.opening import from_torch

torch = pytest.importorskip("torch")
nn = torch.nn
rnn = torch.nn.utils.rnn

from tests.test_contexts import same  # noqa: E402
from validation.protocol import inputs_for, measure_inference, measure_training  # noqa: E402

SHAPE = (4, 3, 8, 5)


class Network(nn.Module):  # type: ignore[name-defined, misc]
    """A convolution whose columns are the steps of sequences."""

    def __init__(self, inner: Any, lengths: Any, sorted: bool = True) -> None:
        super().__init__()
        self.first, self.inner, self.sorted = nn.Conv2d(3, 2, 1), inner, sorted
        self.lengths = lambda: lengths

    def forward(self, x: Any, lengths: Any = None) -> Any:
        steps = self.first(x).permute(0, 2, 1, 3).flatten(2)
        lengths = self.lengths() if lengths is None else lengths
        packed = rnn.pack_padded_sequence(steps, lengths, batch_first=True, enforce_sorted=self.sorted)
        out, _ = self.inner(packed)
        return rnn.pad_packed_sequence(out, batch_first=True)[0]


CASES = {
    "list": lambda: Network(nn.LSTM(10, 3, batch_first=True), [8, 6, 6, 2]),
    "unsorted": lambda: Network(nn.GRU(10, 3, 2, bidirectional=True, batch_first=True), [3, 8, 6, 2], False),
    "all alike": lambda: Network(nn.LSTM(10, 3, batch_first=True), [8] * 4),
}


@pytest.mark.parametrize("mode", ["train", "infer"])
@pytest.mark.parametrize("case", sorted(CASES))
def test_packed_layers_take_what_torch_takes(case: str, mode: str) -> None:
    recipe: Any = {"optimizer": "sgd", "loss": "mse_loss"} if mode == "train" else {"mode": "infer"}
    graph = memest.loads(memest.dumps(from_torch(CASES[case](), SHAPE)))
    measured = (
        measure_training(CASES[case](), inputs_for([SHAPE]), **recipe)
        if mode == "train"
        else measure_inference(CASES[case](), inputs_for([SHAPE]))
    )
    cpu = Cpu.detect().with_(threads=torch.get_num_threads())
    same(memest.estimate(graph, input_shape=SHAPE, machine=cpu, **recipe), measured)


def test_lengths_of_an_example_are_its_own() -> None:
    given = from_torch(Network(nn.LSTM(10, 3, batch_first=True), None), [SHAPE, torch.tensor([8, 6, 6, 2])])
    written = from_torch(Network(nn.LSTM(10, 3, batch_first=True), [8, 6, 6, 2]), SHAPE)
    (one,), (other,) = ([dict(x.attributes)["batch_sizes"] for x in g.layers if x.op == "packed_lstm"] for g in (given, written))
    assert one == other == (4, 4, 3, 3, 3, 3, 1, 1)
    assert any("8, 6, 6, 2" in note for note in given.notes)


def test_unknown_lengths_are_stated() -> None:
    module = Network(nn.LSTM(10, 3, batch_first=True), None)
    example = [SHAPE, torch.empty(4, dtype=torch.int64, device="meta")]
    with pytest.raises(UnsupportedError, match=r"pack_padded_sequence.*assume={'length': N}"):
        from_torch(module, example)
    graph = from_torch(module, example, assume={"length": 5})
    (sizes,) = (dict(x.attributes)["batch_sizes"] for x in graph.layers if x.op == "packed_lstm")
    assert [str(n) for n in sizes] == ["N"] * 5


def test_where_as_a_method_reads_its_condition_second() -> None:
    class Chosen(nn.Module):  # type: ignore[name-defined, misc]
        def forward(self, x: Any) -> Any:
            return x.where(x > 0, torch.tensor(0.0))

    (layer,) = (x for x in from_torch(Chosen(), SHAPE).layers if x.op == "where")
    assert layer.tensors[:2] == ("gt", "input")
