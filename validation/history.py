"""The one step of a real card that is at hand, beside memest's prediction of it.

A public record (``cuda_cnn_cudnn_workspaces.pickle``, JasperSolt/EoR_NN: snapshot.pickle) has the gradient of a loss by a small CNN's
input, with anomaly detection on, by a torch of 2023. Its reductions' buffers say that the card is a Turing one of 72 multiprocessors. The
network is rebuilt from the sizes and frames of the record; its weights are frozen, as the sizes say.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

import memest
from memest.libraries.cudnn.library import installed
from memest.machines.devices import gpu_of
from memest.machines.reading import hardware_named
from memest.machines.target import Target
from memest.memory.stream import Event
from memest.network.binding import bind
from memest.network.tensor import nbytes
from memest.planning.beside import Beside, Parting, beside
from memest.planning.recorded import where
from memest.runtimes.torch.autograd import AccumulateGrad, Machine
from memest.runtimes.torch.cuda.rows import ROWS
from memest.runtimes.torch.cuda.runtime import RUNTIME
from memest.runtimes.torch.ledger import Value
from memest.runtimes.torch.step import Caller, Recipe
from memest.runtimes.torch.step.batches import whole
from memest.runtimes.torch.step.forward import forward
from memest.runtimes.torch.step.parallel.alone import Alone
from memest.runtimes.torch.step.run import Run
from memest.sources.snapshots.reading import load_histories

FOLDER = Path(__file__).parents[2] / "shared" / "traces"
FILE = "cuda_cnn_cudnn_workspaces.pickle"
CARD = "quadro-rtx-6000"
CHANNELS = (30, 16, 32, 64)
FEATURES = (64, 200, 100, 20)
SIDE = 256


class Recorded(nn.Module):
    """Three convolutions, each with ReLU, batch norm and max pool; a global max pool; a perceptron with dropout. It is called with an image
    and what both image and score are to be near to, and gives the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, 3, padding="same") for a, b in pairwise(CHANNELS))
        self.norms = nn.ModuleList(nn.BatchNorm2d(n) for n in CHANNELS[1:])
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(FEATURES))
        self.last = nn.Linear(FEATURES[-1], 1)
        self.dropout = nn.Dropout(0.2)
        self.requires_grad_(False)

    def scores(self, image: torch.Tensor) -> torch.Tensor:
        """One for each image."""
        x = image
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = functional.max_pool2d(norm(torch.relu(convolution(x))), 2)
        x = torch.flatten(functional.max_pool2d(x, 32), 1)
        for layer in self.hidden:
            x = torch.relu(layer(self.dropout(x)))
        return self.last(x)

    def forward(self, image: torch.Tensor, other: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        scores = self.scores(image)
        return torch.square(image - other).mean() + torch.square(scores - label).mean()


class Checking(Machine):
    """``torch.autograd.detect_anomaly``: each gradient that a node gives is looked through for NaN (``isnan(x).any()``, and ``isnan`` is
    ``x != x``; torch/csrc/autograd/engine.cpp)."""

    def _validated(self, gradient: Value | None, edge: tuple[object, int] | None) -> Value | None:
        found = super()._validated(gradient, edge)  # type: ignore[arg-type]
        if found is not None:
            caller = Caller(self, True, None, ROWS)
            (odd,) = caller.run(ROWS["ne"], [found, found], tuple(ROWS["ne"].canonical({}).items()))
            assert odd is not None
            self.ledger.hold(odd)
            (one,) = caller.run(ROWS["any"], [odd], tuple(ROWS["any"].canonical({}).items()))
            assert one is not None
            self.ledger.hold(one)
            self.ledger.let_go(odd)
            self.ledger.let_go(one)
        return found


class Checked(Run):
    """A run whose backward pass is checked."""

    kind_of_machine = Checking


def predicted(target: Target) -> list[Event]:
    """What forward and backward ask for, the image being what is trained."""
    image = torch.empty(1, CHANNELS[0], SIDE, SIDE, device="meta")
    given = [image, torch.empty_like(image), torch.empty(1, 1, device="meta")]
    with torch.device("meta"):
        module = Recorded()
    graph = memest.from_torch(module, given, mode="train")
    shapes = {i.name: tuple(t.shape) for i, t in zip(graph.inputs, given, strict=True)}
    run = Checked(graph, shapes, bind(graph.inputs, shapes), Recipe(training=True, target=target), ROWS, Alone(), remember=True)
    value = run.env[graph.inputs[0].name]
    value.requires_grad, value.node = True, AccumulateGrad(value, "image")
    ledger = run.ledger
    ledger.phase = "forward"
    (loss,) = forward(run, whole(run))
    ledger.phase, ledger.layer, ledger.op = "backward", "loss", "ones_like"
    gradient = ledger.hold(Value(loss.spec, ledger.allocate(nbytes(loss.shape, loss.spec.dtype), "gradient")))
    run.machine.backward(loss, gradient)
    ledger.let_go(gradient)
    return list(ledger.events)


def compared(folder: Path = FOLDER, card: str = CARD) -> Beside:
    """The prediction beside the record."""
    (history,) = load_histories(folder / FILE)
    target = RUNTIME.target(gpu_of(hardware_named(card)), "2.14", None)
    return beside(history, predicted(target))


REASONS = (  # what is known of a stretch by its recorded sizes and the frame that asked, in the order in which they are tried
    (lambda sizes, frame: set(sizes) == {1 << 20}, "that torch's cuBLASLt took a MiB for each linear layer, 2.14's shares cuBLAS's"),
    (lambda sizes, frame: frame.endswith("d_image"), "the program computes its loss a second time"),
    (lambda sizes, frame: not sizes, "the program puts its loss together otherwise: the last sum has no node of its own"),
)


def reason(found: Beside, parting: Parting) -> str:
    """Why record and prediction part there; empty where that is not known."""
    before = found.predicted[max(parting.predicted[0] - 1, 0)]
    if installed() is None and before.op == "convolution":
        return "a workspace of cuDNN, which is not installed here: what is predicted is modelled"
    entries = [found.history.entries[number] for number in found.recorded[slice(*parting.recorded)]]
    frame = where(found.history.stacks[entries[0].stack]) if entries else ""
    return next((text for holds, text in REASONS if holds([e.size for e in entries], frame)), "")


def lines(folder: Path = FOLDER, card: str = CARD) -> Iterator[str]:
    """How many sizes are equal in order, and each place where they part."""
    found = compared(folder, card)
    yield f"{found.equal} of {len(found.predicted)} sizes predicted for a {card} are recorded in that order, of {len(found.recorded)}"
    for parting in found.partings:
        entries = [found.history.entries[number] for number in found.recorded[slice(*parting.recorded)]]
        events = found.predicted[slice(*parting.predicted)]
        there = f"{[e.size for e in entries]} at {where(found.history.stacks[entries[0].stack])}" if entries else "nothing"
        here = f"{[e.delta for e in events]} for {events[0].op} of {events[0].layer}" if events else "nothing"
        yield f"  recorded {there}; predicted {here}: {reason(found, parting) or 'not explained'}"
