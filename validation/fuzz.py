"""Random networks from the operator table, each measured and predicted; a failing one is shrunk and printed as YAML.

A network is grown from a seed: 1 to 3 spatial dims, odd sizes, branches that are added or concatenated, shared modules, in-place
activations, groups, strides, frozen parts; then trained (any optimizer) or called. The streams must be equal, event by event.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from memest.errors import MemestError
from memest.estimate.estimate import Estimate, estimate
from memest.machines.cpu import Cpu
from memest.network.graph import Graph, Layer, default_drops
from memest.ops.table import COMPOSITES, OPERATORS
from memest.sources import files as schema
from memest.sources.builder import Builder, Node
from validation.execute import GraphModule
from validation.losses import torch_loss
from validation.profiling import settle
from validation.protocol import Measurement, inputs_for, measure_inference, measure_training, target_for
from validation.setup import prediction_of
from validation.streams import Difference, first_difference

ACTIVATIONS = ("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "silu", "mish", "hardswish", "hardsigmoid", "hardtanh")
SMOOTH = ("sigmoid", "tanh", "gelu", "softplus", "softsign", "logsigmoid")
OPTIMIZERS = (
    "sgd", "sgd:momentum=0.9", "sgd:momentum=0.9,nesterov=true,weight_decay=0.1", "adam", "adamw", "adam:foreach=true", "rmsprop",
    "adagrad", "adamw:fused=true", "nadam",
)  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """A network with what is done to it."""

    graph: Graph
    shape: tuple[int, ...]
    mode: str
    optimizer: str
    loss: str
    hold_output: bool
    levers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What a trial gave: None where the streams are equal."""

    difference: Difference | None
    predicted_peak: int
    measured_peak: int

    @property
    def failed(self) -> bool:
        """Streams or peaks differ."""
        return self.difference is not None or self.predicted_peak != self.measured_peak


Running = Callable[[Trial], Outcome | None]


class _Grower:
    """Grows one random network."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.dims = rng.choice((1, 2, 2, 2, 3))
        self.batch = rng.choice((1, 2, 3, 5))
        top = {1: 97, 2: 33, 3: 13}[self.dims]
        self.shape = (self.batch, rng.choice((1, 2, 3, 4, 8, 16)), *(rng.randint(top // 2, top) for _ in range(self.dims)))
        symbols = {1: ("L",), 2: ("H", "W"), 3: ("D", "H", "W")}[self.dims]
        self.builder = Builder("fuzz", dict(zip(("N", *symbols), (self.batch, *self.shape[2:]), strict=True)))
        self.x = self.builder.input("input", ("N", self.shape[1], *symbols))
        self.safe_inplace = False

    def grow(self) -> Trial:
        """The finished network and what is done to it."""
        rng = self.rng
        x = self._attempt(self._conv, self.x)
        for _ in range(rng.randint(2, 9)):
            x = self._attempt(self._step, x)
        x = self._head(x)
        mode = rng.choice(("train", "train", "train", "infer"))
        loss = rng.choice(("cross_entropy", "mse_loss", "l1_loss")) if len(x.shape) >= 2 else "mse_loss"
        return Trial(self.builder.build(x), self.shape, mode, rng.choice(OPTIMIZERS), loss, rng.random() < 0.2)

    def _attempt(self, step: Callable[[Node], Node], x: Node) -> Node:
        """The step, or ``x`` where it does not fit (a kernel larger than what is left)."""
        try:
            return step(x)
        except MemestError:
            return x

    def _step(self, x: Node) -> Node:
        steps: list[tuple[int, Callable[[Node], Node]]] = [
            (5, self._conv), (4, self._norm), (4, self._activation), (2, self._pool), (2, self._residual), (2, self._concat),
            (1, self._dropout), (1, self._interpolate), (1, self._gate), (1, self._arithmetic), (1, self._shared), (1, self._chunk),
            (1, self._transpose), (1, self._pad), (1, self._split_sum),
        ]  # fmt: skip
        weights, makers = zip(*steps, strict=True)
        return self.rng.choices(makers, weights)[0](x)

    def _conv(self, x: Node) -> Node:
        rng, n = self.rng, x.shape[1]
        out = rng.choice((1, 3, 4, 8, 12, 16, 20, 32))
        groups = rng.choice([g for g in (1, 1, 1, 2, 4, n) if n % g == 0 and out % g == 0])
        if rng.random() < 0.15:
            groups = out = n
        if rng.random() < 0.2:
            k = tuple(rng.choice((1, 1, 2, 3, 3, 5)) for _ in range(self.dims))
        else:
            k = (rng.choice((1, 3, 3, 5, 7)),) * self.dims
        dilation = rng.choice((1, 1, 1, 2))
        padding = tuple(rng.choice((0, dilation * (n // 2), dilation * (n // 2))) for n in k)
        return self._layer(
            f"conv{self.dims}d",
            x,
            out_channels=out,
            kernel_size=k,
            groups=groups,
            stride=rng.choice((1, 1, 1, 2)),
            padding=padding,
            dilation=dilation,
            bias=rng.random() < 0.5,
            trainable=rng.random() < 0.85,
        )

    def _transpose(self, x: Node) -> Node:
        k = self.rng.choice((2, 3))
        return self._layer(
            f"conv_transpose{self.dims}d",
            x,
            out_channels=self.rng.choice((2, 4, 8, 16)),
            kernel_size=k,
            stride=2,
            padding=self.rng.choice((0, k // 2)),
            bias=self.rng.random() < 0.5,
        )

    def _norm(self, x: Node) -> Node:
        kind = self.rng.choice(("batch", "batch", "batch", "group", "instance", "layer"))
        if kind == "group":
            groups = self.rng.choice([g for g in (1, 2, 4, x.shape[1]) if x.shape[1] % g == 0])
            return self._layer("group_norm", x, num_groups=groups, affine=self.rng.random() < 0.7)
        if kind == "instance":
            return self._layer("instance_norm", x, affine=self.rng.random() < 0.5)
        if kind == "layer":
            last = self._layer("permute", x, dims=(0, *range(2, len(x.shape)), 1))
            normed = self._layer("layer_norm", last, normalized_shape=(x.shape[1],))
            return self._layer("permute", normed, dims=(0, len(x.shape) - 1, *range(1, len(x.shape) - 1)))
        return self._layer("batch_norm", x, affine=self.rng.random() < 0.85, trainable=self.rng.random() < 0.9)

    def _activation(self, x: Node) -> Node:
        if self.rng.random() < 0.3:
            return self._layer(self.rng.choice(SMOOTH), x)
        op = self.rng.choice(ACTIVATIONS)
        made_by_norm_or_conv = any(s in x.name for s in ("conv", "batch_norm"))
        return self._layer(op, x, inplace=made_by_norm_or_conv and self.rng.random() < 0.5)

    def _pool(self, x: Node) -> Node:
        d, rng = self.dims, self.rng
        kind = rng.choice(("max", "max", "avg", "adaptive_avg", "adaptive_max"))
        if kind.startswith("adaptive"):
            node = self._layer(f"{kind}_pool{d}d", x, output_size=rng.choice((1, 2, 3, 5)))
            return node[0] if isinstance(node, tuple) else node
        k = rng.choice((2, 3))
        return self._layer(
            f"{kind}_pool{d}d", x, kernel_size=k, stride=2, padding=k // 2 if rng.random() < 0.5 else 0, ceil_mode=rng.random() < 0.3
        )

    def _residual(self, x: Node) -> Node:
        y = self._layer(f"conv{self.dims}d", x, out_channels=x.shape[1], kernel_size=3, padding=1, bias=False)
        if self.rng.random() < 0.6:
            y = self._layer("batch_norm", y)
        y = self._activation(y)
        return self._layer("add", y, x, inplace=False)

    def _concat(self, x: Node) -> Node:
        branches = [x] + [self._conv_same(x) for _ in range(self.rng.randint(1, 2))]
        return self._layer("cat", branches, dim=1)

    def _conv_same(self, x: Node) -> Node:
        k = self.rng.choice((1, 3))
        return self._layer(f"conv{self.dims}d", x, out_channels=self.rng.choice((2, 4, 8)), kernel_size=k, padding=k // 2)

    def _dropout(self, x: Node) -> Node:
        return self._layer("dropout", x, p=0.3)

    def _interpolate(self, x: Node) -> Node:
        modes = {1: ("nearest", "linear"), 2: ("nearest", "bilinear", "bicubic", "nearest-exact"), 3: ("nearest", "trilinear")}[self.dims]
        mode = self.rng.choice(modes)
        if numel(x) > 60_000:
            return x
        return self._layer("interpolate", x, scale_factor=2, mode=mode)

    def _gate(self, x: Node) -> Node:
        """Squeeze and excitation."""
        s = self._layer(f"adaptive_avg_pool{self.dims}d", x, output_size=1)
        s = self._layer(f"conv{self.dims}d", s, out_channels=max(1, x.shape[1] // 2), kernel_size=1)
        s = self._layer("relu", s, inplace=True)
        s = self._layer(f"conv{self.dims}d", s, out_channels=x.shape[1], kernel_size=1)
        s = self._layer(self.rng.choice(("sigmoid", "hardsigmoid")), s)
        return self._layer("mul", x, s)

    def _arithmetic(self, x: Node) -> Node:
        op = self.rng.choice(("add", "mul", "sub", "exp_neg", "pow", "square"))
        if op == "exp_neg":
            return self._layer("exp", self._layer("neg", x))
        if op == "pow":
            return self._layer("pow", x, value=2)
        if op == "square":
            return self._layer("mul", x, x)
        return self._layer(op, x, value=self.rng.choice((0.5, 2.0)))

    def _shared(self, x: Node) -> Node:
        name = f"twice{len(self.builder._layers)}"
        y = self.builder.layer(f"conv{self.dims}d", x, name=name, out_channels=x.shape[1], kernel_size=3, padding=1)
        y = self._layer("relu", y)
        return self.builder.layer(f"conv{self.dims}d", y, name=f"{name}_again", shares=name, padding=1)

    def _chunk(self, x: Node) -> Node:
        if x.shape[1] < 2:
            return x
        a, b = self._layer("chunk", x, chunks=2, dim=1)
        b = self._layer("relu", b)
        return self._layer("cat", [b, a], dim=1)

    def _split_sum(self, x: Node) -> Node:
        a = self._layer("relu", x)
        b = self._layer("sigmoid", x)
        return self._layer("add", self._layer("mul", a, b), x)

    def _pad(self, x: Node) -> Node:
        mode = self.rng.choice(("constant", "reflect", "replicate"))
        return self._layer("pad", x, pad=(1,) * (2 * self.dims), mode=mode)

    def _head(self, x: Node) -> Node:
        kind = self.rng.choice(("linear", "linear", "conv", "mean"))
        if kind == "conv":
            return self._layer(f"conv{self.dims}d", x, out_channels=3, kernel_size=1)
        if kind == "mean":
            x = self._layer("mean", x, dim=tuple(range(2, len(x.shape))))
        else:
            x = self._layer("flatten", self._layer(f"adaptive_avg_pool{self.dims}d", x, output_size=1), start_dim=1)
        return self._layer("linear", x, out_features=5)

    def _layer(self, op: str, *inputs: Any, **attributes: Any) -> Any:
        if op not in OPERATORS and op not in COMPOSITES:
            raise MemestError(f"no row {op}")
        return self.builder.layer(op, *inputs, **attributes)


def numel(x: Node) -> int:
    """Elements of a node at the example sizes."""
    total = 1
    for n in x.shape:
        total *= int(n)
    return total


def predict(trial: Trial, cpu: Cpu) -> Estimate:
    """memest's answer."""
    return estimate(
        trial.graph,
        input_shape=trial.shape,
        mode=trial.mode,
        optimizer=trial.optimizer,
        loss=trial.loss,
        hold_output=trial.hold_output,
        machine=cpu,
        torch=torch.__version__,
    )


def measure(trial: Trial) -> Measurement:
    """torch's answer."""
    module = GraphModule(trial.graph)
    inputs = inputs_for([trial.shape])
    if trial.mode == "infer":
        return measure_inference(module, inputs)
    return measure_training(module.train(), inputs, trial.optimizer, trial.loss, hold_output=trial.hold_output)


def run(trial: Trial, cpu: Cpu) -> Outcome | None:
    """Measure and predict; None when torch itself refuses the network, such as one where nothing trainable reaches the loss."""
    try:
        measured = measure(trial)
    except RuntimeError:
        if refused(trial):
            return None
        raise
    predicted = predict(trial, cpu)
    return Outcome(first_difference(predicted.events, measured.events), predicted.peak_bytes, measured.peak_bytes)


def refused(trial: Trial) -> bool:
    """True when torch cannot run the network's forward and backward even unobserved."""
    module = GraphModule(trial.graph).train(trial.mode == "train")
    try:
        output = prediction_of(module(*inputs_for([trial.shape])))
        if trial.mode == "train":
            torch_loss(trial.loss)(output, target_for(trial.loss, output)).backward()
    except RuntimeError:
        return True
    return False


def shrink(trial: Trial, run: Running) -> Trial:
    """A smaller trial that still fails: cut layers from the end, then single layers whose input can stand in for their output."""
    progress = True
    while progress:
        progress = False
        for candidate in _smaller(trial):
            try:
                outcome = run(candidate)
            except Exception:
                continue
            if outcome is not None and outcome.failed:
                trial, progress = candidate, True
                break
    return trial


def _smaller(trial: Trial) -> list[Trial]:
    graph = trial.graph
    found: list[Trial] = []
    for n in range(1, len(graph.layers)):
        found.append(_rebuilt(trial, graph.layers[:n], graph.layers[n - 1].outputs[0]))
    for i, layer in enumerate(graph.layers):
        first = layer.tensors[0]
        if isinstance(first, str) and len(layer.outputs) == 1:
            swapped = [_renamed(other, layer.outputs[0], first) for j, other in enumerate(graph.layers) if j != i]
            out = first if graph.outputs[0] == layer.outputs[0] else graph.outputs[0]
            found.append(_rebuilt(trial, swapped, out))
    simple = replace(trial, optimizer="sgd", loss="mse_loss", hold_output=False, levers=())
    return [*([simple] if simple != trial else []), *found]


def _renamed(layer: Layer, old: str, new: str) -> Layer:
    def swap(t: Any) -> Any:
        return new if t == old else tuple(new if u == old else u for u in t) if isinstance(t, tuple) else t

    return replace(layer, tensors=tuple(swap(t) for t in layer.tensors))


def _rebuilt(trial: Trial, layers: Any, output: str) -> Trial:
    graph = trial.graph
    read = {n for layer in layers for n in layer.reads}
    parameters = tuple(p for p in graph.parameters if p.name in read)
    permanent = [i.name for i in graph.inputs] + [p.name for p in parameters]
    drops = default_drops(layers, (output,), permanent)
    return replace(trial, graph=graph.with_(layers=drops, outputs=(output,), parameters=parameters))


def fuzz(cases: int, seed: int = 0) -> int:
    """Run ``cases`` random networks on this processor; the number of failures."""
    cpu = Cpu.detect().with_(threads=torch.get_num_threads())
    settle()
    return fuzz_with(lambda trial: run(trial, cpu), cases, seed)


def fuzz_with(run: Running, cases: int, seed: int, change: Callable[[Trial, random.Random], Trial] = lambda trial, rng: trial) -> int:
    """Run ``cases`` random networks, ``change``d; the number of failures. Each failure is printed with its seed, shrunk."""
    failures = done = skipped = 0
    start = time.time()
    number = seed
    while done < cases:
        number += 1
        rng = random.Random(number)
        trial = change(_Grower(rng).grow(), rng)
        outcome = run(trial)
        if outcome is None:
            skipped += 1
            assert skipped <= cases, "torch refuses most of what is drawn"
            continue
        done += 1
        if outcome.failed:
            failures += 1
            _report(number, shrink(trial, run), run)
        if done % 50 == 0:
            print(f"{done} networks, {failures} failures, {time.time() - start:.0f} s", file=sys.stderr, flush=True)
    print(f"{cases} networks, {failures} differences ({skipped} drawn that torch refuses)")
    return failures


def _report(number: int, trial: Trial, run: Running) -> None:
    done = f"{trial.mode}, {trial.optimizer}, {trial.loss}, hold_output={trial.hold_output}{''.join(f', {t}' for t in trial.levers)}"
    print(f"--- seed {number}: input {trial.shape}, {done}")
    outcome = run(trial)
    print(schema.dumps(trial.graph))
    if outcome is not None:
        print(f"peak: predicted {outcome.predicted_peak}, measured {outcome.measured_peak}")
        print(outcome.difference, flush=True)
